"""The worker runtime: does the jobs of one stage, or of one pool of functions, for an Evener node.

Run it as ``python _worker.py MODULE:ATTRIBUTE [--path DIR]`` with a Unix stream socket open as file descriptor 3. It
speaks version 1 of the worker protocol (``docs/protocol.md``) on that socket: it loads the target, says READY, and then
turns every JOB into one OUTCOME, in the order in which they come, until the node says BYE or goes away. A node that
asks may send jobs ahead; from then on a thread watches the socket while a function runs.

With ``--batch`` the function gets a list of values, and returns a list of as many results. With ``--threads N`` up to
N jobs are done at the same time, each by a thread, and the main thread reads for all of them. With ``--concurrency N``
they are tasks of one asyncio loop, in the main thread, which reads as well; that is also where an ``async def`` runs
that came without the option.

Run it as ``python _worker.py --functions [--path DIR]... [--sys-path DIR]...`` and it is a function worker: its jobs
are calls of Python functions that the node sends by value. ``--path`` folders come first in `sys.path`, in order; if
there are ``--sys-path`` folders, they are the rest of it.

The file stands alone: it imports the standard library only, runs on Python 3.9 and later, and works under any
file name. Only functions by value, and results that pickle does not know, need cloudpickle in the worker's Python. It
never opens a connection, never starts a process, and never reads on after a message that it does not understand: a
malformed frame ends the worker with exit code 2.

It also defines the names that stage code sees (`Request`, `Response`, `Goto`, `Abort`, `Context` and others). The
package ``evener`` re-exports them. In a worker whose Python has no such package, the runtime puts a module of that name
in its place, so ``import evener`` works everywhere. There may thus be two copies of every class, which is why outcomes
are recognised by the class attribute ``__evener__`` and never by ``isinstance``.

Exit codes: 0 the node said BYE or went away; 1 the target cannot start, or memory ran out; 2 a broken message or a
broken command line.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import inspect
import io
import json
import json.encoder
import math
import os
import re
import select
import signal
import socket
import struct
import sys
import threading
import time
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from itertools import islice
from types import FunctionType, GeneratorType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn, Optional, Union

if TYPE_CHECKING:
    import asyncio
    import logging
    from concurrent.futures import Future
    from queue import SimpleQueue

__version__ = "0.1.0"

# The names that `import evener` gives to stage code and to functions.
_PUBLIC = (
    "Abort",
    "Cancelled",
    "Context",
    "Goto",
    "Headers",
    "MultiDict",
    "Request",
    "Response",
    "State",
    "StateRefused",
    "context",
)

# The numbers of docs/protocol.md.
_PROTOCOL = 1
_PART_LIMIT = 262_144
_EXTENSION_LIMIT = 262_144
_NO_DEADLINE = 2**64 - 1
_READY, _JOB, _PART, _CHUNK, _CREDIT, _OUTCOME, _CANCEL, _BYE, _RECALL, _FUNCTION = 1, 2, 4, 5, 6, 7, 8, 9, 10, 11
_STATE = 12
_DEFINE, _FORGET = 0, 1
_CALL, _CALLS = 2, 3
_NOTHING, _JSON, _TEXT, _BYTES, _TYPED = 0, 1, 2, 3, 4
_MORE, _STREAM, _BATCH = 1, 2, 4
_NEXT, _RESPOND, _GOTO, _FAIL, _RETURNED, _RAISED, _END = 1, 2, 3, 4, 5, 6, 7
_ERROR, _ABORT, _DECODE, _ENCODE, _CANCELLED, _MEMORY = 1, 2, 3, 4, 5, 6
# What a STATE asks, and what it answers.
_GET, _SET, _ADD, _COMPARE, _DELETE = 1, 2, 3, 4, 5
_NO, _VALUE, _DONE, _REFUSED = 0, 1, 2, 3

# A header is read as few objects as will do: kind, flags, content and verb as one number (the "word"), and job and
# attempt as twelve opaque bytes (the "key"), which the outcome repeats.
_HEADER = struct.Struct("<II12sIIIQ")
_HEADER_SIZE = _HEADER.size
_NO_KEY = bytes(12)


def _word(kind: int, content: int = 0, verb: int = 0, flags: int = 0) -> int:
    return kind | flags << 8 | content << 16 | verb << 24


# The longest message, traceback or detail that travels, in bytes of UTF-8, and what is left of an extension for the
# counts of a function worker.
_DETAIL_LIMIT = 32_768
_PRINTED_LIMIT = 64

# How many jobs a node may send beyond the one at hand, once it has asked.
_AHEAD = 16

# How many bytes of chunks may be on their way to the client before the worker waits.
_WINDOW = 262_144

# How many files a worker names, and how many bytes of them, so that they fit into an extension.
_FILES = 1000
_FILES_LIMIT = 131_072

# The longest key of the state, in bytes of UTF-8.
_KEY_LIMIT = 1024

# How much is read from the socket at once, and how many times in a row before something else gets its turn.
_READ_SIZE = 65_536
_READS = 16

# Up to which size the memory of large payloads is kept for the next ones, and of how many pieces one may be made.
_LARGE_BLOCK = 8_388_608
_MANY_PIECES = 64

# A job that waited is not begun before the socket was looked at, unless that was this many nanoseconds ago at most.
_LOOK_AFTER = 1_000_000

# How often the watch looks whether a job has been running for a while, in seconds, and how many times in a row it finds
# no job at hand before it rests.
_TICK = 0.02
_TICKS = 50

# The key of what stands for the end of a batch among the jobs that wait. No job has such a short one.
_BATCH_END = b""

# The key of a FUNCTION and its parts, which belong to no job.
_FUNCTION_KEY = b"\xff" * 8 + bytes(4)

# What a chain of exceptions is cut to, how many frames of a traceback travel from either end, and how many bytes of a
# text in an exception blob.
_CHAIN_LIMIT = 100
_FRAMES_LIMIT = 50
_TEXT_LIMIT = 262_144

# How many items of a group are done at most before the clock is looked at, and after how many nanoseconds the group
# looks whether it was cancelled.
_RUN = 64
_LOOK_IN_GROUP = 10_000_000

# After a call that took longer, in nanoseconds, the worker looks whether standard output is still what it was.
_MEND_AFTER = 50_000

# The name in `sys.modules` under which a function worker's runtime is found by other copies of this file.
_RUNTIME = "_evener_runtime"

# How long a call waits at first for the reader of what the one before it wrote, and how often it looks, in seconds.
_READER_PATIENCE = 0.5
_READER_PAUSE = 0.00005

# How long handlers registered with atexit may take when the worker leaves, in seconds.
_LEAVE_TIMEOUT = 2.0

Pairs = Iterable[Iterable[str]]


# --------------------------------------------------------------------------------------------------------------------
# What stage code sees
# --------------------------------------------------------------------------------------------------------------------


class MultiDict(Mapping[str, str]):
    """Names with one or more values each, in the order in which they came; it cannot be changed.

    As a mapping it gives the first value of each name. Made from pairs, or from a mapping whose values are strings or
    lists of strings.
    """

    __slots__ = ("_index", "_pairs")
    __module__ = "evener"

    _pairs: list[tuple[str, str]]
    _index: Optional[dict[str, list[str]]]

    def __init__(self, items: Union[Pairs, Mapping[str, Union[str, Iterable[str]]], None] = None) -> None:
        pairs: list[tuple[str, str]] = []
        if isinstance(items, MultiDict):
            pairs.extend(items._pairs)
        elif isinstance(items, Mapping):
            for name, values in items.items():
                pairs.extend((name, value) for value in ([values] if isinstance(values, str) else values))
        elif items is not None:
            pairs = [(name, value) for name, value in items]
        self._pairs = pairs
        self._index = None

    @staticmethod
    def _fold(name: str) -> str:
        return name

    def _lists(self) -> dict[str, list[str]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self._pairs:
                index.setdefault(self._fold(name), []).append(value)
            self._index = index
        return index

    def __getitem__(self, name: str) -> str:
        try:
            return self._lists()[self._fold(name)][0]
        except KeyError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists())

    def __len__(self) -> int:
        return len(self._lists())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._fold(name) in self._lists()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the first value of `name`, or `default` if there is none."""
        values = self._lists().get(self._fold(name))
        return values[0] if values else default

    def getlist(self, name: str) -> list[str]:
        """Return all values of `name` in order; an empty list if there is none."""
        return list(self._lists().get(self._fold(name), ()))

    def pairs(self) -> list[tuple[str, str]]:
        """Return every (name, value) in the order in which they came, repeated names included."""
        return list(self._pairs)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MultiDict):
            return type(self) is type(other) and self._lists() == other._lists()
        return Mapping.__eq__(self, other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pairs!r})"


class Headers(MultiDict):
    """The headers of a request: a `MultiDict` whose names are the same in upper and lower case.

    Iteration gives the names in lower case.
    """

    __slots__ = ()
    __module__ = "evener"

    @staticmethod
    def _fold(name: str) -> str:
        return name.lower()


class Abort(Exception):
    """Raise it to refuse the request: the client is answered with `status` and told `detail`.

    `status` is an HTTP status from 400 to 599, anything else is a ValueError. Abort is never retried.
    """

    __evener__ = "abort"
    __module__ = "evener"

    def __init__(self, status: int, detail: str = "") -> None:
        if not _is_status(status, 400):
            raise ValueError(f"Abort takes an HTTP status from 400 to 599, not {status!r}")
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return f"{int(self.status)} {self.detail}".rstrip()


class _BadBody(Abort, ValueError):
    """The body of a request does not decode: a ValueError for code that expects one, else a 400 for the client."""

    __module__ = "evener"
    __qualname__ = "BadBody"


class Cancelled(BaseException):
    """Raised by `Context.check` when nobody waits for the job any more.

    Like `asyncio.CancelledError` it is no `Exception`, so an ``except Exception`` in stage code lets it through.
    """

    __evener__ = "cancelled"
    __module__ = "evener"


class Request:
    """An HTTP request, as the first stage behind a route sees it.

    Attributes: `method`, `path`, `params` (the parameters in the route's path), `query` (a `MultiDict`), `headers`
    (`Headers`), `client` (``address:port``), `body` (bytes).
    """

    __slots__ = ("_headers", "_query", "body", "client", "method", "params", "path")
    __evener__ = "request"
    __module__ = "evener"

    method: str
    path: str
    params: dict[str, str]
    client: str
    body: bytes

    def __init__(
        self,
        method: str = "GET",
        path: str = "/",
        params: Optional[dict[str, str]] = None,
        query: Union[Pairs, Mapping[str, Union[str, Iterable[str]]]] = (),
        headers: Union[Pairs, Mapping[str, Union[str, Iterable[str]]]] = (),
        client: str = "",
        body: bytes = b"",
    ) -> None:
        self.method = method
        self.path = path
        self.params = {} if params is None else params
        self.client = client
        self.body = body
        # Most functions look at one of the two at most, so the pairs stay as they are until somebody asks.
        self._query = query
        self._headers = headers

    @property
    def query(self) -> MultiDict:
        """The query parameters, percent-decoded, in order."""
        query = self._query
        if type(query) is not MultiDict:
            query = self._query = MultiDict(query)
        return query

    @property
    def headers(self) -> Headers:
        """The headers; names are the same in upper and lower case."""
        headers = self._headers
        if type(headers) is not Headers:
            headers = self._headers = Headers(headers)
        return headers

    def text(self) -> str:
        """Return the body as text.

        Raises a ValueError that answers the client with 400 if nobody catches it: the body is not UTF-8.
        """
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise _BadBody(400, _not_utf8(error)) from None

    def json(self) -> Any:
        """Return the body decoded from JSON.

        Raises a ValueError that answers the client with 400 if nobody catches it: the body is not JSON.
        """
        try:
            return _decode_json(self.body)
        except _Undecodable as error:
            raise _BadBody(400, str(error)) from None

    def __repr__(self) -> str:
        return f"<evener.Request {self.method} {self.path}>"


class Response:
    """Return it from any stage to answer the request now.

    `body`: a str travels as ``text/plain; charset=utf-8``, bytes as ``application/octet-stream``, None as an empty
    body, anything else as JSON; a content-type in `headers` overrides. `status`: 200 to 599. `headers`: a dict or a
    list of pairs. They are checked when the response is returned. Two responses are equal if all three are, each as it
    was given.
    """

    __slots__ = ("body", "headers", "status")
    __evener__ = "response"
    __module__ = "evener"

    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        headers: Union[Mapping[str, str], Iterable[tuple[str, str]], None] = None,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = headers

    def __eq__(self, other: object) -> bool:
        same: bool = _same_fields(self, other, Response.__slots__)
        return same

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<evener.Response {self.status}>"


class Goto:
    """Return it to go on at another place: `target` names a stage or a pipeline, which gets `value`.

    Two of them are equal if both are.
    """

    __slots__ = ("target", "value")
    __evener__ = "goto"
    __module__ = "evener"

    def __init__(self, target: str, value: Any = None) -> None:
        self.target = target
        self.value = value

    def __eq__(self, other: object) -> bool:
        same: bool = _same_fields(self, other, Goto.__slots__)
        return same

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<evener.Goto {self.target!r}>"


def _same_fields(one: Any, other: object, names: Iterable[str]) -> Any:
    """Compare two of a kind, of whichever copy of this file each of them is; NotImplemented of anything else."""
    if getattr(type(other), "__evener__", None) != one.__evener__:
        return NotImplemented
    return all(getattr(one, name) == getattr(other, name) for name in names)


class StateRefused(Exception):
    """The node refuses what `Context.state` was asked for: there is no room left, or no number to add to."""

    __evener__ = "state-refused"
    __module__ = "evener"


class State:
    """Small JSON values that jobs keep for each other, under keys, at the node: `Context.state`.

    Each method is one question to the node, which does them one at a time, whichever worker asks. What is kept is gone
    when the node ends. `ttl` is after how many seconds an entry ends; without it, it stays. What the node has no room
    for raises `StateRefused`.

    Tests of stage code may make their own, which keeps its values to itself: ``Context(state=State())``.
    """

    __slots__ = ("_desk", "_gave", "_job")
    __module__ = "evener"

    def __init__(self) -> None:
        self._desk: Any = _Kept()
        self._job = b""
        # What the node gave last, by key: its very bytes, or None and what stood in for an entry that was not there.
        self._gave: dict[str, tuple[Optional[bytes], Any]] = {}

    @classmethod
    def _of_job(cls, desk: Any, job: bytes) -> State:
        state = cls()
        state._desk, state._job = desk, job
        return state

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under `key`, or `default` if there is none."""
        verb, payload = self._ask(_GET, key)
        if verb == _NO:
            self._gave[key] = (None, default)
            return default
        self._gave[key] = (payload, None)
        return json.loads(payload)

    def set(self, key: str, value: Any, ttl: Optional[float] = None) -> None:
        """Put a value, which JSON can hold, under `key`."""
        payload = self._encoded(value, "value")
        self._ask(_SET, key, payload, ttl=ttl)
        self._gave[key] = (payload, None)

    def add(self, key: str, amount: float = 1, ttl: Optional[float] = None) -> Union[int, float]:
        """Add `amount` to the number under `key`, and return the sum. Where there is none, it is 0 and gets the `ttl`.

        Whole numbers are of 64 bits. Raises StateRefused if what is there is no number, or the sum does not fit.
        """
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"amount is a number, not {_quoted(amount)}")
        if isinstance(amount, int) and not -(2**63) <= amount < 2**63:
            raise ValueError("amount does not fit into 64 bits")
        if not math.isfinite(amount):
            raise ValueError(f"amount is a number that JSON has, not {amount!r}")
        payload = self._ask(_ADD, key, amount=amount, ttl=ttl)[1]
        self._gave[key] = (payload, None)
        total: Union[int, float] = json.loads(payload)
        return total

    def compare_and_set(self, key: str, expected: Any, value: Any, ttl: Optional[float] = None) -> bool:
        """Put `value` under `key` if `expected` is there, and say whether it was. None expects that there is nothing.

        What `get` returned before, its `default` too, stands for just what it found.
        """
        old, new = self._expected(key, expected), self._encoded(value, "value")
        size = None if old is None else len(old)
        verb, _ = self._ask(_COMPARE, key, new if old is None else old + new, ttl=ttl, expected=size)
        if verb == _DONE:
            self._gave[key] = (new, None)
        return verb == _DONE

    def delete(self, key: str) -> bool:
        """Remove what is under `key`, and say whether there was anything."""
        verb, _ = self._ask(_DELETE, key)
        self._gave[key] = (None, None)
        return verb == _DONE

    def _expected(self, key: str, expected: Any) -> Optional[bytes]:
        """Return the bytes that are to be at the node, or None if nothing is."""
        gave = self._gave.get(key) if isinstance(key, str) else None
        if gave is not None:
            payload, default = gave
            if payload is None:
                if expected is default or expected == default:
                    return None
            elif json.loads(payload) == expected:
                # Others may write the same value in another way, and the node compares bytes.
                return payload
        return None if expected is None else self._encoded(expected, "expected")

    @staticmethod
    def _encoded(value: Any, name: str) -> bytes:
        try:
            return _to_json(value, name, _encode_alone)
        except _Unsendable as error:
            raise ValueError(f"{error.place}: {error}") from None

    def _ask(self, verb: int, key: str, payload: bytes = b"", **fields: Any) -> tuple[int, bytes]:
        """Put a question to the node; return the verb and the payload of its answer."""
        if not isinstance(key, str):
            raise TypeError(f"a key of the state is a str, not a {_type_name(type(key))}")
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            raise ValueError(f"key: {_surrogate(error)}") from None
        if size > _KEY_LIMIT:
            raise ValueError(f"a key of the state has at most {_KEY_LIMIT} bytes, and this one has {size}")
        ttl = fields.get("ttl")
        if ttl is not None:
            if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
                raise TypeError(f"ttl is a number of seconds, not {_quoted(ttl)}")
            if not 0 < ttl < 1e18:
                raise ValueError(f"ttl is a number of seconds greater than 0, not {ttl!r}")
        if len(payload) > _PART_LIMIT:
            raise ValueError(f"a value of the state has at most {_PART_LIMIT} bytes of JSON, not {len(payload)}")
        known = {name: value for name, value in fields.items() if value is not None}
        extension = json.dumps({"key": key, **known}, ensure_ascii=False).encode()
        answer, detail, found = self._desk.ask(self._job, verb, extension, payload)
        if answer == _REFUSED:
            raise _as_seen_by_user("StateRefused", StateRefused)(_fields_of(detail).get("detail", "the node refused"))
        return answer, found


class _Kept:
    """A state without a node, for tests of stage code."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[str, tuple[bytes, float]] = {}

    def ask(self, _job: bytes, verb: int, extension: bytes, payload: bytes) -> tuple[int, bytes, bytes]:
        """Answer as the node does."""
        fields = json.loads(extension)
        with self._guard:
            now, key = time.monotonic(), fields["key"]
            found, ends = self._entries.get(key, (None, math.inf))
            if ends <= now:
                found, ends = None, math.inf
            fresh = now + fields.get("ttl", math.inf)
            if verb == _GET:
                return (_NO, b"", b"") if found is None else (_VALUE, b"", found)
            if verb == _DELETE:
                self._entries.pop(key, None)
                return (_NO if found is None else _DONE), b"", b""
            if verb == _ADD:
                before = 0 if found is None else json.loads(found)
                if isinstance(before, bool) or not isinstance(before, (int, float)):
                    return _REFUSED, b'{"detail":"what is there is not a number"}', b""
                total = before + fields["amount"]
                if not (-(2**63) <= total < 2**63 if isinstance(total, int) else math.isfinite(total)):
                    return _REFUSED, b'{"detail":"the sum is too large for a number of 64 bits"}', b""
                payload = json.dumps(total).encode()
                self._entries[key] = (payload, fresh if found is None else ends)
                return _VALUE, b"", payload
            if verb == _COMPARE:
                size = fields.get("expected")
                if found != (None if size is None else payload[:size]):
                    return _NO, b"", b""
                payload = payload[size or 0 :]
            self._entries[key] = (payload, fresh)
            return _DONE, b"", b""


class Context:
    """What is known about the job at hand: the second argument of a stage's function that takes two.

    A function that is called remotely asks `evener.context()` for it.

    Attributes: `tries` (executions that started, this one included), `deadline` (a point on the clock of
    `time.monotonic`, in seconds, or None), and the properties below.

    Tests of stage code may make their own; `cancelled` is then a function that says whether the job is cancelled, and
    `state` what jobs keep for each other, by default a `State` of its own.
    """

    __slots__ = ("_desk", "_extension", "_fields", "_job", "_name", "_request", "_state", "_told", "deadline", "tries")
    __module__ = "evener"

    tries: int
    deadline: Optional[float]

    def __init__(
        self,
        job_id: str = "",
        request_id: str = "",
        tries: int = 1,
        deadline: Optional[float] = None,
        request: Optional[Request] = None,
        traceparent: str = "",
        cancelled: Optional[Callable[[], bool]] = None,
        name: str = "evener",
        state: Optional[State] = None,
    ) -> None:
        self.tries = tries
        self.deadline = deadline
        self._fields: Optional[dict[str, Any]]
        self._fields = {"job_id": job_id, "request_id": request_id, "traceparent": traceparent}
        self._extension: Union[bytes, bytearray] = b""
        self._request = request
        # Who knows about the job, and how it is called there.
        self._desk: Any = None if cancelled is None else _Alone(cancelled)
        self._job = b""
        self._told = False
        self._name = name
        self._state = State() if state is None else state

    @classmethod
    def _of_job(
        cls,
        fields: Optional[dict[str, Any]],
        extension: Union[bytes, bytearray],
        tries: int,
        left: int,
        desk: Any,
        job: bytes,
        name: str,
    ) -> Context:
        """Make the context of a JOB. Most functions only ask whether it is cancelled, so the extension waits unread."""
        context = cls.__new__(cls)
        context.tries = tries
        context.deadline = None if left == _NO_DEADLINE else time.monotonic() + left / 1e9
        context._fields = fields
        context._extension = extension
        context._request = None
        context._desk = desk
        context._job = job
        context._told = False
        context._name = name
        return context

    def _field(self, name: str) -> Any:
        if self._fields is None:
            self._fields = _fields_of(self._extension)
        return self._fields.get(name)

    @property
    def job_id(self) -> str:
        """The job's public id, a UUIDv7 as text; "" if the node did not say."""
        return self._field("job_id") or ""

    @property
    def request_id(self) -> str:
        """The public id of the request that the job serves, a UUIDv7 as text; "" if the node did not say."""
        return self._field("request_id") or ""

    @property
    def traceparent(self) -> str:
        """The W3C trace header of the request; "" if it has none."""
        return self._field("traceparent") or ""

    @property
    def request(self) -> Optional[Request]:
        """The metadata of the HTTP request that the job serves, with an empty body; None if it serves none."""
        if self._request is None:
            fields = self._field("request")
            if fields is not None:
                self._request = _request_from(fields, b"")
        return self._request

    def remaining(self) -> Optional[float]:
        """Return the seconds left until the deadline, never less than 0; None if there is no deadline."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())

    def cancelled(self) -> bool:
        """Say whether nobody waits for this job any more. Never blocks, and costs one system call."""
        if not self._told and self._desk is not None:
            self._told = self._desk.cancelled(self._job)
        return self._told

    def check(self) -> None:
        """Raise `Cancelled` if nobody waits for this job any more."""
        if self.cancelled():
            # Code that imported an installed package catches that package's class.
            raise _as_seen_by_user("Cancelled", Cancelled)

    @property
    def state(self) -> State:
        """What jobs keep for each other at the node, as long as the job is not done."""
        try:
            return self._state
        except AttributeError:
            self._state = State._of_job(self._desk, self._job)
            return self._state

    @property
    def log(self) -> logging.Logger:
        """A logger named after the stage's target, or the function. It writes lines to standard error, from INFO up.

        Where user code configures the root logger, that configuration decides instead.
        """
        return _logger(self._name)


class _Alone:
    """Stands for the node in a context that a test made."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled

    def cancelled(self, _job: bytes) -> bool:
        """Say what the test says."""
        return self._cancelled()


def context() -> Optional[Context]:
    """Return the `Context` of the call at hand in a worker that does remote calls; None everywhere else.

    All threads of the worker get that of the one call which it is doing.
    """
    # The runtime is another copy of this module where the package is installed.
    calls = getattr(sys.modules.get(_RUNTIME), "_calls", None)
    return None if calls is None else calls.context()


context.__module__ = "evener"


class _Local:
    """A function that was decorated with ``evener.function``, as it arrives in a worker.

    However it is called, it is called here and now.
    """

    __slots__ = ("_function",)
    __module__ = "evener._worker"
    __evener__ = "function"

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    run = __call__

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function; return a future that is done."""
        from concurrent.futures import Future

        class Done(Future[Any]):
            """A future that can be awaited as well, like those of the client."""

            def __await__(self) -> Generator[None, None, Any]:
                yield from ()
                return self.result()

        future = Done()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(self._function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

    def map(self, *iterables: Iterable[Any], return_exceptions: bool = False, **options: Any) -> Iterator[Any]:
        """Give the results one by one, like `map`. Options that make no difference here are ignored."""
        return self.starmap(zip(*iterables), return_exceptions=return_exceptions, **options)

    def starmap(self, arguments: Iterable[Any], return_exceptions: bool = False, **_options: Any) -> Iterator[Any]:
        """Give the results one by one, like `itertools.starmap`."""
        for each in arguments:
            try:
                result = self._function(*each)
            except Exception as error:
                if not return_exceptions:
                    raise
                result = error
            yield result

    def options(self, **_options: Any) -> _Local:
        """Return the function itself: what can be chosen is about calls elsewhere."""
        return self

    def __get__(self, instance: Any, owner: Optional[type] = None) -> _Local:
        # A method: the instance goes in front of the arguments.
        bind = getattr(self._function, "__get__", None)
        return self if instance is None or bind is None else _Local(bind(instance, owner))

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self._function

    def __getattr__(self, name: str) -> Any:
        # Its name, its defaults and whatever else was put on it.
        if name == "_function":
            raise AttributeError(name)
        return getattr(self._function, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Local, (self._function,)

    def __repr__(self) -> str:
        return f"<evener.function {getattr(self._function, '__qualname__', self._function)}>"


def _as_seen_by_user(name: str, own: Any) -> Any:
    """Return the class of this name in the package `evener` that user code imported, or `own` if it did not."""
    found = getattr(sys.modules.get("evener"), name, own)
    return found if getattr(found, "__evener__", None) == own.__evener__ else own


_logger_guard = threading.Lock()


def _logger(name: str) -> logging.Logger:
    import logging

    class Levelled(logging.Formatter):
        """Says the level in front of each line, as sd-daemon(3) has it; the node takes it off again."""

        def format(self, record: logging.LogRecord) -> str:
            steps = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
            level = next((level for least, level in steps if record.levelno >= least), 7)
            return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines() or [""])

    logger = logging.getLogger(name)
    with _logger_guard:
        if not logger.handlers and not logging.getLogger().handlers:
            handler = logging.StreamHandler()
            # What a call writes is its caller's, to whom the levels are told in words.
            in_words = logging.Formatter("%(levelname)s %(name)s: %(message)s")
            handler.setFormatter(Levelled() if _calls is None else in_words)
            logger.addHandler(handler)
            logger.propagate = False
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)
    return logger


def _offer_package() -> Optional[ModuleType]:
    """Make `import evener` work where the package is not installed; return what stands in for it."""
    try:
        found = "evener" in sys.modules or importlib.util.find_spec("evener")
    except (ImportError, ValueError):
        found = None
    # A plain folder that happens to be called evener is found too, as a namespace package without an origin.
    if found is True or (found and found.origin is not None):
        return None
    module = ModuleType("evener", "The names that stage code needs, offered by Evener's worker runtime.")
    module.__spec__ = importlib.machinery.ModuleSpec("evener", None)
    module.__dict__["__version__"] = __version__
    module.__dict__["__all__"] = list(_PUBLIC)
    module.__dict__["__getattr__"] = _missing_name
    for name in _PUBLIC:
        module.__dict__[name] = globals()[name]
    sys.modules["evener"] = module
    return module


def _missing_name(name: str) -> Any:
    remedy = "" if name.startswith("_") else "; for everything else, install the package: pip install evener"
    raise AttributeError(f"the worker runtime's evener has no {name!r}, only {', '.join(_PUBLIC)}{remedy}")


# --------------------------------------------------------------------------------------------------------------------
# Values in: decoding
# --------------------------------------------------------------------------------------------------------------------


class _Undecodable(Exception):
    """A payload is not what its content code says; the message is for the client."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_JSON_SPACE = " \t\n\r"

# Scans one value at an index and returns it with the index behind it. JSONDecoder.decode does the same between two
# regular expressions that look for spaces, which cost as much as a small value itself.
_scan: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"body is not UTF-8 text: {error.reason} at byte {error.start}"


def _decode_json(payload: Union[bytes, bytearray, memoryview]) -> Any:
    """Decode a payload and explain what is wrong with it. The loop calls this only when its own quick way fails."""
    try:
        text = str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise _Undecodable(_not_utf8(error)) from None
    if not text.strip(_JSON_SPACE):
        raise _Undecodable("body is not JSON: it is empty")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _Undecodable(f"body is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except ValueError as error:
        # A constant such as NaN, or a whole number with more digits than Python converts.
        raise _Undecodable(f"body is not JSON: {error}") from None
    except RecursionError:
        raise _Undecodable("body is not JSON that can be read: it is nested too deeply") from None


def _decode_text(payload: Union[bytes, bytearray, memoryview]) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise _Undecodable(_not_utf8(error)) from None


def _request_from(fields: Any, body: bytes) -> Request:
    """Make the request that user code sees from the field `request` of an extension."""
    if type(fields) is not dict:
        raise _Malformed("a JOB without its request")
    request: Request = _as_seen_by_user("Request", Request)(
        fields.get("method", "GET"),
        fields.get("path", "/"),
        fields.get("params"),
        fields.get("query", ()),
        fields.get("headers", ()),
        fields.get("client", ""),
        body,
    )
    return request


# --------------------------------------------------------------------------------------------------------------------
# Values out: encoding
# --------------------------------------------------------------------------------------------------------------------


class _Unsendable(Exception):
    """A result cannot travel: `place` names where in it, the message says why."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(detail)
        self.place = place


def _refuse_object(value: object) -> NoReturn:
    raise TypeError(f"JSON cannot hold a {_type_name(type(value))}")


# One dictionary serves every encoding: the encoder notes the containers it is in, to see a circle, and takes them out
# again. What a failed encoding leaves behind is cleared.
_markers: dict[int, Any] = {}


def _make_encoder() -> Callable[[Any, int], Iterable[str]]:
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    escape = json.encoder.encode_basestring
    if make is not None:
        # JSONEncoder.encode makes one of these for every value, which costs more than a small value itself.
        encoder: Callable[[Any, int], Iterable[str]] = make(
            _markers, _refuse_object, escape, None, ":", ",", False, False, False
        )
        return encoder
    return _encode_alone


_plain_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_refuse_object)


def _encode_alone(value: Any, _level: int) -> Iterable[str]:
    """Encode a value, whatever other threads encode at the same time."""
    return (_plain_encoder.encode(value),)


_encode = _make_encoder()


def _to_json(value: Any, place: str, encode: Optional[Callable[[Any, int], Iterable[str]]] = None) -> bytes:
    """Encode a value as JSON, or say at which place it cannot be. It is for one thread, unless `encode` is for more."""
    try:
        return "".join((encode or _encode)(value, 0)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        if encode is None:
            _markers.clear()
        where, why = _find_fault(value, place) or (place, str(error))
        raise _Unsendable(where, why) from None
    except BaseException:
        if encode is None:
            _markers.clear()
        raise


def _to_payload(value: Any, place: str) -> tuple[int, bytes]:
    """Encode a value as its type wants it; return the content code and the payload."""
    if isinstance(value, str):
        try:
            return _TEXT, str.encode(value)
        except UnicodeEncodeError as error:
            raise _Unsendable(place, _surrogate(error)) from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _BYTES, bytes(value)
    return _JSON, _to_json(value, place)


def _surrogate(error: UnicodeEncodeError) -> str:
    return f"the text holds a lone surrogate, U+{ord(error.object[error.start]):04X}, at index {error.start}"


def _find_fault(value: Any, name: str) -> Optional[tuple[str, str]]:
    """Walk a value in the order in which the encoder does; return the first place that JSON cannot hold, and why."""
    why = _fault(value)
    if why is not None:
        return name, why
    path = [name]
    inside = [id(value)]
    levels = [_children(value)]
    while levels:
        for step, child, key_fault in levels[-1]:
            why = key_fault
            if why is None and id(child) in inside and isinstance(child, (dict, list, tuple)):
                why = "the value holds itself, so it has no end"
            if why is None:
                why = _fault(child)
            if why is not None:
                return _place([*path, step]), why
            if isinstance(child, (dict, list, tuple)) and child:
                path.append(step)
                inside.append(id(child))
                levels.append(_children(child))
                break
        else:
            levels.pop()
            path.pop()
            inside.pop()
            continue
        if len(levels) > sys.getrecursionlimit() or len(levels) > 100_000:
            break
    if levels:
        return name, "the value is nested too deeply"
    return None


def _children(value: Any) -> Iterator[tuple[str, Any, Optional[str]]]:
    """Give every child of a container with its step in the path and, if its key is at fault, the reason."""
    if isinstance(value, dict):
        for key, child in list(value.items()):
            yield f"[{_quoted(key)}]", child, _key_fault(key)
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield f"[{index}]", child, None


def _quoted(key: object) -> str:
    try:
        text = json.dumps(key, ensure_ascii=False) if isinstance(key, str) else repr(key)
    except Exception:
        text = f"<{_type_name(type(key))}>"
    return text if len(text) <= 80 else f"{text[:60]}…{text[-15:]}"


def _place(path: list[str]) -> str:
    if len(path) > 40:
        path = [*path[:20], "…", *path[-20:]]
    return "".join(path)


def _key_fault(key: Any) -> Optional[str]:
    if isinstance(key, (str, int, float)) or key is None:
        why = _fault(key)
        return None if why is None else f"a key: {why}"
    return f"a key is a {_type_name(type(key))}; JSON has only strings as keys"


def _fault(value: Any) -> Optional[str]:
    """Say why JSON cannot hold this value itself, or return None if it can."""
    if value is None or isinstance(value, (bool, dict, list, tuple)):
        return None
    if isinstance(value, str):
        try:
            str.encode(value)
        except UnicodeEncodeError as error:
            return _surrogate(error)
        return None
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:
            return "the number has more digits than Python converts to text; send it as a hexadecimal string"
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return "the number is NaN, which JSON does not have; send None instead"
        if math.isinf(value):
            return "the number is infinite, which JSON does not have; send None instead"
        return None
    return _object_fault(value)


def _object_fault(value: Any) -> str:
    kind = type(value)
    name = _type_name(kind)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{name} inside JSON; return it as the whole result, or encode it as text (base64, say)"
    if isinstance(value, (set, frozenset)):
        return f"a {name}, which JSON does not have; send a list"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "a generator inside another value; return it by itself, or send a list"
    if inspect.iscoroutine(value) or inspect.isawaitable(value):
        return f"a {name}: the function should not be async, or should await what it returns"
    marker = getattr(kind, "__evener__", None)
    if marker == "abort":
        return "Abort must be raised, not returned"
    if marker in ("response", "goto"):
        return f"{name} inside another value; return it by itself"
    if marker == "request":
        return "a request cannot travel; return what the next stage needs of it, such as request.json()"
    if isinstance(value, type):
        return f"the class {_type_name(value)} itself, not a value"
    remedy = ""
    if hasattr(kind, "__dataclass_fields__"):
        remedy = "; send dataclasses.asdict(…)"
    elif hasattr(kind, "tolist"):
        remedy = "; send the result of its .tolist()"
    elif hasattr(kind, "isoformat"):
        remedy = "; send the result of its .isoformat()"
    elif hasattr(kind, "__iter__"):
        remedy = "; send a list"
    return f"JSON cannot hold a {name}{remedy}"


def _type_name(kind: type) -> str:
    module = getattr(kind, "__module__", "builtins")
    name = getattr(kind, "__qualname__", repr(kind))
    return name if module == "builtins" else f"{module}.{name}"


def _is_status(status: object, least: int) -> bool:
    return isinstance(status, int) and not isinstance(status, bool) and least <= status <= 599


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


def _response_headers(headers: Any) -> bytes:
    """Check the headers of a response and encode them as an extension."""
    if headers is None:
        return b""
    try:
        pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        kind = _type_name(type(headers))
        raise _Unsendable("Response.headers", f"a dict or a list of pairs is needed, not this {kind}") from None
    for name, value in pairs:
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise _Unsendable("Response.headers", f"{_quoted(name)} cannot be the name of a header")
        place = f"Response.headers[{_quoted(name)}]"
        if not isinstance(value, str):
            raise _Unsendable(place, f"a header's value is a str, not a {_type_name(type(value))}")
        if not _HEADER_VALUE.fullmatch(value):
            raise _Unsendable(place, "a header's value cannot hold line ends or other control characters")
        if _fault(value) is not None:
            raise _Unsendable(place, str(_fault(value)))
    if not pairs:
        return b""
    extension = _to_json({"headers": pairs}, "Response.headers")
    if len(extension) > _EXTENSION_LIMIT:
        raise _Unsendable("Response.headers", f"the headers are larger than {_EXTENSION_LIMIT} bytes")
    return extension


# What an OUTCOME consists of, apart from the job and the time: word, number, extension, payload.
_Outcome = tuple[int, int, bytes, Union[bytes, memoryview]]


def _outcome_of(result: Any) -> _Outcome:
    """Make the outcome of any result: a response, a goto, or a value for the next stage."""
    marker = getattr(type(result), "__evener__", None)
    if marker == "made":
        made: _Outcome = result.outcome
        return made
    if marker == "response":
        status = result.status
        if not _is_status(status, 200):
            raise _Unsendable("Response.status", f"a status is a whole number from 200 to 599, not {_quoted(status)}")
        extension = _response_headers(result.headers)
        content, payload = (_NOTHING, b"") if result.body is None else _to_payload(result.body, "Response.body")
        return _word(_OUTCOME, content, _RESPOND), int(status), extension, payload
    if marker == "goto":
        target = result.target
        if not isinstance(target, str) or not target:
            detail = f"a target is the name of a stage or a pipeline, not {_quoted(target)}"
            raise _Unsendable("Goto.target", detail)
        extension = _to_json({"target": target}, "Goto.target")
        if len(extension) > _EXTENSION_LIMIT:
            raise _Unsendable("Goto.target", "the name is too long")
        content, payload = _to_payload(result.value, "Goto.value")
        return _word(_OUTCOME, content, _GOTO), 0, extension, payload
    content, payload = _to_payload(result, "result")
    return _word(_OUTCOME, content, _NEXT), 0, b"", payload


# --------------------------------------------------------------------------------------------------------------------
# Failures
# --------------------------------------------------------------------------------------------------------------------


def _failure(reason: int, **fields: Any) -> _Outcome:
    """Make a failed outcome; texts are cut so that they fit, and keep their ends."""
    return _word(_OUTCOME, _NOTHING, _FAIL), reason, _extension(fields), b""


def _extension(fields: dict[str, Any]) -> bytes:
    for limit in (_DETAIL_LIMIT, _DETAIL_LIMIT // 8):
        cut = {name: _cut(value, limit) if isinstance(value, str) else value for name, value in fields.items()}
        extension = json.dumps(cut, separators=(",", ":"), ensure_ascii=False).encode() if cut else b""
        if len(extension) <= _EXTENSION_LIMIT - _PRINTED_LIMIT:
            break
    return extension


def _with_printed(outcome: _Outcome, printed: bytes) -> _Outcome:
    """Add the counts of a function worker, themselves an extension, to those of an outcome."""
    word, number, extension, payload = outcome
    return word, number, extension[:-1] + b"," + printed[1:] if extension else printed, payload


def _cut(text: str, limit: int) -> str:
    """Keep the last `limit` bytes of a text, and make what UTF-8 does not hold visible."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    note = f"[{len(data)} bytes, cut to the last {limit}] "
    return note + data[len(data) - limit + len(note) :].decode("utf-8", "ignore")


def _failure_of(error: BaseException) -> _Outcome:
    """Make the outcome of a function that raised. MemoryError is not for this function."""
    if _is_cancel(error):
        return _failure(_CANCELLED)
    if getattr(type(error), "__evener__", None) == "abort":
        status = getattr(error, "status", None)
        if isinstance(status, int) and _is_status(status, 400):
            return _failure(_ABORT, status=int(status), detail=_text_of(getattr(error, "detail", "")))
    if isinstance(error, _Unsendable):
        return _failure(_ENCODE, detail=str(error), place=error.place)
    return _failure(
        _ERROR, type=_type_name(type(error)), message=_text_of(error), traceback=_traceback_of(error).rstrip("\n")
    )


def _is_cancel(error: BaseException) -> bool:
    return getattr(type(error), "__evener__", None) == "cancelled"


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{_type_name(type(value))} whose text cannot be had: {_type_name(type(error))}>"


def _without_runtime(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """Drop the runtime's own frames from the start of a traceback."""
    own = _without_runtime.__code__.co_filename
    while trace is not None and trace.tb_frame.f_code.co_filename == own:
        trace = trace.tb_next
    return trace


def _traceback_of(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, _without_runtime(error.__traceback__)))
    except Exception:
        return f"{_type_name(type(error))}: {_text_of(error)}"


def _one_line(error: BaseException) -> str:
    text = " ".join(_text_of(error).split())
    name = _type_name(type(error))
    return f"{name}: {text}" if text else name


# --------------------------------------------------------------------------------------------------------------------
# Leaving
# --------------------------------------------------------------------------------------------------------------------


def _flush() -> None:
    """Put what was printed into the pipes, whatever state user code left the streams in."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except Exception:
            # Closed, replaced by something odd, or nobody reads the pipe any more: there is no one to tell.
            continue


def _leave(code: int) -> NoReturn:
    """End the process now: handlers registered with atexit get a moment, threads get none."""
    import atexit

    def give_up() -> None:
        time.sleep(_LEAVE_TIMEOUT)
        os._exit(code)

    try:
        threading.Thread(target=give_up, daemon=True).start()
        atexit._run_exitfuncs()
    except BaseException:
        # Too little memory for a thread, or a handler that failed: it was printed, and the worker leaves either way.
        pass
    _flush()
    os._exit(code)


def _complain(text: str) -> None:
    try:
        sys.stderr.write(f"evener worker: {text}\n")
    except Exception:
        return


class _Malformed(BaseException):
    """The node sent what the protocol forbids. User code that reads its context may meet it, and is not to catch it."""


class _NodeGone(Exception):
    """The node said BYE, or the stream has ended."""


# --------------------------------------------------------------------------------------------------------------------
# The connection
# --------------------------------------------------------------------------------------------------------------------

# A whole JOB: word, key, extension (or the function that a call is of), number, nanoseconds, payload, and when it was
# read.
_Cold = Union[bytes, bytearray, "_Function"]
_Job = tuple[int, bytes, _Cold, int, int, Union[bytes, bytearray], int]
_Pieces = list[Union[bytes, bytearray]]

# The words of a JOB that comes in one frame. The loop takes those by itself.
_WHOLE_JOBS = frozenset(
    _word(_JOB, content, verb) for content in (_NOTHING, _JSON, _TEXT, _BYTES, _TYPED) for verb in (0, 1)
)
_JSON_JOB = _word(_JOB, _JSON)
_ONE_CALL = _word(_JOB, _BYTES, _CALL)
_CALL_JOBS = frozenset((_ONE_CALL, _word(_JOB, _BYTES, _CALLS)))


class _Hold:
    """A job of several that are at hand at the same time."""

    __slots__ = ("news", "owed", "told")

    def __init__(self) -> None:
        # Whether it was cancelled, the bytes of its chunks that the client has not taken, and who waits for a change.
        self.told = False
        self.owed = 0
        self.news: Any = None

    def tell(self) -> None:
        """Note that the job was cancelled."""
        self.told = True
        if self.news is not None:
            self.news.notify_all()

    def credit(self, size: int) -> None:
        """Note that the client has taken so many bytes."""
        self.owed = max(0, self.owed - size)
        if self.news is not None:
            self.news.notify_all()


class _Task(_Hold):
    """One of several jobs that are tasks. All is done in the thread of their loop, which is the reader."""

    __slots__ = ("room", "task")

    def __init__(self) -> None:
        super().__init__()
        # While there is something to cancel, and while it waits for the client to take what was sent.
        self.task: Optional[asyncio.Task[None]] = None
        self.room: Optional[asyncio.Future[None]] = None

    def tell(self) -> None:
        """Cancel the task, once."""
        if not self.told and self.task is not None:
            self.task.cancel()
        super().tell()

    def credit(self, size: int) -> None:
        """Let the task go on if there is room."""
        super().credit(size)
        if self.room is not None and self.owed < _WINDOW and not self.room.done():
            self.room.set_result(None)


class _Question:
    """A question about the state: its answer as verb, extension and payload, once it is there, and who waits for it."""

    __slots__ = ("answer", "news")

    def __init__(self, news: Optional[threading.Condition]) -> None:
        self.answer: Optional[tuple[int, bytes, bytes]] = None
        self.news = news


class _Link:
    """The socket to the node, for everything that is not one whole JOB in one piece.

    `backlog` holds what was read and not yet understood, `ahead` the jobs that were understood and have not begun. The
    loop reads by itself only while both are empty and there is no `alert`.

    While `current` is a job, whoever holds `guard` may read, write and change what is here; while it is None, only the
    loop may. Before CREDIT was granted, only contexts do, and the loop takes the guard when it is done with a job that
    has one. From then on it is `watched`, and holds the guard except in a call and while it waits for a job.

    Where several jobs are `at_hand` in threads, `current` stays None: one thread is the `reader`, and all that anybody
    does here is done with the guard.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        # What a JOB may be, and the functions that calls are of, by number: none in a stage.
        self.kinds = _WHOLE_JOBS
        self.functions: Optional[dict[int, _Function]] = None
        # The flags that even a JOB may not have.
        self.unknown = 0xFE00 & ~(_STREAM << 8)
        # Whether jobs come in batches, and whether the job whose parts are arriving is the last of its batch.
        self.batches = False
        self._closing = False
        # The jobs at hand, where there may be several, and the thread that reads for them if no other may.
        self.at_hand: dict[bytes, _Hold] = {}
        self.reader: Optional[int] = None
        self.hold: type[_Hold] = _Hold
        # What the reader calls after it has looked in between, for what it may have found.
        self.stirred: Optional[Callable[[], object]] = None
        # Whether jobs may be sent ahead.
        self.generous = True
        self.backlog = bytearray()
        self.ahead: deque[_Job] = deque()
        # When the socket was last seen empty.
        self.looked = 0
        # Something is to be done before the loop may read: it calls `fetch`.
        self.alert = False
        # The stream has ended: the node is gone.
        self.ended = False
        # The job, or the function, whose parts are arriving, the first frame of it without its payload, and the payload
        # so far.
        self.unfinished: Optional[bytes] = None
        self._first: tuple[int, _Cold, int, int, int, int] = (0, b"", 0, 0, 0, 0)
        self._parts: _Pieces = []
        self._large: Optional[bytearray] = None
        # The job at hand, as far as somebody else needs to know: it has a context, or there is a watch.
        self.current: Optional[bytes] = None
        self.told = False
        # The last job that was cancelled while it was at hand, and the bytes of chunks of the job at hand that the
        # client has not taken.
        self.told_of: Optional[bytes] = None
        self.owed = 0
        # The questions about the state that are not answered, by their numbers.
        self._questions: dict[int, _Question] = {}
        self._asked_last = 0
        self._bye = False
        # Why reading cannot go on after the jobs that are ahead.
        self._fault: Optional[BaseException] = None
        # The watch: whether there is one, whether it rests, and whether the node has asked for it.
        self.watched = False
        self.resting = False
        self._asked = False
        self._awake = threading.Event()
        self._credit_frame = _frame(_word(_CREDIT), _NO_KEY, number=_AHEAD)
        self._process = os.getpid()
        self._renew()
        os.register_at_fork(after_in_child=self._forget)
        # Sent when there may be no memory left to make a frame, so its bytes are ready.
        extension = b'{"message":"the worker ran out of memory (MemoryError)"}'
        self._memory_frame = bytearray(_frame(_word(_OUTCOME, 0, _FAIL), _NO_KEY, extension, b"", _MEMORY))
        self._bye_frame = _frame(_word(_BYE), _NO_KEY)

    def _renew(self) -> None:
        self.guard = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        # For waits without the guard: two threads cannot share one of these.
        self._readable = select.poll()
        self._readable.register(self.socket, select.POLLIN)

    def _forget(self) -> None:
        """In a process that user code forked: the socket is the worker's alone, and the watch stayed behind."""
        self.guard = threading.Lock()
        self.socket.close()

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the worker, not the worker."""
        return os.getpid() != self._process

    # Reading

    def fetch(self) -> None:
        """Take a step towards the next job: understand what was read, or wait for the rest of a frame or of a job.

        Raises _NodeGone on BYE and at the end of the stream, and _Malformed. It is for the loop alone.
        """
        self._sort()
        if self._asked:
            self._grant()
        if not self.ahead:
            if self._fault is not None:
                raise self._fault
            if self._bye or self.ended:
                raise _NodeGone
            if self.backlog or self.unfinished is not None:
                self._read_on()
        self.alert = self._bye or self.ended or self.unfinished is not None or self._fault is not None

    def _read_on(self) -> None:
        """Wait for more of what has begun to arrive."""
        backlog = self.backlog
        missing = 0
        if len(backlog) >= _HEADER_SIZE:
            length, _, _, extension, *_ = _HEADER.unpack_from(backlog)
            if len(backlog) >= _HEADER_SIZE + extension:
                missing = _HEADER_SIZE + length - len(backlog)
        if missing < _READ_SIZE:
            self.take(self.socket.recv(_READ_SIZE), _READ_SIZE)
            return
        # The rest of a large payload is read to where it stays: nothing else can come before it.
        tail = bytearray(missing)
        with memoryview(tail) as view:
            filled = 0
            while filled < missing:
                count = self.socket.recv_into(view[filled:])
                if not count:
                    self._end()
                    return
                filled += count
        self.looked = 0
        self._sort(tail)

    def take(self, data: Union[bytes, memoryview], size: int) -> None:
        """Note what came of reading up to `size` bytes."""
        if not data:
            self._end()
            return
        self.backlog += data
        # There may be more if it came to the full size, and somebody is to look before a job is begun.
        self.looked = time.perf_counter_ns() if len(data) < size else 0

    def look(self) -> None:
        """Read what is there, without waiting, and act on it."""
        try:
            for _ in range(_READS):
                if self.ended or self._fault is not None:
                    return
                try:
                    data = self.socket.recv(_READ_SIZE, socket.MSG_DONTWAIT)
                except (BlockingIOError, MemoryError):
                    # Nothing there, or nothing taken.
                    break
                try:
                    self.take(data, _READ_SIZE)
                    self._sort()
                except MemoryError as error:
                    # What was read is lost. The job at hand may end well, then the worker leaves.
                    self._stop(error.with_traceback(None))
                    self.ahead.clear()
                if len(data) < _READ_SIZE:
                    break
            self.looked = time.perf_counter_ns()
        except OSError:
            # A forked process has no socket; a broken connection means that the node is gone.
            if not self.forked:
                self._end()
        except BaseException:
            # A signal handler of user code came in between, and a message may be lost. The worker leaves after the job.
            self._stop(_NodeGone())
            self.ahead.clear()
            raise

    def _end(self) -> None:
        self.ended = self.alert = True
        self.ahead.clear()

    def _stop(self, fault: BaseException) -> None:
        self._fault = fault
        self.alert = True

    def _sort(self, tail: Union[bytes, bytearray] = b"") -> None:
        """Act on every whole frame of the backlog, of which `tail` may be the end."""
        if self._fault is not None:
            return
        backlog, ahead, unpack, functions = self.backlog, self.ahead, _HEADER.unpack_from, self.functions
        kinds, batches = self.kinds, self.batches
        now = time.perf_counter_ns()
        start, size = 0, len(backlog) + len(tail)
        try:
            while size - start >= _HEADER_SIZE:
                length, word, key, extension, number, function, left = unpack(backlog, start)
                if extension > length or extension > _EXTENSION_LIMIT or length - extension > _PART_LIMIT:
                    raise _Malformed(f"a frame of {length} bytes with an extension of {extension}")
                kind = word & 0xFF
                if (word & 0xFE00 and (kind != _JOB or word & self.unknown)) or (
                    function and (functions is None or kind not in (_JOB, _PART, _FUNCTION))
                ):
                    raise _Malformed(f"a frame with unknown flags: {word >> 8 & 0xFF:#04x}, reserved {function:#x}")
                middle = start + _HEADER_SIZE + extension
                end = start + _HEADER_SIZE + length
                if end > size:
                    break
                if kind == _JOB:
                    cold: _Cold = backlog[middle - extension : middle]
                    payload = backlog[middle:end]
                    whole = word & ~(_MORE << 8)
                    if self.unfinished is not None:
                        raise _Malformed("a JOB between the parts of another")
                    if (whole not in kinds and whole & ~0xFE00 not in kinds) or (payload and not word & 0xFF0000):
                        raise _Malformed(f"a JOB with the word {word:#010x} and {length - extension} bytes")
                    if self._bye:
                        raise _Malformed("a JOB after BYE")
                    if functions is not None:
                        if cold or function not in functions:
                            raise _Malformed(f"a call of the function {function}, which is not there")
                        # The job has the function itself, so that it may be forgotten while the job waits.
                        cold = functions[function]
                    if word == whole:
                        ahead.append((word, key, cold, number, left, payload + tail if tail else payload, now))
                    else:
                        self._begin_parts(key, (whole, cold, number, left, now, 0), [payload, tail])
                    if batches and not word & _BATCH << 8:
                        self._close_batch()
                elif kind == _PART:
                    self._keep_part(word, key, [backlog[middle:end], tail], function)
                elif kind == _FUNCTION and functions is not None:
                    self._learn(word, key, extension, [backlog[middle:end], tail], function)
                elif kind == _CANCEL:
                    if self._drop(key):
                        self.send(_failure(_CANCELLED), key, 0)
                    elif key == self.current:
                        self.told = True
                        self.told_of = self.current
                    elif key in self.at_hand:
                        self.at_hand[key].tell()
                elif kind == _RECALL:
                    if self._drop(key):
                        self.send((_word(_OUTCOME, 0, _RETURNED), 0, b"", b""), key, 0)
                elif kind == _CREDIT and key != _NO_KEY:
                    if key == self.current:
                        self.owed = max(0, self.owed - number)
                    elif key in self.at_hand:
                        self.at_hand[key].credit(number)
                elif kind == _CREDIT:
                    self._asked = True
                    if self.watched:
                        self._grant()
                    else:
                        self.alert = True
                elif kind == _STATE:
                    self._answer(word, number, bytes(backlog[middle - extension : middle]), [backlog[middle:end], tail])
                elif kind == _BYE:
                    self._bye = self.alert = True
                else:
                    raise _Malformed(f"a frame of kind {kind}")
                start = end
        except _Malformed as fault:
            self._stop(fault)
        finally:
            del backlog[:start]

    def _begin_parts(self, key: bytes, first: tuple[int, _Cold, int, int, int, int], pieces: _Pieces) -> None:
        self.unfinished = key
        self.alert = True
        self._first = first
        self._parts = pieces

    def _keep_part(self, word: int, key: bytes, pieces: _Pieces, function: int) -> None:
        word_of_first, cold, number, left, now, function_of_first = self._first
        if key != self.unfinished or word >> 16 or function != function_of_first:
            raise _Malformed("a PART that belongs to no JOB")
        if any(pieces) and not word_of_first & 0xFF0000:
            raise _Malformed(f"a JOB with the word {word_of_first:#010x} and parts")
        self._add(pieces)
        if not word & _MORE << 8:
            whole = b"".join(self._parts) if self._large is None else self._large
            self._forget_parts()
            if self.functions is not None and word_of_first & 0xFF == _FUNCTION:
                self.functions[function] = _Function(function, whole)
            else:
                self.ahead.append((word_of_first, key, cold, number, left, whole, now))
                if self._closing:
                    self._close_batch()

    def _add(self, pieces: _Pieces) -> None:
        if self._large is not None:
            for piece in pieces:
                self._large += piece
            return
        self._parts += pieces
        if len(self._parts) > _MANY_PIECES:
            # From here on in one place, which grows: pieces would take twice as much room, and be in the way later.
            self._large = bytearray().join(self._parts)
            self._parts = []

    def _forget_parts(self) -> None:
        self.unfinished = self._large = None
        self._parts = []

    def _drop(self, key: bytes) -> bool:
        """Drop a job that has not begun; False if there is none of this key."""
        if key == self.unfinished_job:
            self._forget_parts()
            if self._closing:
                self._close_batch()
            return True
        for index, job in enumerate(self.ahead):
            if job[1] == key:
                del self.ahead[index]
                return True
        return False

    @property
    def unfinished_job(self) -> Optional[bytes]:
        """The job whose parts are arriving."""
        return None if self.unfinished == _FUNCTION_KEY else self.unfinished

    def _learn(self, word: int, key: bytes, extension: int, pieces: _Pieces, number: int) -> None:
        """Note a function, or forget it."""
        functions = self.functions
        if functions is None or key != _FUNCTION_KEY or not number or extension:
            raise _Malformed(f"a FUNCTION with the number {number}, the job {key.hex()}, an extension of {extension}")
        whole = word & ~(_MORE << 8)
        if word == _word(_FUNCTION, _NOTHING, _FORGET) and not any(pieces):
            functions.pop(number, None)
        elif whole != _word(_FUNCTION, _BYTES, _DEFINE) or number in functions or self.unfinished is not None:
            raise _Malformed(f"a FUNCTION with the word {word:#010x} and the number {number}, out of turn")
        elif word == whole:
            functions[number] = _Function(number, b"".join(pieces))
        else:
            self._begin_parts(key, (whole, b"", 0, 0, 0, number), pieces)

    # Batches

    def _close_batch(self) -> None:
        """Note the end of a batch behind its last job, which may be withdrawn without it, once that is whole."""
        self._closing = self.unfinished is not None
        if not self._closing:
            self.ahead.append((0, _BATCH_END, b"", 0, 0, b"", 0))

    def next_batch(self) -> list[_Job]:
        """Wait for a whole batch, of which all jobs may have been withdrawn. It is for the loop alone.

        Raises _NodeGone on BYE and at the end of the stream, and _Malformed.
        """
        self._sort()
        while True:
            if self._holds_batch():
                # Some of its jobs may have been withdrawn.
                self.look()
                if self._holds_batch():
                    break
            if self._fault is not None:
                raise self._fault
            if self.ended or self._bye:
                raise _NodeGone
            self._readable.poll()
            self._read_on()
            self._sort()
        batch: list[_Job] = []
        while True:
            job = self.ahead.popleft()
            if job[1] == _BATCH_END:
                return batch
            batch.append(job)

    def _holds_batch(self) -> bool:
        return any(job[1] == _BATCH_END for job in self.ahead)

    # Cancelling

    def begin(self, key: bytes) -> None:
        """Note the job at hand."""
        self.told = False
        self.current = key

    def finish(self) -> None:
        """The job at hand is done: from now on only the loop reads, even if a thread still holds the job's context."""
        with self.guard:
            self.current = None

    def cancelled(self, key: Optional[bytes]) -> bool:
        """Say whether this job is at hand and was cancelled."""
        if key is None or not self._holds(key):
            return False
        if not self._may_read():
            hold = self.at_hand.get(key)
            return hold is not None and hold.told
        with self.guard:
            if not self._holds(key):
                return False
            if self._poll.poll(0):
                self._look_between()
            return self.ended or (self.told if self.current is key else self.at_hand[key].told)

    def _holds(self, key: bytes) -> bool:
        """Say whether this job is at hand."""
        return self.current is key or key in self.at_hand

    def _may_read(self) -> bool:
        """Say whether this thread may read, once it has the guard and its job is at hand."""
        return self.reader is None or self.reader == get_ident()

    # State

    def ask(self, key: bytes, verb: int, extension: bytes, payload: bytes) -> tuple[int, bytes, bytes]:
        """Put a question about the state for a job at hand; return the verb, the extension and the payload answered."""
        if self.forked:
            raise RuntimeError("a forked process cannot ask for the state; only the worker itself can")
        reads = self._may_read()
        with self.guard:
            if not self._holds(key):
                raise RuntimeError("the state is there while the job is; this job has ended")
            self._asked_last = number = self._asked_last % 0xFFFF_FFFF + 1
            question = self._questions[number] = _Question(None if reads else threading.Condition(self.guard))
            word = _word(_STATE, _JSON if payload else _NOTHING, verb)
            self.socket.sendall(_frame(word, key, extension, payload, number))
            while question.news is not None and question.answer is None:
                self._check_line()
                question.news.wait()
        while question.answer is None:
            # Another thread may read the answer meanwhile, so this does not wait for ever.
            select.select((self.socket,), (), (), _TICK)
            with self.guard:
                if question.answer is None:
                    if self._holds(key):
                        self._look_between()
                    if question.answer is None:
                        self._check_line()
        return question.answer

    def _look_between(self) -> None:
        """Look for the job at hand."""
        self.look()
        if self.stirred is not None and (self.ahead or self.alert):
            self.stirred()

    def _check_line(self) -> None:
        """Raise if nothing more will come."""
        if self._fault is not None:
            raise self._fault
        if self.ended:
            raise _as_seen_by_user("Cancelled", Cancelled)

    def _answer(self, word: int, number: int, extension: bytes, pieces: _Pieces) -> None:
        """Hand over the answer to a question."""
        question = self._questions.pop(number, None)
        payload = b"".join(pieces)
        verb = word >> 24
        if question is None or word & _MORE << 8 or (word >> 16 & 0xFF == _JSON) is not (verb == _VALUE):
            raise _Malformed(f"a STATE with the word {word:#010x} and the number {number}")
        question.answer = verb, extension, payload
        if question.news is not None:
            question.news.notify_all()

    # Several jobs at the same time

    def next_jobs(self) -> list[_Job]:
        """Note the jobs that have come as being at hand, and return them. It is for the reader alone, with the guard.

        Raises _NodeGone after BYE, when no job is at hand any more, and _Malformed.
        """
        self.look()
        if self._fault is not None:
            raise self._fault
        jobs = list(self.ahead)
        self.ahead.clear()
        for job in jobs:
            self.at_hand[job[1]] = self.hold()
        if self.leaving and not self.at_hand and self.unfinished is None:
            raise _NodeGone
        return jobs

    @property
    def leaving(self) -> bool:
        """Whether the node has said BYE."""
        return self._bye

    def end_all(self) -> None:
        """The node is gone: tell every job at hand. It is for the reader alone, with the guard."""
        for hold in self.at_hand.values():
            hold.tell()
        for question in self._questions.values():
            if question.news is not None:
                question.news.notify_all()

    def bring(self, outcome: Optional[_Outcome], key: bytes, spent: int) -> None:
        """Send the outcome of one of several jobs, unless the node is gone; it is at hand no more."""
        with self.guard:
            del self.at_hand[key]
            if outcome is not None:
                self.send(outcome, key, spent)

    # Chunks

    def heed(self, key: bytes) -> None:
        """Act on what has come while this job is at hand; raise Cancelled if nobody waits for it any more."""
        with self.guard:
            self.look()
            if self._fault is not None:
                raise self._fault
            if self.ended or self.told_of is key:
                raise Cancelled

    def send_chunk(self, content: int, payload: Union[bytes, memoryview], key: bytes) -> None:
        """Send a chunk of the job at hand once the client has taken enough of those before it."""
        hold = self.at_hand.get(key)
        if hold is not None:
            with self.guard:
                while hold.owed >= _WINDOW and not hold.told:
                    if hold.news is None:
                        hold.news = threading.Condition(self.guard)
                    hold.news.wait()
                if hold.told:
                    raise Cancelled
                hold.owed += len(payload)
                self.send((_word(_CHUNK, content), 0, b"", payload), key, 0)
            return
        while self.owed >= _WINDOW:
            # The watch may read the credit meanwhile, so this does not wait for ever.
            self._readable.poll(_TICK * 1000)
            self.heed(key)
        with self.guard:
            self.owed += len(payload)
            self.send((_word(_CHUNK, content), 0, b"", payload), key, 0)

    # Watching

    def _grant(self) -> None:
        """Answer CREDIT. The first time, the loop does so, and takes the guard for good."""
        self._asked = False
        if not self.generous:
            return
        if not self.watched:
            self.guard.acquire()
            try:
                # Unlike a threading.Thread this one is not seen, and never waited for, by user code that looks after
                # its own threads.
                start_new_thread(self._watch, ())
            except (RuntimeError, MemoryError):
                # Without a watch there is no credit, and jobs go on coming one at a time.
                self.guard.release()
                return
            self.watched = True
        self.socket.sendall(self._credit_frame)

    def _watch(self) -> None:
        """Look at the socket while a job takes long, so that jobs which wait behind it can be called back.

        A job is left alone until it is found at hand by two looks in a row, so quick ones never meet the watch.
        """
        last = None
        idle = 0
        while True:
            try:
                time.sleep(_TICK)
                current = self.current
                if current is None:
                    idle += 1
                    if idle >= _TICKS:
                        self._rest()
                        idle = 0
                else:
                    idle = 0
                    if current is last and self.guard.acquire(False):
                        try:
                            if self.current is current:
                                self.look()
                        finally:
                            self.guard.release()
                last = current
            except MemoryError:
                # The function's business. The next look may have more luck.
                continue

    def _rest(self) -> None:
        self._awake.clear()
        self.resting = True
        # The loop notes a job first and then looks whether the watch rests, so one of the two sees the other.
        if self.current is None:
            self._awake.wait()
        self.resting = False

    def wake(self) -> None:
        """Let the watch go on: a job begins."""
        self.resting = False
        self._awake.set()

    # Writing

    def send(self, outcome: _Outcome, key: bytes, spent: int) -> None:
        """Send an OUTCOME, its payload in parts if it is large."""
        word, number, extension, payload = outcome
        if len(payload) <= _PART_LIMIT:
            self.socket.sendall(_frame(word, key, extension, payload, number, spent))
            return
        more = _MORE << 8
        if len(extension) <= _EXTENSION_LIMIT - _PRINTED_LIMIT:
            # The node makes room for all of it at once.
            size = b'"size":%d' % len(payload)
            extension = b"".join((extension[:-1], b",", size, b"}")) if extension else b"{" + size + b"}"
        head = _head(word | more, key, len(extension), _PART_LIMIT, number, spent) + extension
        with memoryview(payload) as view:
            for start in range(0, len(view), _PART_LIMIT):
                with view[start : start + _PART_LIMIT] as part:
                    if start:
                        last = start + len(part) == len(view)
                        head = _head(_word(_PART) | (0 if last else more), key, 0, len(part))
                    # Without a copy of the part; it may take less than all.
                    sent = self.socket.sendmsg((head, part)) - len(head)
                    if sent < 0:
                        self.socket.sendall(head[sent:])
                    if sent < len(part):
                        self.socket.sendall(part[max(sent, 0) :])

    def send_memory(self, key: Optional[bytes], message: str, printed: bytes = b"") -> None:
        """Say that memory ran out, and that the worker leaves."""
        if key is not None:
            frame: Union[bytes, bytearray] = self._memory_frame
            self._memory_frame[8:20] = key
            try:
                if message or printed:
                    outcome = _failure(_MEMORY, message=message or "the worker ran out of memory (MemoryError)")
                    word, number, extension, _ = _with_printed(outcome, printed) if printed else outcome
                    frame = _frame(word, key, extension, b"", number)
            except MemoryError:
                frame = self._memory_frame
            self.socket.sendall(frame)
        self.socket.sendall(self._bye_frame)


def _frame(
    word: int,
    key: bytes,
    extension: bytes = b"",
    payload: Union[bytes, memoryview] = b"",
    number: int = 0,
    nanoseconds: int = 0,
) -> bytes:
    return b"".join((_head(word, key, len(extension), len(payload), number, nanoseconds), extension, payload))


def _head(word: int, key: bytes, extension: int, payload: int, number: int = 0, nanoseconds: int = 0) -> bytes:
    return _HEADER.pack(extension + payload, word, key, extension, number, 0, nanoseconds)


# --------------------------------------------------------------------------------------------------------------------
# Calls of functions
# --------------------------------------------------------------------------------------------------------------------

# The pickle of None, which is what many functions return.
_PICKLED_NONE = b"\x80\x05N."


class _SerializationError(Exception):
    """Arguments or a result cannot be pickled or unpickled; the message says of which function, where, and why."""

    __module__ = "evener"
    __qualname__ = "SerializationError"


class _InitializerFailed(Exception):
    """What was to run once before the first call has failed, so that no call of its key is done in this process."""

    __module__ = "evener"
    __qualname__ = "InitializerFailed"


class _Made:
    """An outcome, as the loop gets it for a call that has no result."""

    __slots__ = ("outcome",)
    __evener__ = "made"

    def __init__(self, outcome: _Outcome) -> None:
        self.outcome = outcome


class _Function:
    """A function that the node has sent. It stays as it came until the first call of it."""

    __slots__ = ("blob", "call", "name", "names")

    def __init__(self, number: int, blob: Union[bytes, bytearray]) -> None:
        self.blob = blob
        self.name = f"function {number}"
        self.call: Optional[Callable[..., Any]] = None
        # What its own `__main__` held, as far as it came along.
        self.names: dict[str, Any] = {}


class _Main(ModuleType):
    """The module ``__main__`` of a function worker, which is nobody's script.

    It is empty, so that what belongs to the caller's ``__main__`` is pickled by value. While a call runs it also
    answers for the function's globals, if they are of a ``__main__``: a process that the call forks then finds there
    what multiprocessing sends it by name.
    """

    __slots__ = ("_names",)

    def __init__(self) -> None:
        super().__init__("__main__")
        self._names: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name in self._names and not self._is_for_others():
            return self._names[name]
        raise AttributeError(f"module '__main__' has no attribute {name!r}")

    def _is_for_others(self) -> bool:
        """Whether there are processes that were not forked: names mean nothing to them, so pickling had better fail."""
        context = sys.modules.get("multiprocessing.context")
        if context is None:
            return False
        children = sys.modules["multiprocessing.process"].active_children()
        return context.get_spawning_popen() is not None or not all(
            isinstance(child, context.ForkProcess) for child in children
        )


class _Streams:
    """Standard output and standard error as the node made them, whatever calls do to them."""

    def __init__(self) -> None:
        import fcntl
        import stat
        import termios

        self.out, self.err = sys.stdout, sys.stderr
        # Private duplicates of the two descriptors, which a new process does not inherit.
        self._kept: list[tuple[int, int, os.stat_result]] = []
        for number in (1, 2):
            try:
                self._kept.append((number, os.dup(number), os.fstat(number)))
            except OSError:
                continue
        # Linux says at either end of a pipe how many bytes nobody has read yet.
        self.countable = (
            sys.platform == "linux"
            and len(self._kept) == 2
            and all(stat.S_ISFIFO(status.st_mode) for _, _, status in self._kept)
        )
        self._ioctl, self._question = fcntl.ioctl, termios.FIONREAD
        self._counts = bytearray(4), bytearray(4)
        self._patience = _READER_PATIENCE
        self.pending_c, self.flush_c = self._make_for_c()

    @staticmethod
    def _make_for_c() -> tuple[Callable[[], object], Callable[[], object]]:
        """Have C code write whole lines, as Python does; return what asks for a rest, and what writes it."""
        from functools import partial

        try:
            import ctypes

            library = ctypes.CDLL(None)
            stdout = ctypes.c_void_p.in_dll(library, "stdout")
            # A question is quick. It need not let other threads run meanwhile, as writing does.
            pending = ctypes.PyDLL(None)["__fpending"]
            pending.restype = ctypes.c_size_t
            line_by_line = 1
            library.setvbuf(stdout, None, line_by_line, ctypes.c_size_t(0))
        except Exception:
            # There is no C library of that kind.
            return (lambda: 0), (lambda: 0)
        return partial(pending, stdout), partial(library.fflush, stdout)

    def mend(self) -> None:
        """Put back what a call has closed or replaced."""
        for number, kept, status in self._kept:
            try:
                same = os.path.samestat(os.fstat(number), status)
            except OSError:
                same = False
            if not same:
                self._put_back(number, kept, status)
        self.out = sys.stdout = self._sound(self.out, 1)
        self.err = sys.stderr = self._sound(self.err, 2)

    @staticmethod
    def _put_back(number: int, kept: int, status: os.stat_result) -> None:
        try:
            # Unless somebody has closed everything, and the number means something else by now.
            if os.path.samestat(os.fstat(kept), status):
                os.dup2(kept, number)
        except OSError:
            return

    @staticmethod
    def _sound(stream: Any, number: int) -> Any:
        """Return the stream, or one in its place if it does not work any more."""
        try:
            stream.flush()
        except Exception:
            try:
                stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                stream.reconfigure(line_buffering=True)
            except OSError:
                return None
        return stream

    def unread(self) -> bytes:
        """Return an extension that says how much of what was written nobody has read yet; empty if it is nothing."""
        out, err = self._counts
        (_, kept_out, _), (_, kept_err, _) = self._kept
        try:
            self._ioctl(kept_out, self._question, out)
            self._ioctl(kept_err, self._question, err)
        except OSError:
            # A call has closed them.
            return b""
        if not any(out) and not any(err):
            return b""
        return b'{"printed":[%d,%d]}' % (int.from_bytes(out, sys.byteorder), int.from_bytes(err, sys.byteorder))

    def wait_for_reader(self) -> None:
        """Wait until what was written has been read. Each time that nobody reads it waits half as long."""
        until = time.perf_counter() + self._patience
        while self.unread():
            if time.perf_counter() > until:
                self._patience /= 2
                return
            time.sleep(_READER_PAUSE)
        self._patience = _READER_PATIENCE


class _Calls:
    """Does the calls of a function worker: bytes in, bytes out."""

    def __init__(self, link: _Link) -> None:
        # Before user code can put modules of the same names in front of them.
        import pickle
        import traceback

        self._loads, self._dumps, self._clear_frames = pickle.loads, pickle.dumps, traceback.clear_frames
        self._by_value: Optional[Callable[[Any, int], bytes]] = None
        self._link = link
        self._streams = _Streams()
        self.functions: dict[int, _Function] = {}
        link.functions, link.kinds, link.generous = self.functions, _CALL_JOBS, self._streams.countable
        link.unknown = 0xFE00
        self.main = _Main()
        # What became of initializers, by their keys.
        self._initialized: dict[Optional[str], Optional[BaseException]] = {}
        # The call at hand: its word, its number and the time it had when it came; its function's name; its deadline.
        self._job: list[Any] = [0, 0, 0]
        self._name = ""
        self._deadline: Optional[float] = None
        self._context: Optional[tuple[bytes, Context]] = None
        # What is left of the group at hand. A forked process has nothing to do with it.
        self._items: list[Any] = []
        os.register_at_fork(after_in_child=self._drop_items)
        # The time before the call at hand that was not the function's own.
        self._apart = 0
        # A stream could not be flushed.
        self.spoiled = False
        # Somebody was told of output that was not read yet.
        self._unread = False

    def warm_up(self) -> None:
        """Import what the first call will need."""
        try:
            from cloudpickle import CloudPickler  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except Exception:
            # Whoever needs it is told that it is missing, or does not work.
            return

        class ByValue(CloudPickler):  # type: ignore[misc,unused-ignore]
            """Refuses open files, of which cloudpickle would send what is in them."""

            def reducer_override(self, obj: Any) -> Any:
                if type(obj) is io.TextIOWrapper and obj not in (sys.stdin, sys.stdout, sys.stderr):
                    raise TypeError("cannot pickle an open file")
                return super().reducer_override(obj)

        def dumps(value: Any, protocol: int) -> bytes:
            out = io.BytesIO()
            ByValue(out, protocol).dump(value)
            return out.getvalue()

        self._by_value = dumps

    def _drop_items(self) -> None:
        self._items.clear()

    # A call

    def run(self, job: list[Any], function: _Function) -> Union[bytes, _Made]:
        """Do a call or a group of calls: return the pickle of the result, or the outcome if there is none."""
        self._job, self._name, main = job, function.name, self.main
        self._deadline = None if job[2] == _NO_DEADLINE else time.monotonic() + job[2] / 1e9
        try:
            call = function.call
            if call is None or self._unread:
                call = self._prepare(function)
            main._names = function.names
            try:
                first, second = self._loads(job.pop())
            except MemoryError:
                raise
            except BaseException as error:
                text = f"the arguments of {self._name} cannot be unpickled in the worker: {_one_line(error)}"
                raise _SerializationError(text) from error
            if job[0] != _ONE_CALL:
                results, failures = self._each(call, first, second if type(second) is list else list(second))
                return self._pickle_group(results, failures)
            result = call(*first) if second is None else call(*first, **second)
            main._names = _NO_NAMES
            return _PICKLED_NONE if result is None else self._pickle(result)
        except MemoryError:
            raise
        except BaseException as error:
            main._names = _NO_NAMES
            if self._link.forked:
                _leave_fork(error)
            if _is_cancel(error):
                return _Made(_failure(_CANCELLED))
            fields, blob = self._describe(error)
            return _Made((_word(_OUTCOME, _BYTES, _RAISED), 0, _extension(fields), blob))

    def _each(self, call: Callable[..., Any], spread: bool, items: list[Any]) -> tuple[list[Any], list[Any]]:
        """Do the calls of a group; return the results, with None for those that failed, and what those raised.

        The items go through in runs, between which it is seen whether anybody still waits for them.
        """
        results: list[Any] = []
        failures: list[tuple[int, bytes]] = []
        link, append, clock = self._link, results.append, time.perf_counter_ns
        key = link.current
        total, rest, run = len(items), iter(items), 1
        self._items = items
        began = looked = clock()
        try:
            while len(results) < total:
                try:
                    if spread:
                        for item in islice(rest, run):
                            append(call(*item))
                    else:
                        for item in islice(rest, run):
                            append(call(item))
                except MemoryError:
                    raise
                except BaseException as error:
                    if link.forked:
                        _leave_fork(error)
                    if _is_cancel(error) and link.cancelled(key):
                        raise
                    failures.append((len(results), self._describe(error)[1]))
                    append(None)
                if not items:
                    # This is a process that one of the calls has forked.
                    _leave_fork(None)
                now = clock()
                run = min(2 * run, _RUN) if now - began < _LOOK_IN_GROUP // 4 else (run + 1) // 2
                if now - looked > _LOOK_IN_GROUP:
                    if link.cancelled(key):
                        raise Cancelled
                    looked = clock()
                began = now
        finally:
            self._items = []
        return results, failures

    def end(self, spent: int, watched: bool) -> tuple[int, bytes]:
        """Finish a call: see to the streams; return the time it took, and an extension if it left output unread."""
        streams = self._streams
        if streams.pending_c():
            streams.flush_c()
        apart, self._apart = self._apart, 0
        if (
            apart
            or spent > _MEND_AFTER
            or self.spoiled
            or sys.stdout is not streams.out
            or sys.stderr is not streams.err
        ):
            streams.mend()
            self.spoiled = False
        if not watched:
            return spent - apart, b""
        printed = streams.unread()
        if printed:
            self._unread = True
        return spent - apart, printed

    def context(self) -> Optional[Context]:
        """Return the context of the call at hand, if there is one."""
        key = self._link.current
        if key is None:
            return None
        made = self._context
        if made is None or made[0] is not key:
            made = key, Context._of_job({}, b"", self._job[1], _NO_DEADLINE, self._link, key, self._name)
            made[1].deadline = self._deadline
            self._context = made
        return made[1]

    # Functions

    def _prepare(self, function: _Function) -> Callable[..., Any]:
        """Do what comes before a call and is not its own time."""
        began = time.perf_counter_ns()
        try:
            if self._unread:
                # Else nobody could say where the output of this call begins.
                self._streams.wait_for_reader()
                self._unread = False
            return self._load(function) if function.call is None else function.call
        finally:
            self._apart = time.perf_counter_ns() - began

    def _load(self, function: _Function) -> Callable[..., Any]:
        fields = self._loads(function.blob)
        call: Callable[..., Any]
        if fields["format"] != 1:
            raise _SerializationError(f"the function came in the format {fields['format']}; this worker knows 1")
        function.name = self._name = str(fields["name"])
        if fields["initializer"] is not None:
            self._initialize(fields["key"], fields["initializer"])
        try:
            call = self._unpickle(fields["function"])
            if not callable(call):
                raise TypeError(f"{function.name} is a {_type_name(type(call))}, which cannot be called")
            names = getattr(call, "__globals__", None)
            if isinstance(names, dict):
                for alias, module in fields["modules"]:
                    __import__(module)
                    names[alias] = sys.modules[module]
                if names.get("__name__") == "__main__":
                    function.names = names
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"The function {function.name} could not be loaded in the worker ({sys.executable}).")
            raise
        function.call, function.blob = call, b""
        return call

    def _unpickle(self, pickled: bytes) -> Any:
        try:
            return self._loads(pickled)
        except ModuleNotFoundError as error:
            if error.name not in ("cloudpickle", "cloudpickle.cloudpickle"):
                raise
            raise ModuleNotFoundError(
                "the worker's Python has no cloudpickle, which functions need: "
                f"{sys.executable} -m pip install cloudpickle",
                name="cloudpickle",
            ) from None

    def _initialize(self, key: Optional[str], pickled: bytes) -> None:
        if key not in self._initialized:
            failure = None
            try:
                call, arguments = self._unpickle(pickled)
                call(*arguments)
            except MemoryError:
                raise
            except BaseException as error:
                if self._link.forked or _is_cancel(error):
                    raise
                failure = error
                self._clear_frames(error.__traceback__)
            self._initialized[key] = failure
        cause = self._initialized[key]
        if cause is not None:
            raise _InitializerFailed(f"the initializer failed: {_one_line(cause)}") from cause

    # Results

    def _pickle(self, value: Any) -> bytes:
        try:
            return self._dumps(value, 5)
        except MemoryError:
            raise
        except BaseException as error:
            return self._pickle_by_value(value, error)

    def _pickle_by_value(self, value: Any, error: BaseException) -> bytes:
        """Pickle with cloudpickle what failed without it; raise _SerializationError if that fails as well."""
        if inspect.iscoroutine(value):
            # Else Python warns that nobody awaited it, on top of this.
            value.close()
            text = f"{self._name} is async, and nobody awaits it in a worker; call asyncio.run in a plain function"
            raise _SerializationError(text) from None
        if self._by_value is None:
            self.warm_up()
        if self._by_value is not None:
            try:
                return self._by_value(value, 5)
            except MemoryError:
                raise
            except BaseException as second:
                error = second
        place, part = self._find_fault(value)
        hint = "; return a list" if inspect.isgenerator(part) else ""
        hint += "" if self._by_value else f" (the worker's Python, {sys.executable}, has no cloudpickle)"
        what = "" if part is value else f": {place} is a {_type_name(type(part))}"
        raise _SerializationError(
            f"the result of {self._name} cannot be pickled{what}: {_one_line(error)}{hint}"
        ) from error

    def _find_fault(self, value: Any) -> tuple[str, Any]:
        """Go down into a value to the first part that cannot be pickled by itself."""
        place = "result"
        for _ in range(20):
            fault = next((part for part in islice(_parts(value), 10_000) if not self._can_pickle(part[1])), None)
            if fault is None:
                break
            place, value = place + fault[0], fault[1]
        return place, value

    def _can_pickle(self, value: Any) -> bool:
        for dumps in (self._dumps, self._by_value):
            if dumps is not None:
                try:
                    dumps(value, 5)
                except Exception:
                    continue
                return True
        return False

    def _pickle_group(self, results: list[Any], failures: list[tuple[int, bytes]]) -> bytes:
        self.main._names = _NO_NAMES
        try:
            return self._dumps((results, failures), 5)
        except MemoryError:
            raise
        except BaseException as error:
            first = error
        if self._by_value is not None:
            try:
                return self._by_value((results, failures), 5)
            except MemoryError:
                raise
            except BaseException as error:
                first = error
        # Those that are at fault fail, and the others do not suffer for it.
        for index, result in enumerate(results):
            try:
                self._pickle(result)
            except MemoryError:
                raise
            except BaseException as error:
                results[index] = None
                failures.append((index, self._describe(error)[1]))
        failures.sort()
        return self._pickle_by_value((results, failures), first)

    # Exceptions

    def _describe(self, error: BaseException) -> tuple[dict[str, str], bytes]:
        """Make of an exception what the node is told of it, and the blob for the caller."""
        kind, message = _type_name(type(error)), "?"
        try:
            message = _cut(_text_of(error), _TEXT_LIMIT)
            chain, links = _chain_of(error)
            for each in chain:
                BaseException.with_traceback(each, _without_runtime(each.__traceback__))
            text = _cut(_traceback_of(error).rstrip("\n"), _TEXT_LIMIT)
            return self._to_blob(kind, message, text, [self._describe_one(*each) for each in zip(chain, links)])
        except MemoryError:
            raise
        except BaseException as failure:
            # The exception's own code.
            node = _node(kind, message, f"{_type_name(type(failure))} while it was looked at")
            return self._to_blob(kind, message, f"{kind}: {message}", [node])

    def _to_blob(self, kind: str, message: str, text: str, chain: list[dict[str, Any]]) -> tuple[dict[str, str], bytes]:
        fields = {"type": kind, "message": message, "traceback": text}
        return fields, self._dumps({"format": 1, **fields, "chain": chain}, 5)

    def _describe_one(self, error: BaseException, links: tuple[Optional[int], Optional[int]]) -> dict[str, Any]:
        pickled, why = self._pickle_exception(error)
        node = _node(_type_name(type(error)), _cut(_text_of(error), _TEXT_LIMIT), why)
        node.update(
            pickled=pickled,
            frames=_frames_of(error.__traceback__),
            cause=links[0],
            context=links[1],
            suppress=bool(error.__suppress_context__),
        )
        return node

    def _pickle_exception(self, error: BaseException) -> tuple[Optional[bytes], Optional[str]]:
        """Pickle an exception so that it unpickles; else say why not."""
        if isinstance(error, (_SerializationError, _InitializerFailed)):
            return None, "it is the worker runtime's own"
        try:
            try:
                pickled = self._dumps(error, 5)
            except Exception:
                if self._by_value is None:
                    raise
                pickled = self._by_value(error, 5)
            copy = self._loads(pickled)
        except MemoryError:
            raise
        except BaseException as failure:
            return None, _cut(_one_line(failure), _DETAIL_LIMIT)
        if type(copy) is not type(error):
            return None, f"it comes out of its pickle as a {_type_name(type(copy))}"
        return pickled, None


_NO_NAMES: dict[str, Any] = {}


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Give the parts of a value that may be what cannot be pickled, each with its step in the path."""
    if isinstance(value, dict):
        yield from ((" (a key)", key) for key in list(value))
    if isinstance(value, (dict, list, tuple)):
        yield from ((step, child) for step, child, _ in _children(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((" (a member)", child) for child in list(value))
    elif not isinstance(value, type) and hasattr(value, "__dict__"):
        yield from ((f".{name}", child) for name, child in list(vars(value).items()))


def _chain_of(error: BaseException) -> tuple[list[BaseException], list[tuple[Optional[int], Optional[int]]]]:
    """Return an exception with all that led to it, and for each the index of its cause and of its context.

    There is no way around in a circle by these indexes.
    """
    chain, places = [error], {id(error): 0}
    links: list[tuple[Optional[int], Optional[int]]] = []
    behind: list[set[int]] = [set()]

    def find(here: int, other: Optional[BaseException]) -> Optional[int]:
        if other is None:
            return None
        place = places.get(id(other))
        if place is None:
            if len(chain) == _CHAIN_LIMIT:
                return None
            place = places[id(other)] = len(chain)
            chain.append(other)
            behind.append(set())
        # Whatever leads from there must not come back here.
        reached, ahead = {place}, [place]
        while ahead:
            fresh = behind[ahead.pop()] - reached
            reached |= fresh
            ahead.extend(fresh)
        if here in reached:
            return None
        behind[here].add(place)
        return place

    # The list grows on the way.
    for here, each in enumerate(chain):
        links.append((find(here, each.__cause__), find(here, each.__context__)))
    return chain, links


def _node(kind: str, message: str, why: Optional[str]) -> dict[str, Any]:
    """Make an element of a chain of which no more is known."""
    return {
        "pickled": None,
        "why": why,
        "type": kind,
        "message": message,
        "frames": None,
        "cause": None,
        "context": None,
        "suppress": False,
    }


def _frames_of(trace: Optional[TracebackType]) -> Optional[dict[str, Any]]:
    """Make of a traceback what `tblib.Traceback.from_dict` makes a traceback of."""
    steps = []
    while trace is not None:
        steps.append(trace)
        trace = trace.tb_next
    if len(steps) > 2 * _FRAMES_LIMIT:
        steps = steps[:_FRAMES_LIMIT] + steps[-_FRAMES_LIMIT:]
    made: Optional[dict[str, Any]] = None
    for step in reversed(steps):
        frame = step.tb_frame
        code, names = frame.f_code, frame.f_globals
        made = {
            "tb_frame": {
                "f_globals": {name: names[name] for name in ("__name__", "__file__") if type(names.get(name)) is str},
                "f_code": {"co_filename": code.co_filename, "co_name": code.co_name},
                "f_lineno": frame.f_lineno or 0,
            },
            "tb_lineno": step.tb_lineno or 0,
            "tb_next": made,
        }
    return made


# The calls that this process does, if it is a function worker.
_calls: Optional[_Calls] = None


def _settle_names(calls: _Calls) -> None:
    """Give functions their names: `evener`, this module as a part of it, and a ``__main__`` that is not this file."""
    runtime = sys.modules[__name__]
    package = _offer_package()
    if package is not None:
        package.__dict__["_worker"] = sys.modules["evener._worker"] = runtime
        runtime.__name__ = "evener._worker"
        runtime.__spec__ = importlib.machinery.ModuleSpec("evener._worker", None)
    sys.modules[_RUNTIME] = runtime
    sys.modules["__main__"] = calls.main
    runtime.__dict__["_calls"] = calls


# --------------------------------------------------------------------------------------------------------------------
# The loop
# --------------------------------------------------------------------------------------------------------------------

# Types that are neither an outcome nor text or bytes: their exact instances go to JSON without a further look.
_PLAIN = frozenset((dict, list, tuple, int, float, bool, type(None)))


def _serve(
    link: _Link, call: Callable[..., Any], wants_context: bool, name: str, calls: Optional[_Calls] = None
) -> int:
    """Do jobs until the node ends it, and return the exit code.

    Everything that a small job needs stands here in one piece: a call of one more function costs as much as decoding a
    small value. A function worker's jobs go through here as well: `calls` makes of a call the bytes of its outcome.
    """
    receive, send, backlog, ahead = link.socket.recv_into, link.socket.sendall, link.backlog, link.ahead
    # A blocking receive would be woken for nothing each time the node reads an outcome: the kernel then reports room to
    # write to whoever sleeps on the socket. A poll for reading sleeps through that, which halves the cost of a job.
    readable = select.poll()
    readable.register(link.socket, select.POLLIN)
    wait = readable.poll
    unpack, pack, clock = _HEADER.unpack_from, _HEADER.pack, time.perf_counter_ns
    buffer = bytearray(_READ_SIZE)
    view = memoryview(buffer)
    full, look_after, no_deadline = _READ_SIZE, _LOOK_AFTER, _NO_DEADLINE
    scan, encode, join, system, make_context = _scan, _encode, "".join, sys, Context._of_job
    whole_jobs, json_job, plain, part_limit = _WHOLE_JOBS, _JSON_JOB, _PLAIN, _PART_LIMIT
    generator = GeneratorType
    call_jobs: frozenset[int] = frozenset()
    functions: dict[int, _Function] = {}
    if calls is not None:
        whole_jobs, call_jobs, functions = call_jobs, link.kinds, calls.functions
    next_json, next_text = _word(_OUTCOME, _JSON, _NEXT), _word(_OUTCOME, _TEXT, _NEXT)
    next_bytes = _word(_OUTCOME, _BYTES, _NEXT)
    key: Any
    text: Any
    result: Any
    payload: Any
    extension: Any
    value: Any
    context: Any
    watched = False
    message = ""
    try:
        while True:
            # What a job left must not stay in memory until the next one comes.
            key = text = value = result = payload = fields = context = outcome = None
            if ahead:
                now = clock()
                if now - link.looked > look_after:
                    # The job may have been called back.
                    link.look()
                    now = clock()
                    if not ahead:
                        continue
                word, key, extension, number, left, payload, came = ahead.popleft()
                if left != no_deadline:
                    left -= now - came
            elif backlog or link.alert:
                link.current = None
                link.fetch()
                watched = link.watched
                continue
            else:
                if watched:
                    link.current = None
                    link.guard.release()
                    wait()
                    link.guard.acquire()
                else:
                    wait()
                size = receive(buffer)
                length, word, key, middle, number, zero, left = unpack(buffer)
                if size == length + 40 != full and word in whole_jobs and middle <= length and not zero:
                    extension = buffer[40 : 40 + middle] if middle else b""
                    payload = buffer[40 + middle : size]
                elif size == length + 40 != full and word in call_jobs and not middle and zero in functions:
                    # The function of a call stands where the extension of another job does.
                    extension = functions[zero]
                    payload = view[40:size]
                else:
                    key = None
                    link.take(view[:size], full)
                    continue

            # The value.
            try:
                if word == json_job:
                    try:
                        text = payload.decode()
                        value, end = scan(text, 0)
                        if end != len(text) and text[end:].strip(_JSON_SPACE):
                            value = _decode_json(payload)
                    except (StopIteration, ValueError, RecursionError):
                        value = _decode_json(payload)
                elif word >> 24:
                    if calls is not None:
                        # It takes the payload out of the list, so that nobody else holds it.
                        context, value, payload = extension, [word, number, left, payload], None
                        link.told = False
                        link.current = key
                    else:
                        fields = _fields_of(extension)
                        value = _request_from(fields.get("request"), bytes(payload))
                else:
                    value = _value_of(word, payload)
                if wants_context:
                    link.told = False
                    link.current = key
                    context = make_context(fields, extension, number, left, link, key, name)
            except _Undecodable as error:
                link.send(_failure(_DECODE, detail=str(error)), key, 0)
                continue

            # The call.
            if watched:
                link.current = key
                if link.resting:
                    link.wake()
                link.guard.release()
            began = clock()
            try:
                try:
                    result = call(value) if context is None else call(value, context)
                    kind = type(result)
                    if kind is generator:
                        result = _drain(link, result, word, key, context is None and not watched)
                        kind = type(result)
                    spent = clock() - began
                finally:
                    if watched:
                        link.guard.acquire()
            except (MemoryError, _Malformed):
                raise
            except BaseException as error:
                spent = clock() - began
                if link.forked:
                    _leave_fork(error)
                outcome = _failure_of(error)
            if context is not None:
                if watched:
                    link.current = None
                else:
                    link.finish()

            # The outcome.
            if outcome is None:
                try:
                    if kind in plain:
                        word = next_json
                        payload = join(encode(result, 0)).encode()
                    elif kind is str:
                        word = next_text
                        payload = result.encode()
                    elif kind is bytes:
                        word = next_bytes
                        payload = result
                    else:
                        outcome = _outcome_or_fault(result)
                except (TypeError, ValueError, RecursionError):
                    outcome = _outcome_or_fault(result)

            # What the job printed must be in the pipes before its outcome is on its way.
            try:
                system.stdout.flush()
                system.stderr.flush()
            except Exception:
                _flush()
                if calls is not None:
                    calls.spoiled = True
            if calls is not None:
                spent, printed = calls.end(spent, watched)
                if printed:
                    outcome = _with_printed(outcome or (word, 0, b"", payload), printed)
            if outcome is not None:
                link.send(outcome, key, spent)
            elif len(payload) > part_limit:
                link.send((word, 0, b"", payload), key, spent)
            else:
                send(pack(len(payload), word, key, 0, 0, 0, spent) + payload)
    except MemoryError as error:
        message = _text_of(error)
    except _NodeGone:
        return 0
    except _Malformed as error:
        _complain(f"the node sent {error}")
        return 2
    except OSError as error:
        if link.forked:
            _leave_fork(None)
        if not isinstance(error, ConnectionError):
            _complain(f"the connection to the node broke: {error}")
        return 0
    # By now the traceback of the MemoryError is gone, and with it what the function held.
    text = value = result = payload = fields = context = outcome = None
    link.current = None
    _flush()
    try:
        printed = b"" if calls is None else calls.end(0, watched)[1]
    except MemoryError:
        printed = b""
    link.send_memory(key or link.unfinished_job, message, printed)
    return 1


def _serve_batches(link: _Link, call: Callable[..., Any], wants_context: bool, name: str) -> int:
    """Do batches of jobs until the node ends it, and return the exit code."""
    # The jobs of the batch at hand that have no outcome yet.
    keys: deque[bytes] = deque()
    try:
        while True:
            _do_batch(link, call, wants_context, name, keys)
    except MemoryError as error:
        message = _text_of(error)
    except _NodeGone:
        return 0
    except _Malformed as error:
        _complain(f"the node sent {error}")
        return 2
    except OSError as error:
        if link.forked:
            _leave_fork(None)
        if not isinstance(error, ConnectionError):
            _complain(f"the connection to the node broke: {error}")
        return 0
    # By now the traceback of the MemoryError is gone. The oldest job counts as the one that took the memory; the node
    # takes the others for lost.
    _flush()
    link.send_memory(keys[0] if keys else link.unfinished_job, message)
    return 1


def _do_batch(link: _Link, call: Callable[..., Any], wants_context: bool, name: str, keys: deque[bytes]) -> None:
    """Wait for a batch, do it, and send an outcome for each of its jobs."""
    values: list[Any] = []
    contexts: list[Context] = []
    for job in link.next_batch():
        keys.append(job[1])
        try:
            value, context = _opened(link, job, name)
        except _Undecodable as error:
            link.send(_failure(_DECODE, detail=str(error)), keys.pop(), 0)
            continue
        values.append(value)
        contexts.append(context)
    if not keys:
        return
    # A watch is never there, so until the call only this thread looks at the socket.
    link.at_hand = {key: _Hold() for key in keys}
    try:
        outcomes, spent = _run_batch(link, call, (values, contexts) if wants_context else (values,), len(keys))
    finally:
        with link.guard:
            link.at_hand = {}
    # What the batch printed must be in the pipes before its outcomes are on their way.
    _flush()
    frames: list[bytes] = []
    for outcome in outcomes:
        key = keys[len(frames)]
        word, number, extension, payload = outcome
        if len(payload) <= _PART_LIMIT:
            frames.append(_frame(word, key, extension, payload, number, spent))
            continue
        _send_frames(link, frames, keys)
        link.send(outcome, key, spent)
        keys.popleft()
    _send_frames(link, frames, keys)


def _send_frames(link: _Link, frames: list[bytes], keys: deque[bytes]) -> None:
    """Send the outcomes of the oldest jobs in one piece, and forget both."""
    link.socket.sendall(b"".join(frames))
    for _ in frames:
        keys.popleft()
    frames.clear()


def _opened(link: _Link, job: _Job, name: str) -> tuple[Any, Context]:
    """Return the value and the context of a job of a batch."""
    word, key, extension, number, left, payload, came = job
    assert not isinstance(extension, _Function)
    fields: Optional[dict[str, Any]] = None
    if word >> 24:
        fields = _fields_of(extension)
        value: Any = _request_from(fields.get("request"), bytes(payload))
    else:
        value = _value_of(word, payload)
    if left != _NO_DEADLINE:
        left -= time.perf_counter_ns() - came
    return value, Context._of_job(fields, extension, number, left, link, key, name)


def _run_batch(
    link: _Link, call: Callable[..., Any], arguments: tuple[Any, ...], count: int
) -> tuple[list[_Outcome], int]:
    """Call the function once; return an outcome for each value, and the time that it took."""
    began = time.perf_counter_ns()
    try:
        results = call(*arguments)
        if type(results) is GeneratorType:
            results = list(results)
        spent = time.perf_counter_ns() - began
    except (MemoryError, _Malformed):
        raise
    except BaseException as error:
        spent = time.perf_counter_ns() - began
        if link.forked:
            _leave_fork(error)
        return [_failure_of(error)] * count, spent
    if link.forked:
        _leave_fork(None)
    if not isinstance(results, (list, tuple)):
        what = f"not this {_type_name(type(results))}"
        if inspect.iscoroutine(results):
            results.close()
    elif len(results) != count:
        what = f"not of {len(results)}"
    else:
        return [
            _failure_of(result) if isinstance(result, BaseException) else _outcome_or_fault(result)
            for result in results
        ], spent
    detail = f"a batch of {count} needs a list of {count} results, {what}"
    return [_failure(_ENCODE, detail=detail, place="result")] * count, spent


def _serve_threads(link: _Link, call: Callable[..., Any], wants_context: bool, name: str, most: int) -> NoReturn:
    """Read for up to `most` threads that do jobs, until the node ends it, and leave."""
    from queue import SimpleQueue

    # The quick encoder is for one thread at a time.
    globals()["_encode"] = _encode_alone
    jobs: SimpleQueue[_Job] = SimpleQueue()
    threads = 0
    readable = select.poll()
    readable.register(link.socket, select.POLLIN)
    link.reader = get_ident()
    code, message = 0, ""
    try:
        while not link.ended:
            # At the end of the last job there is nothing to read.
            readable.poll(_TICK * 1000 if link.leaving else None)
            with link.guard:
                for job in link.next_jobs():
                    if threads < min(len(link.at_hand), most):
                        threads += _start_thread(threads + 1, (link, call, wants_context, name, jobs))
                    jobs.put(job)
        with link.guard:
            link.end_all()
        while link.at_hand:
            time.sleep(_TICK)
    except _NodeGone:
        code = 0
    except _Malformed as error:
        _complain(f"the node sent {error}")
        code = 2
    except MemoryError as error:
        message = _text_of(error)
        code = 1
    _end_threads(link, code, link.unfinished_job, message)


def _start_thread(number: int, arguments: tuple[Any, ...]) -> bool:
    """Start a thread that does jobs, and say whether there is one more now; the first has to be."""
    try:
        threading.Thread(target=_work, args=arguments, name=f"evener-{number}", daemon=True).start()
    except RuntimeError as error:
        if number == 1:
            raise MemoryError(str(error)) from None
        return False
    return True


def _work(link: _Link, call: Callable[..., Any], wants_context: bool, name: str, jobs: SimpleQueue[_Job]) -> NoReturn:
    """Do jobs, as one of several threads."""
    key: Optional[bytes] = None
    message = ""
    try:
        while True:
            job = jobs.get()
            key = job[1]
            try:
                _do_in_thread(link, call, wants_context, name, job)
            except OSError:
                if link.forked:
                    _leave_fork(None)
                # The node is gone, which the reader sees too; the other threads may still tidy up.
            del job
    except MemoryError as error:
        message = _text_of(error)
        code = 1
    except _Malformed as error:
        _complain(f"the node sent {error}")
        code = 2
    # By now the traceback of the MemoryError is gone, and with it what the function held.
    _end_threads(link, code, key, message)


def _end_threads(link: _Link, code: int, key: Optional[bytes], message: str) -> NoReturn:
    """Leave, whatever the other threads do; with code 1 for want of memory, which the job of this key had."""
    _flush()
    # For good: no outcome follows BYE, and only one thread leaves.
    link.guard.acquire()
    try:
        if code == 1:
            link.send_memory(key, message)
    except OSError:
        code = 0
    _leave(code)


def _do_in_thread(link: _Link, call: Callable[..., Any], wants_context: bool, name: str, job: _Job) -> None:
    """Do one of several jobs, and bring its outcome."""
    word, key = job[0], job[1]
    hold = link.at_hand[key]
    outcome: Optional[_Outcome] = None
    spent = 0
    if hold.told:
        # While it waited for its thread.
        outcome = _failure(_CANCELLED)
    else:
        try:
            value, context = _opened(link, job, name)
        except _Undecodable as error:
            outcome = _failure(_DECODE, detail=str(error))
    del job
    if outcome is None:
        began = time.perf_counter_ns()
        try:
            result = call(value, context) if wants_context else call(value)
            if type(result) is GeneratorType:
                result = _drain(link, result, word, key, False)
            spent = time.perf_counter_ns() - began
        except (MemoryError, _Malformed):
            raise
        except BaseException as error:
            spent = time.perf_counter_ns() - began
            if link.forked:
                _leave_fork(error)
            outcome = _failure_of(error)
        else:
            outcome = _outcome_or_fault(result)
    # What the job printed had better be in the pipes before its outcome is on its way.
    _flush()
    link.bring(None if link.ended else outcome, key, spent)


class _Tasks:
    """Jobs that are tasks of one loop."""

    def __init__(
        self, link: _Link, call: Callable[..., Any], wants_context: bool, name: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._link = link
        self._call = call
        self._wants_context = wants_context
        self._name = name
        self._loop = loop
        # How it ends: the exit code, and for want of memory the job that had it, and what was said.
        self._end: Optional[tuple[int, Optional[bytes], str]] = None

    def serve(self) -> NoReturn:
        """Do jobs until the node ends it, and leave."""
        link, loop = self._link, self._loop
        link.reader = get_ident()
        link.hold = _Task
        link.stirred = lambda: loop.call_soon(self._read)
        loop.add_reader(link.socket, self._read)
        while self._end is None:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # Out of a task that user code made, and that has it as its result. It does not end the worker.
                continue
        _end_threads(link, *self._end)

    def _stop(self, code: int, key: Optional[bytes] = None, message: str = "") -> None:
        if self._end is None:
            self._end = code, key, message
        self._loop.stop()

    def _read(self) -> None:
        """Begin the jobs that have come."""
        link = self._link
        message = None
        try:
            with link.guard:
                jobs = link.next_jobs()
                for job in jobs:
                    hold = link.at_hand[job[1]]
                    # Only once it has begun a task can be cancelled: before, nothing of it would run at all.
                    self._loop.create_task(self._run(job, hold))
                if link.ended:
                    self._loop.remove_reader(link.socket)
                    link.end_all()
        except _NodeGone:
            self._stop(0)
        except _Malformed as error:
            _complain(f"the node sent {error}")
            self._stop(2)
        except MemoryError as error:
            message = _text_of(error)
        if message is not None:
            self._stop(1, link.unfinished_job, message)
        elif link.ended and not link.at_hand:
            self._stop(0)

    async def _run(self, job: _Job, hold: Any) -> None:
        """Do one job, whatever becomes of it."""
        import asyncio

        link, key = self._link, job[1]
        message = None
        hold.task = asyncio.current_task()
        try:
            await self._do(job, hold)
        except MemoryError as error:
            message = _text_of(error)
        except _Malformed as error:
            _complain(f"the node sent {error}")
            self._stop(2)
        except OSError:
            if link.forked:
                _leave_fork(None)
            # The node is gone, which reading shows too.
        if message is not None:
            self._stop(1, key, message)
        elif not link.at_hand and (link.leaving or link.ended):
            self._read()

    async def _do(self, job: _Job, hold: Any) -> None:
        import asyncio

        link, word, key = self._link, job[0], job[1]
        outcome: Optional[_Outcome] = None
        spent = 0
        if hold.told:
            outcome = _failure(_CANCELLED)
        else:
            try:
                value, context = _opened(link, job, self._name)
            except _Undecodable as error:
                outcome = _failure(_DECODE, detail=str(error))
        if outcome is None:
            began = time.perf_counter_ns()
            try:
                result = self._call(value, context) if self._wants_context else self._call(value)
                if inspect.isawaitable(result):
                    result = await result
                if inspect.isasyncgen(result) or type(result) is GeneratorType:
                    result = await self._drain(result, word, key, hold)
                spent = time.perf_counter_ns() - began
            except (MemoryError, _Malformed):
                raise
            except BaseException as error:
                spent = time.perf_counter_ns() - began
                if link.forked:
                    _leave_fork(error)
                told = hold.told and isinstance(error, asyncio.CancelledError)
                outcome = _failure(_CANCELLED) if told else _failure_of(error)
            else:
                outcome = _outcome_or_fault(result)
        hold.task = None
        _flush()
        link.bring(None if link.ended else outcome, key, spent)

    async def _drain(self, items: Any, word: int, key: bytes, hold: Any) -> Any:
        """Send what a generator yields as chunks, or make a list of it if the job is not to be streamed."""
        import asyncio

        if type(items) is GeneratorType:
            items = _in_turn(items)
        streams = word & _STREAM << 8
        kept: list[Any] = []
        count = 0
        rested = time.perf_counter_ns()
        try:
            async for item in items:
                if time.perf_counter_ns() - rested > _LOOK_AFTER:
                    # It may never wait for anything by itself.
                    await asyncio.sleep(0)
                    rested = time.perf_counter_ns()
                if streams:
                    for content, piece in _pieces_of(_yielded(item, count), f"item[{count}]"):
                        await self._send_chunk(content, piece, key, hold)
                    count += 1
                else:
                    kept.append(_yielded(item, len(kept)))
        except BaseException:
            if not self._link.forked:
                await _close_async(items)
            raise
        return _Made((_word(_OUTCOME, _NOTHING, _END), 0, b"", b"")) if streams else kept

    async def _send_chunk(self, content: int, payload: Union[bytes, memoryview], key: bytes, hold: Any) -> None:
        """Send a chunk once the client has taken enough of those before it."""
        while hold.owed >= _WINDOW:
            hold.room = self._loop.create_future()
            try:
                await hold.room
            finally:
                hold.room = None
        with self._link.guard:
            hold.owed += len(payload)
            self._link.send((_word(_CHUNK, content), 0, b"", payload), key, 0)


async def _in_turn(items: Generator[Any, Any, Any]) -> AsyncIterator[Any]:
    """Give what a plain generator yields."""
    try:
        for item in items:
            yield item
    finally:
        items.close()


async def _close_async(items: Any) -> None:
    """Let an async generator clean up. The job has failed already: what goes wrong here is only told."""
    try:
        await items.aclose()
    except (MemoryError, _Malformed):
        raise
    except BaseException as error:
        _complain(f"closing a generator failed\n{_traceback_of(error)}")


def _fields_of(extension: Union[bytes, bytearray]) -> dict[str, Any]:
    if not extension:
        return {}
    try:
        text = extension.decode()
        fields, end = _scan(text, 0)
        if end != len(text):
            fields = _DECODER.decode(text)
    except StopIteration:
        raise _Malformed("an extension that is not JSON") from None
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"an extension that is not JSON: {error}") from None
    if type(fields) is not dict:
        raise _Malformed("an extension that is not an object")
    return fields


def _value_of(word: int, payload: Union[bytes, bytearray]) -> Any:
    """Decode the value of a JOB by its content code."""
    content = word >> 16 & 0xFF
    if content == _NOTHING:
        if payload:
            raise _Malformed("a JOB without content that has a payload")
        return None
    if content == _JSON:
        return _decode_json(payload)
    if content == _TEXT:
        return _decode_text(payload)
    return bytes(payload)


def _drain(link: _Link, items: Generator[Any, Any, Any], word: int, key: bytes, alone: bool) -> Any:
    """Send what a generator yields as chunks, or make a list of it if the job is not to be streamed.

    `alone` says that nobody else has noted the job as the one at hand.
    """
    streams = word & _STREAM << 8
    kept: list[Any] = []
    count = 0
    link.owed = 0
    # There if the job is one of several; then somebody else reads.
    hold = link.at_hand.get(key)
    if alone:
        link.begin(key)
    try:
        for item in items:
            if hold is not None:
                if hold.told:
                    raise Cancelled
            elif time.perf_counter_ns() - link.looked > _LOOK_AFTER:
                link.heed(key)
            if streams:
                for content, piece in _pieces_of(_yielded(item, count), f"item[{count}]"):
                    link.send_chunk(content, piece, key)
                count += 1
            else:
                kept.append(_yielded(item, len(kept)))
    except BaseException:
        if not link.forked:
            _close(items)
        raise
    finally:
        if alone:
            link.finish()
    return _Made((_word(_OUTCOME, _NOTHING, _END), 0, b"", b"")) if streams else kept


def _yielded(item: Any, number: int) -> Any:
    """Give an item as it is; raise _Unsendable if it is one that has to be returned."""
    if getattr(type(item), "__evener__", None) in ("response", "goto"):
        name = _type_name(type(item))
        detail = f"{name} cannot be yielded; let a function without `yield` return it, or else return the generator"
        raise _Unsendable(f"item[{number}]", detail)
    return item


def _pieces_of(item: Any, place: str) -> Iterator[tuple[int, Union[bytes, memoryview]]]:
    """Cut large text and bytes into chunks, so that the credit holds for them too; text between characters."""
    content, payload = _to_payload(item, place)
    if content == _JSON or len(payload) <= _PART_LIMIT:
        yield content, payload
        return
    start, size = 0, len(payload)
    view = memoryview(payload)
    while start < size:
        end = min(start + _PART_LIMIT, size)
        if content == _TEXT:
            while end < size and payload[end] & 0xC0 == 0x80:
                end -= 1
        yield content, view[start:end]
        start = end


def _close(items: Generator[Any, Any, Any]) -> None:
    """Let a generator clean up. The job has failed already: what goes wrong here is only told."""
    try:
        items.close()
    except (MemoryError, _Malformed):
        raise
    except BaseException as error:
        _complain(f"closing a generator failed\n{_traceback_of(error)}")


def _outcome_or_fault(result: Any) -> _Outcome:
    """Make the outcome of a result, or the failure that says why it cannot travel."""
    _markers.clear()
    try:
        return _outcome_of(result)
    except _Unsendable as error:
        if inspect.iscoroutine(result):
            # Else Python warns that nobody awaited it, on top of the failure that says the same.
            result.close()
        return _failure(_ENCODE, detail=str(error), place=error.place)
    except MemoryError:
        raise
    except Exception as error:
        # The result's own code, such as a property of a class derived from Response.
        return _failure(_ENCODE, detail=_one_line(error), place="result")


def _leave_fork(error: Optional[BaseException]) -> NoReturn:
    """End a process that user code forked and that came back out of the job: the outcome is not its to send."""
    code = 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        _complain(f"a process forked by the job failed\n{_traceback_of(error)}")
    else:
        _complain("a process forked by the job came out of the job; end it with os._exit or sys.exit")
    _flush()
    os._exit(code)


# --------------------------------------------------------------------------------------------------------------------
# Starting
# --------------------------------------------------------------------------------------------------------------------


class _CannotStart(Exception):
    """The target is not what a worker can run; the message says why and what to do."""


class _Target(NamedTuple):
    """What a stage runs."""

    call: Callable[..., Any]
    wants_context: bool
    # For async functions.
    loop: Optional[asyncio.AbstractEventLoop]


def _load(target: str, folder: str, way: str) -> _Target:
    """Import the target and warm it up for this way of doing jobs."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise _CannotStart(f"{target!r} names no target; write MODULE:ATTRIBUTE, such as primes:compute")
    try:
        # Unlike importlib.import_module this leaves the import system's own frames out of tracebacks.
        __import__(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        files = [name[:-3] for name in _names_in(folder) if name.endswith(".py")]
        hint = _similar(module_name, files)
        raise _CannotStart(f"{_one_line(error)} (looked in {folder} first{hint})") from error
    module = sys.modules[module_name]
    found: Any = module
    for step in attribute.split("."):
        if not hasattr(found, step):
            raise _CannotStart(_missing(target, found, step))
        found = getattr(found, step)
    if not callable(found):
        raise _CannotStart(f"{target} is a {_type_name(type(found))}; a target is a function or a class with __call__")
    loop = None
    if _is_async(target, found, way):
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    call = _made(target, found, loop) if isinstance(found, type) else found
    return _Target(call, _wants_context(target, call), loop)


def _is_async(target: str, found: Any, way: str) -> bool:
    """Say whether a target is an async function, a generator or not; raise _CannotStart if it does not go that way."""
    if isinstance(found, type):
        functions = [inspect.getattr_static(found, "__call__", None)]
    else:
        functions = [found, inspect.getattr_static(type(found), "__call__", None)]
    if way == "--concurrency":
        # A decorator may be a plain function around an async one.
        functions += [inspect.unwrap(function) for function in functions if callable(function)]
    found_async = any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)
    if way == "--concurrency" and not found_async:
        raise _CannotStart(
            f"{target} is no async function, which `concurrency` is for; use `threads` in its place, or an async def"
        )
    if way == "--threads" and found_async:
        raise _CannotStart(f"{target} is an async function, which needs no `threads`; use `concurrency` in their place")
    if way == "--batch" and found_async:
        raise _CannotStart(f"{target} is an async function, which cannot do a `batch`; use a plain def")
    return found_async


def _loaded_from(folder: str) -> list[str]:
    """Return the files of the modules that were loaded from under a folder: the node may watch them for changes."""
    inside = os.path.join(folder, "")
    own = os.path.abspath(__file__)
    found: set[str] = set()
    for module in list(sys.modules.values()):
        # Whatever is in there: a module may answer for names that it does not have.
        named = module.__dict__.get("__file__") if isinstance(module, ModuleType) else None
        if not isinstance(named, str):
            continue
        path = os.path.abspath(named)
        if path.startswith(inside) and path != own:
            try:
                path.encode()
            except UnicodeEncodeError:
                continue
            found.add(path)
    files: list[str] = []
    room = _FILES_LIMIT
    # What is installed in the folder comes last, if there is too much.
    for path in sorted(found, key=lambda path: ("site-packages" in path, path))[:_FILES]:
        room -= len(json.dumps(path, ensure_ascii=False).encode()) + 2
        if room < 0:
            break
        files.append(path)
        _forget_compiled(path)
    return files


# How old a file is at least that can be told from what it becomes when it is changed, by the second of its change.
_TOLD_APART = 2.0


def _forget_compiled(path: str) -> None:
    """Remove what Python has kept of a file that was written just now.

    What is kept counts for as long as the file has the same size and was changed in the same second: a change right
    after this one would not be seen by the worker that is started for it.
    """
    try:
        if time.time() - os.stat(path).st_mtime < _TOLD_APART:
            os.unlink(importlib.util.cache_from_source(path))
    except (OSError, NotImplementedError):
        # Nothing is kept of it, as of most files, or it is gone.
        pass


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _similar(name: str, names: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _missing(target: str, holder: Any, step: str) -> str:
    names = [name for name in vars(holder) if not name.startswith("_")] if hasattr(holder, "__dict__") else []
    hint = _similar(step, names)
    if not hint:
        offers = [name for name in names if callable(getattr(holder, name, None))]
        hint = f"; it has {', '.join(sorted(offers)[:10])}" if offers else "; it defines no functions"
    if isinstance(holder, ModuleType):
        return f"{target}: module {holder.__name__} ({getattr(holder, '__file__', 'built in')}) has no {step!r}{hint}"
    return f"{target}: {_type_name(type(holder))} has no {step!r}{hint}"


def _made(target: str, kind: type, loop: Optional[asyncio.AbstractEventLoop]) -> Callable[..., Any]:
    """Make the one instance of a stateful worker; this is its warm-up, in the loop if there is one."""
    if not any("__call__" in base.__dict__ for base in kind.__mro__):
        raise _CannotStart(f"{target} is a class without __call__; give it a method __call__(self, value)")
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise _CannotStart(f"{target} is a class that needs arguments ({error}); it is made without any") from None
    except ValueError:
        # Some built-in classes have no signature; making an instance shows what they take.
        pass
    if loop is None:
        made = kind()
    else:
        made, failure = loop.run_until_complete(_make_in_loop(kind))
        if failure is not None:
            raise failure
    call: Callable[..., Any] = made.__call__
    return call


async def _make_in_loop(kind: type) -> tuple[Any, Optional[BaseException]]:
    """Make an instance where the loop runs; what is raised is returned, without the loop's own frames."""
    try:
        return kind(), None
    except BaseException as error:
        return None, error


def _wants_context(target: str, function: Callable[..., Any]) -> bool:
    """Say whether a target takes a second argument; raise _CannotStart if it takes none, or needs more.

    What is called is a decorator's wrapper, and its own parameters count, whatever it wraps. One that passes on
    whatever it gets has those of what it wraps, and may add to them.
    """
    signature, passes_on = _signature_of_call(function)
    if signature is None:
        return False
    places: list[inspect.Parameter] = []
    anything = False
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            places.append(parameter)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            anything = True
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and not passes_on:
            raise _CannotStart(
                f"{target}{signature} needs the keyword {parameter.name!r}; a target takes (value) or (value, ctx)"
            )
    needed = sum(parameter.default is parameter.empty for parameter in places)
    if passes_on:
        return needed == 2 or (len(places) > 1 and places[1].name in ("ctx", "context"))
    if not places and not anything:
        raise _CannotStart(f"{target}{signature} takes no argument; a target takes (value) or (value, ctx)")
    if needed > 2:
        raise _CannotStart(f"{target}{signature} needs {needed} arguments; a target takes (value) or (value, ctx)")
    # A second argument with a default is the function's own business, unless it is called what a context is called.
    return needed == 2 or (len(places) > 1 and places[1].name in ("ctx", "context"))


def _signature_of_call(function: Any) -> tuple[Optional[inspect.Signature], bool]:
    """Return what parameters a call of it meets, without `self`, and whether they are of something that is wrapped."""
    passes_on = bound = False
    # What answers to every name wraps something for ever, and so does what wraps itself.
    for _ in range(sys.getrecursionlimit()):
        called, inner, inner_is_bound = function, getattr(function, "__wrapped__", None), bound
        call = inspect.getattr_static(type(function), "__call__", None)
        if isinstance(function, functools.partial):
            inner = getattr(function.func, "__wrapped__", None)
            if inner is not None:
                inner = functools.partial(inner, *function.args, **function.keywords)
        elif inspect.ismethod(function):
            called, bound, inner_is_bound = function.__func__, True, True
        elif isinstance(call, FunctionType):
            # An instance: its class's method is called, and either of them may wrap something.
            called, bound = call, True
            if hasattr(call, "__wrapped__"):
                inner, inner_is_bound = call.__wrapped__, True
        try:
            signature = inspect.signature(called, follow_wrapped=False)
        except (TypeError, ValueError):
            return None, passes_on
        if inner is None or not _takes_anything(signature):
            return (_without_self(signature) if bound else signature), passes_on
        function, bound, passes_on = inner, inner_is_bound, True
    return None, False


def _takes_anything(signature: inspect.Signature) -> bool:
    """Say whether it takes any number of arguments."""
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values())


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    """Leave out the first parameter, if it is one by itself."""
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        del parameters[0]
    return signature.replace(parameters=parameters)


def _ignore_interrupt(_number: int, _frame: object) -> None:
    """Ctrl-C is for the node, which tells its workers. A handler, unlike SIG_IGN, is not passed on to subprocesses."""


def _settle_process(folders: list[str], search: list[str], by_lines: bool) -> None:
    """Give user code a tidy process: paths, arguments, signals and streams, which may write line by line."""
    if search:
        sys.path[:] = search
    elif not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
        # The folder of this file, which Python puts there.
        del sys.path[0]
    sys.path[:0] = folders
    del sys.argv[1:]
    signal.signal(signal.SIGINT, _ignore_interrupt)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            # Were each piece of a line on its way by itself, the lines of calls that print at the same time would mix.
            # Lines of stages are put together by the node.
            through = not by_lines
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=through)


def _connect() -> socket.socket:
    connection = socket.socket(fileno=3)
    connection.set_inheritable(False)
    # The node may have left its own settings on the descriptor.
    connection.setblocking(True)
    return connection


_USAGE = """\
usage: python _worker.py MODULE:ATTRIBUTE [--path DIR] [--batch | --threads N | --concurrency N]
       python _worker.py --functions [--path DIR]... [--sys-path DIR]..."""


class _Arguments(NamedTuple):
    """What the command line says."""

    # "" for functions.
    target: str
    folders: list[str]
    # What takes the place of the path.
    search: list[str]
    # How jobs are done, "", "--batch", "--threads" or "--concurrency", and how many at the same time.
    way: str
    most: int


def _arguments(arguments: list[str]) -> _Arguments:
    """Understand the command line; raise ValueError if it is not what it should be."""
    found: dict[str, list[str]] = {"--path": [], "--sys-path": [], "--threads": [], "--concurrency": []}
    targets: list[str] = []
    ways: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--batch":
            ways.append(word)
        elif name in found:
            found[name].append(value if equals else next(words, ""))
        else:
            targets.append(word)
    folders, search, *numbers = found.values()
    ways += [way for way in ("--threads", "--concurrency") if found[way]]
    counts = [count for given in numbers for count in given]
    if targets == ["--functions"] and not ways:
        return _Arguments("", [os.path.abspath(folder) for folder in folders], search, "", 1)
    if len(targets) != 1 or targets[0].startswith("-") or search or len(ways) > 1:
        raise ValueError(_USAGE)
    if not all(re.fullmatch("[1-9][0-9]{0,5}", count) for count in counts):
        raise ValueError(_USAGE)
    folder = os.path.abspath((folders or ["."])[-1])
    return _Arguments(targets[0], [folder], [], "".join(ways), int((counts or ["1"])[-1]))


def _main(arguments: list[str]) -> NoReturn:
    # Once it has seen a block of this size come and go, the C library keeps the memory of a large job for the next one.
    # Fetching it anew from the system each time costs twice as much as all that is done with it.
    bytes(_LARGE_BLOCK)
    try:
        target, folders, search, way, most = _arguments(arguments)
        link = _Link(_connect())
        # No credit where several jobs are at hand: a batch, or what has its thread, is all that waits.
        link.generous = not way
        if way == "--batch":
            link.batches, link.unknown = True, 0xFE00 & ~(_BATCH << 8)
    except (OSError, ValueError) as error:
        what = "" if isinstance(error, ValueError) else "descriptor 3 must be the socket to a node: "
        _complain(f"{what}{error}")
        _flush()
        sys.exit(2)
    calls: Optional[_Calls] = None
    wants_context = False
    loop = None
    try:
        if target:
            _settle_process(folders, search, by_lines=False)
            _offer_package()
            call, wants_context, loop = _load(target, folders[0], way)
            link.generous = link.generous and loop is None
        else:
            calls = _Calls(link)
            call = calls.run
            _settle_process(folders, search, by_lines=True)
            _settle_names(calls)
            calls.warm_up()
    except BaseException as error:
        if link.forked:
            _leave_fork(error)
        if isinstance(error, _CannotStart):
            _complain(f"cannot start: {error}")
            text = " ".join(str(error).split())
        else:
            _complain(f"cannot start\n{_traceback_of(error)}")
            text = _one_line(error)
        _flush()
        _send_once(link, _word(_BYE), {"error": _cut(text, _DETAIL_LIMIT)})
        _leave(1)
    _flush()
    version = ".".join(map(str, sys.version_info[:3]))
    runtime = f"{'python' if sys.implementation.name == 'cpython' else sys.implementation.name} {version}"
    fields = {"protocol": _PROTOCOL, "runtime": runtime, "context": wants_context}
    if calls is None:
        # What a batch returns is one value for each job.
        fields["stream"] = way != "--batch"
        fields["files"] = _loaded_from(folders[0])
    else:
        fields.update(functions=True, python=".".join(map(str, sys.version_info[:2])))
    _send_once(link, _word(_READY), fields)
    try:
        if way == "--batch":
            code = _serve_batches(link, call, wants_context, target)
        elif way == "--threads":
            _serve_threads(link, call, wants_context, target, most)
        elif loop is not None:
            _Tasks(link, call, wants_context, target, loop).serve()
        else:
            code = _serve(link, call, wants_context, target, calls)
    except OSError:
        code = 1
    _leave(code)


def _send_once(link: _Link, word: int, fields: dict[str, Any]) -> None:
    try:
        link.socket.sendall(_frame(word, _NO_KEY, json.dumps(fields, ensure_ascii=False).encode()))
    except OSError:
        # The node is gone, which reading will show too.
        return


if __name__ == "__main__":
    _main(sys.argv[1:])
