"""The systems under measurement: started on a free loopback port, checked, and ended with all their processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import processes
from .load import BENCHES, BODY, PATH
from .processes import Process

START_PATIENCE = 60.0
STOP_PATIENCE = 30.0
PYTHON = BENCHES / ".venv" / "bin" / "python"


class ServerError(Exception):
    """A system did not start, answer or end as it must."""


class System:
    """One running system. At its end `notes` says what went wrong, and `logged` how many bytes of log it wrote."""

    changing = False
    """Whether processes may come and go under load; of those that went, the CPU is not known."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        scratch: Path,
        graceful: bool = True,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        """Start the command; `scratch` is a folder for its log and its temporary files."""
        self.name = name
        self.graceful = graceful
        self.address = ""
        self.notes: list[str] = []
        self.logged = 0
        self._mark = processes.new_mark()
        self._log = scratch / f"{self._mark}.log"
        self._lines: queue.Queue[str | None] = queue.Queue()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.plain_environment(scratch) | environment | {processes.MARK: self._mark},
                cwd=BENCHES,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @staticmethod
    def plain_environment(scratch: Path) -> dict[str, str]:
        """The same for all, so that no setting of the caller's reaches one system and not another."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return kept | {"TMPDIR": str(scratch), "XDG_RUNTIME_DIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}

    @property
    def pid(self) -> int:
        """The process that was started; the others descend from it."""
        return self._process.pid

    def tree(self) -> dict[int, Process]:
        """All processes of the system."""
        return processes.tree(self.pid, self._mark)

    def workers(self) -> list[Process]:
        """List those that run `echo`: all Python processes but the first one and Python's own resource tracker."""
        return [
            process
            for process in self.tree().values()
            if process.pid != self.pid
            and Path(process.executable).name.startswith("python")
            and not any("resource_tracker" in argument for argument in process.arguments)
        ]

    def wait_for_announcement(self) -> None:
        """Read the address from `listening http URL`, and wait for `ready`."""
        end = time.monotonic() + START_PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise self.failure(f"said no `ready` within {START_PATIENCE:.0f} s") from None
            if line is None:
                raise self.failure("ended before it was ready")
            if line.startswith("listening http "):
                self.address = line.split()[2].removeprefix("http://").rstrip("/")
            elif line == "ready":
                if not self.address:
                    raise self.failure("said `ready` before `listening http URL`")
                return

    def wait_for_answer(self) -> None:
        """Ask until the right answer comes; for a system that does not say when it is ready."""
        end = time.monotonic() + START_PATIENCE
        while True:
            try:
                return self.check()
            except (OSError, http.client.HTTPException, ServerError) as error:
                if self._process.poll() is not None:
                    raise self.failure("ended before it was ready") from error
                if time.monotonic() > end:
                    raise self.failure(f"gave no right answer within {START_PATIENCE:.0f} s: {error}") from error
                time.sleep(0.1)

    def check(self) -> None:
        """One request; the answer must be the value that was sent, as JSON."""
        self.ask("POST", PATH, json.loads(BODY))

    def ask(self, method: str, path: str, expected: Any) -> None:
        """One request, a POST with the usual body; the answer must be the expected value, as JSON."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            if method == "POST":
                connection.request(method, path, BODY, {"Content-Type": "application/json"})
            else:
                connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200 or answer.headers.get_content_type() != "application/json":
            raise self.failure(f"answered {answer.status} {answer.headers.get_content_type()}: {body[:300]!r}")
        try:
            same = json.loads(body) == expected
        except ValueError:
            same = False
        if not same:
            raise self.failure(f"gave a wrong answer to {method} {path}: {body[:300]!r}")

    def failure(self, what: str) -> ServerError:
        """Make an error that shows the end of the log."""
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return ServerError(f"{self.name} {what}" + (f"; the end of its log:\n{tail}" if tail else ""))

    def stop(self) -> None:
        """End it by SIGTERM and wait; then make sure that none of its processes is left, killing what is."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_PATIENCE)
            if self.graceful and code != 0:
                self.notes.append(f"{self.name} ended with code {code} after SIGTERM")
        except subprocess.TimeoutExpired:
            self.notes.append(f"{self.name} did not end within {STOP_PATIENCE:.0f} s of SIGTERM")
        if not processes.wait_until_gone(self._mark, 5.0):
            for process in processes.kill_marked(self._mark):
                self.notes.append(f"{self.name} left a process behind: {Path(process.executable).name}")
        self._process.wait()
        self._reader.join(1)
        self.logged = self._log.stat().st_size
        for note in self.notes:
            print(f"  ! {note}", file=sys.stderr)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@contextlib.contextmanager
def _running(start: Callable[[], System], wait: Callable[[System], None], check: bool = True) -> Iterator[System]:
    system = start()
    try:
        wait(system)
        if check:
            system.check()
        yield system
    finally:
        system.stop()


def evener(binary: Path, stages: int, scratch: Path) -> contextlib.AbstractContextManager[System]:
    """Start Evener as `evener up` does, with its workers in the peer's virtual environment."""

    def start() -> System:
        command = [str(binary), "up", str(BENCHES / f"echo{stages}.yaml")]
        return System("Evener", command, {"VIRTUAL_ENV": str(PYTHON.parent.parent)}, scratch)

    return _running(start, System.wait_for_announcement)


def mosec(stages: int, scratch: Path, compact: bool = False) -> contextlib.AbstractContextManager[System]:
    """Start Mosec with its own JSON encoder, or with a compact one."""

    def start() -> System:
        address, port = "127.0.0.1", _free_port()
        files = scratch / f"mosec-{port}"
        command = [str(PYTHON), str(BENCHES / "mosec_echo.py"), "--address", address, "--port", str(port)]
        command += ["--log-level", "error", "--path", str(files)]
        settings = {"STAGES": str(stages), "ENCODER": "compact" if compact else "default"}
        system = System("Mosec, compact" if compact else "Mosec", command, settings, scratch)
        system.address = f"{address}:{port}"
        return system

    return _running(start, System.wait_for_answer)


def bare(binary: Path, scratch: Path) -> contextlib.AbstractContextManager[System]:
    """Start the bare echo server of benches/floor."""
    return _running(
        lambda: System("bare hyper", [str(binary)], {}, scratch, graceful=False), System.wait_for_announcement
    )


def graph(binary: Path, scratch: Path) -> contextlib.AbstractContextManager[System]:
    """Start the service whose routes graph.py measures. Whether they answer rightly is asked by the ways to them."""

    def start() -> System:
        command = [str(binary), "up", str(BENCHES / "graph.yaml")]
        return System("Evener", command, {"VIRTUAL_ENV": str(PYTHON.parent.parent)}, scratch)

    return _running(start, System.wait_for_announcement, check=False)


def program(name: str, command: list[str], scratch: Path, graceful: bool) -> contextlib.AbstractContextManager[System]:
    """Start any program that announces itself as `evener up` does, whatever it serves."""
    return _running(
        lambda: System(name, command, {}, scratch, graceful=graceful), System.wait_for_announcement, check=False
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
