"""The way to an engine: one that runs somewhere, or a private one that is started when it is first needed."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import platform
import threading
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from evener import _errors
from evener._sender import Options, Senders
from evener._session import Pool, Session
from evener._worker import __version__

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self

    from evener._function import Decorator, Function
    from evener._future import Future
    from evener._map import Results
    from evener._pickling import ModuleLike, Modules

    P = ParamSpec("P")

R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker that is up.

    `pid` is its process number, `node` the name of the engine it belongs to (host and process number), `pool` its pool
    and `index` its number there, `jobs_done` how many calls it has done, `busy` whether it is at one now.
    """

    pid: int
    node: str
    pool: str
    index: int
    jobs_done: int
    busy: bool

    __module__ = "evener"


class Client:
    """A connection to an engine.

    `url` says where the engine listens: ``http://host:port``, ``https://host:port`` or ``unix:/path``. Without it, the
    client takes `EVENER_URL` from the environment, and without that it starts a private engine: one of its own on this
    machine, which runs functions with this process's interpreter, `sys.path`, working directory and environment, and
    which ends with this process. `workers` is the number of its workers (one for each core); where it is given, the
    engine is private whatever the environment says.

    `token_file` and `ca_file` name the files with the engine's token and with the certificate authority of its TLS
    certificate. They default to `EVENER_TOKEN_FILE` and `EVENER_CA_FILE`; an engine of the same user on this machine
    needs neither. `timeout` is how long connecting may take, in seconds.

    The connection is made at the first use; that raises `ConnectError` or `AuthenticationError`. A client may be used
    by any number of threads and event loops at once, but not in a process that was forked off after its first use
    (`ForkError`). It is closed by `close`, at the end of a ``with`` block, and at the end of the program::

        with evener.Client("http://10.0.0.7:7070") as client:
            print(client.submit(pow, 2, 10).result())
            print(sum(client.map(abs, range(-1000, 1000))))
    """

    __module__ = "evener"

    def __init__(
        self,
        url: str | None = None,
        *,
        workers: int | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        if workers is not None:
            if isinstance(workers, bool) or not isinstance(workers, int):
                raise TypeError(f"workers is a whole number, not {workers!r}")
            if workers < 1:
                raise ValueError(f"a private engine needs at least 1 worker, not {workers}")
            if url is not None:
                raise ValueError(
                    f"workers= is for a private engine; how many the engine at {url} has is its own matter"
                )
        self._url = url or (None if workers is not None else os.environ.get("EVENER_URL") or None)
        self._workers = workers
        self._token_file = None if token_file is None else os.fspath(token_file)
        self._ca_file = os.fspath(ca_file) if ca_file is not None else os.environ.get("EVENER_CA_FILE") or None
        self._timeout = timeout
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._closed = False
        self._senders = Senders(Options(), self._live)
        _clients.add(self)

    # ----------------------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------------------

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Send a call of any callable, and return its future at once.

        For options (`timeout`, `retries` and so on) decorate it: ``client.function(work, retries=2).submit(1)``.
        """
        sender, arguments = self._senders.pick(function, args)
        return sender.submit(arguments, kwargs)

    def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call any callable in a worker, wait, and return what it returned or raise what it raised."""
        sender, arguments = self._senders.pick(function, args)
        return cast("R", sender.run(arguments, kwargs))

    def map(
        self,
        function: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool | str = False,
        chunksize: int | None = None,
    ) -> Results[R]:
        """Call any callable for each item, and return an iterator over the results; see `evener.Function.map`."""
        from evener._function import results  # noqa: PLC0415

        return results(
            self._senders.lasting(function),
            iterables,
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
            chunksize=chunksize,
        )

    def starmap(
        self,
        function: Callable[..., R],
        arguments: Iterable[Iterable[Any]],
        /,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool | str = False,
        chunksize: int | None = None,
    ) -> Results[R]:
        """Do what `map` does, for items that are already tuples of arguments; see `evener.Function.starmap`."""
        from evener._function import results  # noqa: PLC0415

        return results(
            self._senders.lasting(function),
            (arguments,),
            spread=True,
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
            chunksize=chunksize,
        )

    @overload
    def function(self, function: Callable[P, R], /) -> Function[P, R]: ...

    @overload
    def function(
        self,
        *,
        timeout: float | None = ...,
        retries: int = ...,
        pool: str = ...,
        modules: Modules = ...,
        by_value: Iterable[ModuleLike] = ...,
        output: str = ...,
        priority: int = ...,
    ) -> Decorator: ...

    def function(self, function: Any = None, **options: Any) -> Any:
        """Decorate a function whose calls go to this client's engine; see `evener.function`."""
        from evener._function import function as decorate  # noqa: PLC0415

        made = decorate(client=self, **options)
        return made if function is None else made(function)

    # ----------------------------------------------------------------------------------------------------------------
    # The engine
    # ----------------------------------------------------------------------------------------------------------------

    def workers(self, pool: str = "") -> list[Worker]:
        """Return the workers that are up: of one pool, or of all.

        Those of a private engine are waited for, if it has just been started.
        """
        session = self._live()
        session.wait_ready()
        return [Worker(*fields) for fields in session.workers(pool)]

    @property
    def pools(self) -> list[Pool]:
        """The function pools of the engine."""
        return list(self._live().pools.values())

    @property
    def url(self) -> str:
        """Where the engine listens."""
        return self._live().where

    def _live(self) -> Session:
        """Return the connection, made if there is none yet."""
        session = self._session
        if session is None:
            with self._lock:
                session = self._session
                if self._closed:
                    raise _errors.EngineLost("this client was closed; make a new evener.Client")
                if session is None:
                    session = self._session = self._connect()
        session.check()
        return session

    def _is_lost(self) -> bool:
        """Whether it will never work again, and a new one would."""
        session = self._session
        over = None if session is None else session.over
        return self._closed or (over is not None and over[0] is not _errors.ForkError)

    def _connect(self) -> Session:
        try:
            from evener import _bridge  # noqa: PLC0415 (tests put another in its place; workers never need it)
        except ImportError as error:
            raise ImportError(
                "this installation of evener has no compiled part, evener._bridge, so it can serve stages but not call "
                f"remote functions; install the wheel for this platform ({error})"
            ) from error
        engine = None
        url, token_file = self._url, self._token_file
        if url is None:
            from evener._engine import Engine  # noqa: PLC0415

            engine = Engine(self._workers)
            url = engine.url
        name = f"python {platform.python_version()}, evener {__version__}"
        try:
            return Session(_bridge.Session(url, token_file, self._ca_file, name, self._timeout), url, engine)
        except BaseException as error:
            if engine is not None:
                engine.stop()
            if isinstance(error, _bridge.BridgeError):
                raise _connect_error(url, *error.args) from None
            raise

    def close(self) -> None:
        """Close the connection, and end the engine if it is a private one.

        Calls without an outcome fail with `EngineLost`; what they do in a shared engine is cancelled. May be called
        more than once.
        """
        with self._lock:
            self._closed = True
            session = self._session
        if session is not None:
            session.close()

    def __enter__(self) -> Self:
        self._live()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if self._session is not None and not self._closed:
                self._session.abandon()

    def __reduce__(self) -> Any:
        raise TypeError("a Client belongs to this process and cannot be sent; make one where it is needed")

    def __repr__(self) -> str:
        session = self._session
        if session is None:
            return f"<evener.Client {self._url or 'of a private engine'}, not connected>"
        return f"<evener.Client {session.where}{'' if session.over is None else ', ' + session.over[1]}>"


def _connect_error(url: str, kind: str, message: str) -> _errors.EvenerError:
    end = "" if message.endswith(("?", ".", "!")) else "."
    if kind == "unauthorized":
        return _errors.AuthenticationError(
            f"the engine at {url} refused the token: {message}{end} The file with its token can be named in "
            "EVENER_TOKEN_FILE, or as evener.Client(token_file=…)"
        )
    if kind == "connect":
        return _errors.ConnectError(
            f"no engine answers at {url}: {message}{end} Without an address (and without EVENER_URL) a private engine "
            "starts by itself"
        )
    return _errors.EvenerError(f"the engine at {url}: {message}")


# --------------------------------------------------------------------------------------------------------------------
# The default client, and the clients of addresses
# --------------------------------------------------------------------------------------------------------------------

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_shared: dict[str | None, Client] = {}
_lock = threading.RLock()


def shared(url: str | None = None) -> Client:
    """Return the client that all functions of this process share; without an address, the default one.

    If its engine is lost, this is a new client.
    """
    client = _shared.get(url)
    if client is None or client._is_lost():
        with _lock:
            client = _shared.get(url)
            if client is None or client._is_lost():
                client = _shared[url] = Client(url)
    return client


def shared_session() -> Session:
    """Return the connection of the default client."""
    return shared()._live()


def _at_exit() -> None:
    for client in list(_clients):
        with contextlib.suppress(Exception):
            client.close()


def _in_child() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    for client in list(_clients):
        client._lock = threading.RLock()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
