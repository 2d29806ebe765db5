"""A peer that plays the node for one worker, over a real socketpair at descriptor 3."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "src"
RUNTIME = SOURCES / "evener" / "_worker.py"

# The interpreter under test: the runtime is to work on every Python from 3.9 on.
PYTHON = os.environ.get("EVENER_TEST_PYTHON", sys.executable)

HEADER = struct.Struct("<IBBBBQIIIIQ")
READY, JOB, PART, CREDIT, OUTCOME, CANCEL, BYE, RECALL = 1, 2, 4, 6, 7, 8, 9, 10
NOTHING, JSON, TEXT, BYTES, TYPED = 0, 1, 2, 3, 4
NEXT, RESPOND, GOTO, FAIL, RETURNED = 1, 2, 3, 4, 5
ERROR, ABORT, DECODE, ENCODE, CANCELLED, MEMORY = 1, 2, 3, 4, 5, 6
LIMIT = 262_144
NO_DEADLINE = 2**64 - 1
PATIENCE = 15.0
# How many jobs the runtime takes beyond the one at hand.
AHEAD = 16


def frame(
    kind,
    payload=b"",
    extension=b"",
    flags=0,
    content=0,
    verb=0,
    job=7,
    attempt=1,
    number=0,
    nanoseconds=0,
    length=None,
    extension_length=None,
    reserved=0,
):
    if isinstance(extension, dict):
        extension = json.dumps(extension).encode()
    header = HEADER.pack(
        len(extension) + len(payload) if length is None else length,
        kind,
        flags,
        content,
        verb,
        job,
        attempt,
        len(extension) if extension_length is None else extension_length,
        number,
        reserved,
        nanoseconds,
    )
    return header + extension + payload


def job(payload=b"", content=JSON, extension=b"", verb=0, number=1, nanoseconds=NO_DEADLINE, job=7, attempt=1):
    """A JOB and the parts that it needs."""
    cut = [payload[start : start + LIMIT] for start in range(0, len(payload), LIMIT)] or [b""]
    flags = [1] * (len(cut) - 1) + [0]
    first = frame(JOB, cut[0], extension, flags[0], content, verb, job, attempt, number, nanoseconds)
    rest = [frame(PART, part, flags=more, job=job, attempt=attempt) for part, more in zip(cut[1:], flags[1:])]
    return b"".join([first, *rest])


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    flags: int
    content: int
    verb: int
    job: int
    attempt: int
    number: int
    nanoseconds: int
    extension: dict
    payload: bytes

    @property
    def value(self):
        """The payload decoded by its content code."""
        if self.content == NOTHING:
            assert self.payload == b""
            return None
        if self.content == JSON:
            return json.loads(self.payload)
        return self.payload.decode() if self.content == TEXT else self.payload


class Worker:
    """A worker process, and the node's end of its socket."""

    def __init__(self, folder: Path, target: str, *arguments: str, site: bool = False, env: dict | None = None):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        # Without -S the packages of this test's own environment would be there, evener among them.
        command = [PYTHON, *([] if site else ["-S"]), str(RUNTIME), target, "--path", str(folder), *arguments]
        number = theirs.fileno()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # One of the two sockets would have got descriptor 3 if it were not in use here, so it can be passed.
            pass_fds=(3,),
            preexec_fn=lambda: os.dup2(number, 3),
            env={**os.environ, "PYTHONPATH": "", "PYTHONUNBUFFERED": "", "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            cwd="/",
        )
        theirs.close()
        self.received = bytearray()
        self.largest_part = 0

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def _read(self, size: int) -> bytes:
        while len(self.received) < size:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError(self.leave()[2])
            self.received += data
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def frame(self) -> Frame:
        """The next single frame."""
        fields = HEADER.unpack(self._read(40))
        length, kind, flags, content, verb, number_of_job, attempt, extension_length, number, reserved, spent = fields
        assert reserved == 0
        assert length - extension_length <= LIMIT
        assert extension_length <= LIMIT
        extension = self._read(extension_length)
        payload = self._read(length - extension_length)
        self.largest_part = max(self.largest_part, len(payload))
        decoded = json.loads(extension) if extension else {}
        assert isinstance(decoded, dict)
        return Frame(kind, flags, content, verb, number_of_job, attempt, number, spent, decoded, payload)

    def ready(self) -> Frame:
        first = self.frame()
        assert first.kind == READY, first.extension
        return first

    def grant(self) -> None:
        """Ask for credit, and wait for it."""
        self.send(frame(CREDIT, job=0, attempt=0))
        answer = self.frame()
        assert answer == Frame(CREDIT, 0, NOTHING, 0, 0, 0, AHEAD, 0, {}, b"")

    def outcome(self) -> Frame:
        """The next outcome, whole."""
        first = self.frame()
        assert first.kind == OUTCOME, first
        parts, more = [first.payload], first.flags
        while more:
            part = self.frame()
            assert (part.kind, part.job, part.attempt, part.content) == (PART, first.job, first.attempt, 0)
            parts.append(part.payload)
            more = part.flags
        return first._replace(payload=b"".join(parts), flags=0)

    def do(self, payload=b"null", *arguments, **fields) -> Frame:
        """Send one job and wait for its outcome."""
        self.send(job(payload, *arguments, **fields))
        return self.outcome()

    def line(self) -> str:
        """Wait for a line of its standard output."""
        return self.process.stdout.readline().decode()

    def leave(self) -> tuple[int, str, str]:
        """Close the socket and wait for its end: exit code, standard output, standard error."""
        self.socket.close()
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output.decode(), errors.decode()

    def gone(self) -> tuple[int, str, str]:
        """Wait for it to end by itself, and see the stream's end."""
        while True:
            data = self.socket.recv(1 << 20)
            if not data:
                break
            self.received += data
        return self.leave()


@pytest.fixture
def start(tmp_path):
    """Start workers on a module `m` with the given source; all end with the test."""
    workers = []

    def start(source: str, target: str = "m:f", *arguments: str, ready: bool = True, **options) -> Worker:
        (tmp_path / "m.py").write_text(source)
        worker = Worker(tmp_path, target, *arguments, **options)
        workers.append(worker)
        if ready:
            worker.ready()
        return worker

    yield start
    for worker in workers:
        worker.socket.close()
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait(PATIENCE)
        worker.process.stdout.close()
        worker.process.stderr.close()
