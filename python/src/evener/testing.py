"""Tests of a service as its clients meet it: a service file runs for as long as a test, or some tests, want it to.

::

    import evener.testing

    def test_the_tutorials_figures():
        with evener.testing.Service("service.yaml") as service:
            assert service.get("/?n=42").json() == {"sum": 1764, "square": 1764, "diff": 0}

It is the real thing: the `evener` program with workers of its own, on free ports of this machine. It needs the standard
library alone, and no particular test runner.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps, loads
from typing import IO, TYPE_CHECKING, Any, Union

from evener._engine import binary
from evener._errors import ConnectError, EvenerError
from evener._worker import Headers

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    Params = Union[Mapping[str, object], Sequence[tuple[str, object]]]

__all__ = ["Answer", "Service", "StartError"]

# How often to look whether a service that is not ready will never be, and at a log, in seconds.
_LOOK = 0.1
_GLANCE = 0.01
# After its first SIGTERM a node lets what runs finish, after the second it gives that up; then it is killed.
_FINISH, _GIVE_UP = 2.0, 10.0
# Functions whose mistakes are their caller's say `__tracebackhide__`: pytest then shows the test, and not this file.

# What a request cannot have: its own value for "no JSON", as None is a value of JSON.
_NOTHING: Any = object()
# What a path may hold as it is.
_PLAIN = "!#$%&'()*+,/:;=?@[]~"


class StartError(EvenerError, RuntimeError):
    """The service did not start, or not all of it. The message has the log, which is in `log` as well."""

    __module__ = "evener.testing"

    def __init__(self, why: str, log: str = "") -> None:
        super().__init__(f"{why}\n{log.rstrip()}" if log.strip() else why)
        self.log = log


@dataclass(frozen=True)
class Answer:
    """An answer. Every status is one, also those that say that something went wrong."""

    status: int
    headers: Headers
    """By their names, in upper or lower case; `getlist` gives all values of one."""
    body: bytes = field(repr=False)
    elapsed: float
    """From the request to the last byte, in seconds."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """Decode the body as JSON; a ValueError if it is none."""
        return loads(self.body)


class Service:
    """A service file that runs while a ``with`` block does, or from `start` to `stop`.

    `file` is the service file. `set` puts values over what is in it, as ``evener up --set`` does, such as
    ``"stages.sum.workers=0"``. `env` has environment variables for it, beside those of this process. Its workers have
    this process's Python, unless the service file or a ``.venv`` beside it says otherwise. It listens on free ports of
    127.0.0.1, whatever the file says, and without TLS.

    `start_timeout` is how long it may take to be ready, in seconds. It ends with this process, however that ends. One
    object may be used by several threads.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        set: Iterable[str] = (),  # noqa: A002 (it is the option's name)
        env: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        if isinstance(set, str):
            raise TypeError("set takes a list, such as ['stages.sum.workers=0']")
        self._file = os.fspath(file)
        self._set = [*set, "listen.http=127.0.0.1:0", "listen.api=127.0.0.1:0"]
        self._env = dict(env or {})
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        # What it logs, while it runs, and what it has logged, afterwards.
        self._log: IO[bytes] | None = None
        self._logged = ""
        self._said = b""
        self._addresses: dict[str, str] = {}
        self._end: weakref.finalize[Any, Any] | None = None

    def __enter__(self) -> Self:
        __tracebackhide__ = True
        return self if self._runs() else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<evener.testing.Service {self._file!r} {self._addresses.get('http', 'not running')}>"

    def start(self) -> Self:
        """Start it, and wait until every stage takes work. Returns the service itself.

        Raises `StartError` if the program is not found, if the file is bad, if a stage's workers do not start, or if it
        all takes too long.
        """
        __tracebackhide__ = True
        if self._runs():
            raise RuntimeError("the service runs already")
        program = _program()
        log = tempfile.TemporaryFile()  # noqa: SIM115
        arguments = [program, "up", self._file, "--end-with-parent"]
        for value in self._set:
            arguments += ["--set", value]
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**_environment(), **self._env},
                # Ctrl-C in a terminal is for this process, which may go on after it.
                start_new_session=True,
            )
        except OSError as error:
            log.close()
            raise StartError(f"{program!r} cannot be started: {error}") from error
        self._owner = os.getpid()
        self._log, self._said, self._addresses = log, b"", {}
        self._end = weakref.finalize(self, _stop, self._process, log, self._owner)
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it and its workers, and wait until they are gone. May be called more than once."""
        if self._end is not None and self._end.alive:
            assert self._process is not None
            _end(self._process, self._owner)
            self._logged, self._log = self.log, None
            self._end()
        self._addresses = {}

    @property
    def url(self) -> str:
        """Where it listens, such as ``http://127.0.0.1:43123``."""
        __tracebackhide__ = True
        return self._address("http")

    @property
    def log(self) -> str:
        """All that it has logged so far, and what its workers have printed; after its end, what that was."""
        if self._log is None:
            return self._logged
        # It shares the file's position with this process, so that must not be moved.
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def wait_log(self, pattern: str, *, timeout: float = 10.0) -> re.Match[str]:
        """Wait until the log matches a regular expression, and return the match.

        What belongs to a request may be logged a moment after its answer. ``^`` and ``$`` match at lines. Raises
        TimeoutError, with the log, if there is no match within `timeout` seconds.
        """
        __tracebackhide__ = True
        until = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.log, re.MULTILINE)
            if found:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"nothing in the log matches {pattern!r} after {timeout:g} s:\n{self.log}")
            time.sleep(_GLANCE)

    def get(
        self,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Answer:
        """Send a GET request; see `request`."""
        __tracebackhide__ = True
        return self.request("GET", path, params=params, headers=headers, timeout=timeout)

    def post(
        self,
        path: str,
        *,
        json: object = _NOTHING,
        data: bytes | str | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Answer:
        """Send a POST request; see `request`."""
        __tracebackhide__ = True
        return self.request("POST", path, json=json, data=data, params=params, headers=headers, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = _NOTHING,
        data: bytes | str | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Answer:
        """Send a request on a connection of its own, and return the whole answer, whatever its status.

        The body is `json`, a value (None is one as well), or `data`, a text or bytes. `headers` win over the content
        type that belongs to that. `path` may have a query, to which `params` are added; a list as a value gives a name
        several values. `timeout` is how long nothing may come, in seconds.

        Raises TimeoutError, or a ConnectionError if there is no whole answer.
        """
        __tracebackhide__ = True
        body, kind = _body(json, data)
        sent = {"Content-Type": kind} if kind and not _names(headers, "content-type") else {}
        address = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout)
        began = time.monotonic()
        try:
            # It may answer before it has read everything, and close.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, _target(path, params), body=body, headers={**sent, **(headers or {})})
            response = connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            raise TimeoutError(f"{method} {path}: nothing came for {timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            # TimeoutError is a name for it from Python 3.10 on.
            if type(error).__name__ == "timeout":
                raise TimeoutError(f"{method} {path}: nothing came for {timeout:g} s") from error
            raise ConnectionError(f"{method} {path}: {_reason(error)}{self._ending()}") from error
        finally:
            connection.close()
        return Answer(response.status, Headers(response.getheaders()), content, time.monotonic() - began)

    # How it starts and ends.

    def _runs(self) -> bool:
        return self._end is not None and self._end.alive

    def _address(self, name: str) -> str:
        __tracebackhide__ = True
        if name not in self._addresses:
            raise RuntimeError("the service does not run: use it in a `with` block, or call start()")
        return self._addresses[name]

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the line `ready`, and take in the addresses that come before it."""
        __tracebackhide__ = True
        until = time.monotonic() + self._start_timeout
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(_LOOK):
                    data = os.read(process.stdout.fileno(), 4096)
                    if not data:
                        raise self._failed(f"the service {self._file!r} did not start{self._ending()}")
                    self._said += data
                    lines = [line.split() for line in self._said.decode().split("\n")[:-1]]
                    self._addresses = {words[1]: words[2] for words in lines if words[:1] == ["listening"]}
                    if ["ready"] in lines:
                        return
                elif broken := self._broken():
                    raise self._failed(f"the service {self._file!r} did not start: {broken}")
                if time.monotonic() > until:
                    raise self._failed(f"the service {self._file!r} was not ready within {self._start_timeout:g} s")

    def _broken(self) -> str:
        """Say which stages do not start; empty while there is hope."""
        address = urllib.parse.urlsplit(self._addresses.get("api", ""))
        if not address.port:
            return ""
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            stages = loads(connection.getresponse().read())["stages"]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return ""
        finally:
            connection.close()
        broken = [f"`{name}`" for name, state in stages.items() if state == "broken"]
        return f"workers of {', '.join(broken)} do not start" if broken else ""

    def _failed(self, why: str) -> StartError:
        self.stop()
        return StartError(why, self.log)

    def _ending(self) -> str:
        """Say how it ended, if it has."""
        assert self._process is not None
        # Its sockets close a moment before it can be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(0.2)
            if code >= 0:
                return f"; it ended with exit code {code}"
            with contextlib.suppress(ValueError):
                return f"; it was killed by {signal.Signals(-code).name}"
            return f"; it was killed by signal {-code}"
        return ""


def _stop(process: subprocess.Popen[bytes], log: IO[bytes], owner: int) -> None:
    _end(process, owner)
    log.close()
    if process.stdout is not None:
        process.stdout.close()


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """End a node. A fork of its owner has to leave it alone."""
    if os.getpid() != owner:
        return
    for patience in (_FINISH, _GIVE_UP):
        # It may have ended by itself.
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    if process.poll() is None:
        process.kill()
        process.wait()


def _program() -> str:
    __tracebackhide__ = True
    try:
        return binary()
    except ConnectError as error:
        if os.environ.get("EVENER_BIN"):
            raise StartError(str(error)) from None
        raise StartError(
            "the `evener` program was found neither beside this package nor on PATH: install the wheel of evener for "
            "this platform, or name the program in EVENER_BIN"
        ) from None


def _environment() -> dict[str, str]:
    """Return this process's environment, changed so that the service's workers get this process's Python."""
    env = dict(os.environ)
    if sys.prefix != sys.base_prefix:
        env["VIRTUAL_ENV"] = sys.prefix
    elif sys.executable:
        env.pop("VIRTUAL_ENV", None)
        env["PATH"] = os.path.dirname(sys.executable) + os.pathsep + env.get("PATH", os.defpath)  # noqa: PTH120
    return env


def _body(json: object, data: object) -> tuple[bytes | None, str]:
    """Return the body that is sent, and its content type."""
    __tracebackhide__ = True
    if json is not _NOTHING:
        if data is not None:
            raise TypeError("a request has `json` or `data`, not both")
        return dumps(json, ensure_ascii=False, allow_nan=False).encode(), "application/json"
    if isinstance(data, str):
        return data.encode(), "text/plain; charset=utf-8"
    if data is None:
        return None, ""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        kind = type(data).__name__
        raise TypeError(f"data takes a text or bytes, and this is of type {kind}; what goes as JSON is given as json=")
    return bytes(data), "application/octet-stream"


def _names(headers: Mapping[str, str] | None, name: str) -> bool:
    return any(one.lower() == name for one in headers or ())


def _target(path: str, params: Params | None) -> str:
    __tracebackhide__ = True
    if not path.startswith("/"):
        raise ValueError(f"a path begins with a slash, unlike {path!r}")
    target = urllib.parse.quote(path, safe=_PLAIN)
    if params:
        query = urllib.parse.urlencode(params, doseq=True)
        target += ("&" if "?" in target else "?") + query
    return target


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"the answer broke off after {len(error.partial)} bytes"
    return str(error) or type(error).__name__
