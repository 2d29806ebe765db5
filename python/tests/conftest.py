"""A peer that plays the node for one worker, over a real socketpair at descriptor 3."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import cloudpickle
import pytest

SOURCES = Path(__file__).resolve().parent.parent / "src"
RUNTIME = SOURCES / "evener" / "_worker.py"

# The interpreter under test: the runtime is to work on every Python from 3.9 on.
PYTHON = os.environ.get("EVENER_TEST_PYTHON", sys.executable)

HEADER = struct.Struct("<IBBBBQIIIIQ")
READY, JOB, PART, CHUNK, CREDIT, OUTCOME, CANCEL, BYE, RECALL, FUNCTION, STATE = 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12
NOTHING, JSON, TEXT, BYTES, TYPED = 0, 1, 2, 3, 4
CALL, CALLS = 2, 3
DEFINE, FORGET = 0, 1
NEXT, RESPOND, GOTO, FAIL, RETURNED, RAISED, END = 1, 2, 3, 4, 5, 6, 7
# Flags of a JOB.
STREAM, BATCH = 2, 4
ERROR, ABORT, DECODE, ENCODE, CANCELLED, MEMORY = 1, 2, 3, 4, 5, 6
# What a STATE asks, and what it answers.
GET, SET, ADD, COMPARE, DELETE = 1, 2, 3, 4, 5
NO, VALUE, DONE, REFUSED = 0, 1, 2, 3
LIMIT = 262_144
NO_DEADLINE = 2**64 - 1
# What stands for the job in a FUNCTION.
NO_JOB = 2**64 - 1
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
    function=0,
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
        function,
        nanoseconds,
    )
    return header + extension + payload


def in_parts(kind, payload, extension=b"", job=7, attempt=1, function=0, also=0, **fields):
    """A frame and the parts that its payload needs; `also` are flags of the first."""
    cut = [payload[start : start + LIMIT] for start in range(0, len(payload), LIMIT)] or [b""]
    flags = [1] * (len(cut) - 1) + [0]
    first = frame(kind, cut[0], extension, flags[0] | also, job=job, attempt=attempt, function=function, **fields)
    of = function if kind == FUNCTION else 0
    rest = [
        frame(PART, part, flags=more, job=job, attempt=attempt, function=of) for part, more in zip(cut[1:], flags[1:])
    ]
    return b"".join([first, *rest])


def job(payload=b"", content=JSON, extension=b"", number=1, nanoseconds=NO_DEADLINE, **fields):
    """A JOB and the parts that it needs."""
    return in_parts(JOB, payload, extension, content=content, number=number, nanoseconds=nanoseconds, **fields)


def blob(function, name="f", modules=(), initializer=None, key=None, **fields):
    """What a function travels as; `initializer` is a callable and its arguments."""
    return pickle.dumps(
        {
            "format": 1,
            "name": name,
            "modules": [list(pair) for pair in modules],
            "initializer": None if initializer is None else cloudpickle.dumps(initializer),
            "key": key,
            "function": function if isinstance(function, bytes) else cloudpickle.dumps(function),
            **fields,
        },
        5,
    )


def define(function, body):
    """A FUNCTION that gives a body this number."""
    return in_parts(FUNCTION, body, job=NO_JOB, attempt=0, function=function, content=BYTES)


def forget(function):
    """A FUNCTION that says that this number is not called any more."""
    return frame(FUNCTION, verb=FORGET, job=NO_JOB, attempt=0, function=function)


def call(function, *arguments, keywords=None, **fields):
    """A JOB that calls a function."""
    return job(pickle.dumps((arguments, keywords), 5), BYTES, verb=CALL, function=function, **fields)


def calls(function, items, spread=False, **fields):
    """A JOB that calls a function for each item."""
    return job(pickle.dumps((spread, items), 5), BYTES, verb=CALLS, function=function, **fields)


def script(text):
    """Run the text as a caller's script, and return its global variables."""
    space = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(text), "/home/caller/script.py", "exec"), space)
    return space


class Plain(pickle.Unpickler):
    """Takes builtin types only, so that what it takes unpickles anywhere."""

    def find_class(self, module, name):
        raise AssertionError(f"{module}.{name}")


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

    @property
    def result(self):
        """What a function returned."""
        assert (self.kind, self.verb, self.content, self.number) == (OUTCOME, NEXT, BYTES, 0), self
        return pickle.loads(self.payload)

    @property
    def raised(self):
        """The blob of what a function raised."""
        assert (self.kind, self.verb, self.content, self.number) == (OUTCOME, RAISED, BYTES, 0), self
        found = Plain(io.BytesIO(self.payload)).load()
        assert set(found) == {"format", "type", "message", "traceback", "chain"}
        assert found["format"] == 1
        return found


class Worker:
    """A worker process, and the node's end of its socket."""

    def __init__(
        self,
        folder: Path,
        target: str,
        *arguments: str,
        site: bool = False,
        env: dict | None = None,
        stdout=subprocess.PIPE,
    ):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        # Without -S the packages of this test's own environment would be there, evener among them.
        command = [PYTHON, *([] if site else ["-S"]), str(RUNTIME), target, "--path", str(folder), *arguments]
        number = theirs.fileno()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
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
        # Numbers that a test chooses are lower.
        self.functions = 100

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
        return self.whole(OUTCOME)

    def whole(self, kind: int) -> Frame:
        """The next frame of this kind, with its parts; no other comes before it."""
        first = self.frame()
        assert first.kind == kind, first
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

    def asked(self, verb: int, key: str = "k", payload: bytes = b"", **fields) -> Frame:
        """The next frame, which is this question about the state."""
        found = self.frame()
        content = JSON if payload else NOTHING
        assert (found.kind, found.flags, found.verb, found.content) == (STATE, 0, verb, content), found
        assert (found.extension, found.payload, found.nanoseconds) == ({"key": key, **fields}, payload, 0)
        return found

    def answer(self, question: Frame, verb: int, payload: bytes = b"", **extension) -> None:
        """Answer a question about the state."""
        content = JSON if payload else NOTHING
        number = question.number
        self.send(frame(STATE, payload, extension or b"", 0, content, verb, NO_JOB, 0, number))

    def line(self) -> str:
        """Wait for a line of its standard output."""
        return self.process.stdout.readline().decode()

    def learn(self, text: str, name: str = "f", **fields) -> int:
        """Send it a function of a script, and return the number that stands for it."""
        self.functions += 1
        self.send(define(self.functions, blob(script(text)[name], name, **fields)))
        return self.functions

    def ask(self, function: int, *arguments, **fields) -> Frame:
        """Send one call and wait for its outcome."""
        self.send(call(function, *arguments, **fields))
        return self.outcome()

    def leave(self) -> tuple[int, str, str]:
        """Close the socket and wait for its end: exit code, standard output, standard error."""
        self.socket.close()
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, (output or b"").decode(), errors.decode()

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
        for pipe in (worker.process.stdout, worker.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def caller(start):
    """Start workers that do calls; `source` is a module `m` that they can import."""

    def caller(*arguments: str, source: str = "", granted: bool = False, site: bool = True, **options) -> Worker:
        worker = start(source, "--functions", *arguments, site=site, **options)
        if granted:
            worker.grant()
        return worker

    return caller
