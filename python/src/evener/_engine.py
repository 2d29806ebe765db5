"""The private engine: a process of the `evener` binary that belongs to this one, and ends with it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from evener._errors import ConnectError

# How long the engine may take to listen, and to leave after SIGTERM, in seconds.
_START_TIMEOUT = 30.0
# How long its workers may take until they are waited for no longer, in seconds.
_READY_TIMEOUT = 20.0
_STOP_TIMEOUT = 5.0

# How many of the last lines of its log an error shows, and of how many bytes.
_LINES = 15
_TAIL = 8192


def binary() -> str:
    """Return the path of the `evener` binary.

    It is `EVENER_BIN`, or the one that was installed with this package, or the one beside the interpreter, or the one
    on `PATH`. Raises `ConnectError` if there is none.
    """
    named = os.environ.get("EVENER_BIN")
    if named:
        if not os.access(named, os.X_OK):
            raise ConnectError(f"EVENER_BIN names {named!r}, which is not a program that can be run")
        return named
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent) if sys.executable else None]
    for folder in folders:
        found = folder and shutil.which("evener", path=folder)
        if found:
            return found
    found = shutil.which("evener")
    if found:
        return found
    raise ConnectError(
        "a private engine needs the `evener` binary, which was found neither beside this package nor on PATH. Install "
        "the wheel of evener for this platform, name the binary in EVENER_BIN, or name a running engine in EVENER_URL"
    )


def _told(path: str) -> str | dict[str, list[int]]:
    """Put a path into JSON: as text, or as its bytes if these are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"bytes": list(os.fsencode(path))}
    return path


class Engine:
    """A private engine that is up; `url` is where it listens.

    It runs functions with this process's interpreter, `sys.path`, working directory and environment, on as many workers
    as `workers` says, or one for each core. It ends when this process ends, however that happens.

    Raises `ConnectError` if it does not start.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._log: IO[bytes] | None = None if os.environ.get("EVENER_LOG") else tempfile.TemporaryFile()  # noqa: SIM115
        # An object that is collected while it is held may stop its engine, perhaps this one.
        self._lock = threading.RLock()
        self._reading = threading.Lock()
        self._ending = ""
        self._said = b""
        try:
            self._process = self._spawn(workers)
        except BaseException:
            if self._log is not None:
                self._log.close()
            raise
        self.pid = self._process.pid
        try:
            self.url = self._address()
        except BaseException:
            self.stop()
            raise

    def _spawn(self, workers: int | None) -> subprocess.Popen[bytes]:
        program = binary()
        if not sys.executable:
            raise ConnectError("a private engine needs to know this interpreter, and sys.executable is empty")
        try:
            process = subprocess.Popen(
                [program, "up", "--private"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                # Ctrl-C in a terminal is for this process, which may go on after it.
                start_new_session=True,
            )
        except OSError as error:
            raise ConnectError(f"the private engine {program!r} cannot be started: {error}") from error
        orders = {
            "executable": sys.executable,
            "path": [_told(str(Path(entry).absolute())) for entry in sys.path if isinstance(entry, str)],
            "workers": workers,
            "parent": os.getpid(),
        }
        assert process.stdin is not None
        # An engine that is gone already is noticed below.
        with contextlib.suppress(OSError), process.stdin as line:
            line.write(json.dumps(orders).encode() + b"\n")
        return process

    def _address(self) -> str:
        """Wait until it says where it listens."""
        words = self._line(b"listening", time.monotonic() + _START_TIMEOUT)
        if words is None:
            raise ConnectError(f"the private engine did not listen within {_START_TIMEOUT:g} s{self._tail()}")
        if not words:
            raise ConnectError(f"the private engine did not start: {self._how()}{self._tail()}")
        return words[-1].decode()

    def wait_ready(self) -> None:
        """Wait until all workers are up; not for longer than that should take, and not if it has ended."""
        # Not under the other lock: an engine may have to be stopped meanwhile.
        with self._reading, contextlib.suppress(OSError, ValueError):
            if self._process.stdout is not None and not self._process.stdout.closed:
                self._line(b"ready", time.monotonic() + _READY_TIMEOUT)

    def _line(self, first: bytes, until: float) -> list[bytes] | None:
        """Return the words of the line that begins with a word: empty if none will come, None if it takes too long."""
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while True:
                for line in self._said.splitlines(keepends=True):
                    words = line.split()
                    if line.endswith(b"\n") and words[:1] == [first]:
                        return words
                left = until - time.monotonic()
                if left <= 0:
                    return None
                if not selector.select(left):
                    continue
                data = os.read(stdout.fileno(), 4096)
                if not data:
                    return []
                self._said += data

    def ending(self) -> str:
        """Say how it ended, with the last lines of its log; empty if it runs."""
        with self._lock:
            if not self._ending:
                # Its socket closes a moment before it can be reaped.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
                    self._ending = f"the private engine {self._how()}{self._tail()}"
            return self._ending

    def _how(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1)
            if code >= 0:
                return f"exited with code {code}"
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
            return f"was killed by signal {-code}"
        return "closed its output"

    def _tail(self) -> str:
        if self._log is None:
            return ""
        with contextlib.suppress(OSError, ValueError):
            # The engine shares the file's position, so it must not be moved.
            size = os.fstat(self._log.fileno()).st_size
            text = os.pread(self._log.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace")
            lines = text.splitlines()[-_LINES:]
            if lines:
                return "; its last words were:\n" + "\n".join(f"    {line}" for line in lines)
        return ""

    def stop(self) -> None:
        """End it and its workers, and wait until it is gone. May be called more than once."""
        process = self._process
        with self._lock:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._ending = self._ending or "the private engine was stopped"
        for stream in (process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
