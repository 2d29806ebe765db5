"""Exceptions from the other side: what a function raised there, or what the engine says of a call."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from types import SimpleNamespace, TracebackType
from typing import Any

from evener import _errors

_RAISED = 2

# Errors of the worker's runtime itself travel under these names.
_OWN: dict[str, type[_errors.EvenerError]] = {
    "evener.SerializationError": _errors.SerializationError,
    "evener.InitializerFailed": _errors.InitializerFailed,
}

_OF_CODE: dict[str, type[_errors.EvenerError]] = {
    "worker-died": _errors.WorkerDied,
    "stage-timeout": _errors.CallTimeout,
    "deadline-exceeded": _errors.CallTimeout,
    "stage-broken": _errors.PoolUnavailable,
    "unknown-pool": _errors.UnknownPool,
    "python-mismatch": _errors.PythonMismatch,
    "engine-lost": _errors.EngineLost,
    "session-closed": _errors.EngineLost,
    "draining": _errors.EngineLost,
    "unauthorized": _errors.AuthenticationError,
}


def exception_of(blob: bytes) -> BaseException:
    """Make of an exception blob the exception that it describes.

    Its chain of causes and contexts comes along, each with its traceback, and the text of the remote traceback stands
    as the cause behind the last of them, so that it shows wherever the exception does.
    """
    try:
        fields: dict[str, Any] = pickle.loads(blob)
        nodes: list[dict[str, Any]] = fields["chain"]
        text: str = fields["traceback"]
        chain = [_single(node, text if place == 0 else "") for place, node in enumerate(nodes)]
        first = chain[0]
    except Exception as error:  # noqa: BLE001 (the blob is another program's word)
        return _errors.SerializationError(f"the worker's account of an exception cannot be read: {error!r}")
    _tie(chain, nodes)
    _hint(first)
    if text:
        _last(first).__cause__ = _errors.RemoteTraceback(text)
    return first


def _single(node: dict[str, Any], text: str) -> BaseException:
    """Make one exception of the chain, as yet without the others."""
    error: BaseException | None = None
    why: str = node.get("why") or ""
    own = _OWN.get(node["type"])
    if own is not None:
        error = own(node["message"])
    elif node["pickled"] is not None:
        try:
            loaded = pickle.loads(node["pickled"])
            if isinstance(loaded, BaseException):
                error = loaded
            else:
                why = f"it comes out of pickle as a {type(loaded).__name__}"
        except Exception as failure:  # noqa: BLE001 (unpickling runs code of any kind)
            why = f"{type(failure).__name__}: {failure}"
    if error is None:
        error = _errors.RemoteError(node["type"], node["message"], text, why)
    trace = _traceback(node.get("frames"))
    if trace is not None:
        error.__traceback__ = trace
    return error


def _traceback(frames: dict[str, Any] | None) -> TracebackType | None:
    """Make a real traceback of the frames; None if there are none."""
    if not frames:
        return None
    links = []
    link: dict[str, Any] | None = frames
    while link:
        links.append(link)
        link = link["tb_next"]
    # What tblib reads of a traceback. Its own `from_dict` takes the square of the length.
    trace: SimpleNamespace | None = None
    for link in reversed(links):
        frame = link["tb_frame"]
        code = SimpleNamespace(**frame["f_code"])
        shown = SimpleNamespace(f_globals=frame["f_globals"], f_locals={}, f_code=code, f_lineno=frame["f_lineno"])
        trace = SimpleNamespace(tb_frame=shown, tb_lineno=link["tb_lineno"], tb_next=trace)
    try:
        return next(_made_by_tblib(trace))
    except Exception:  # noqa: BLE001 (the text of the traceback is there in any case)
        return None


def _made_by_tblib(trace: SimpleNamespace | None) -> Iterator[TracebackType | None]:
    # The frames that tblib makes hold the frame that called it, and so on to the bottom of the stack, with all that is
    # in their variables. A generator that rests is nobody's callee, so there the chain ends.
    from tblib import Traceback  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 (few need it)

    yield Traceback(trace).as_traceback()


def _tie(chain: list[BaseException], nodes: list[dict[str, Any]]) -> None:
    for error, node in zip(chain, nodes):
        for place, link in (("__cause__", node["cause"]), ("__context__", node["context"])):
            # Tying an exception to itself is an endless loop in CPython before 3.9.6.
            if link is not None and 0 <= link < len(chain) and chain[link] is not error:
                setattr(error, place, chain[link])
        error.__suppress_context__ = bool(node["suppress"])


def _hint(error: BaseException) -> None:
    """Say what can be done about a module that is here, and not there."""
    if isinstance(error, ModuleNotFoundError) and error.name and hasattr(error, "add_note"):
        first = error.name.partition(".")[0]
        if first in sys.modules and first not in sys.builtin_module_names:
            error.add_note(
                "Functions of modules are imported by name in the workers, whose sys.path is as it was when the engine "
                f"started. If they cannot import {first!r}, send it along: @evener.function(by_value=[{first!r}])."
            )


def _last(error: BaseException) -> BaseException:
    """Return the exception that stands behind all others, as tracebacks are shown."""
    seen = {id(error)}
    while True:
        behind = error.__cause__
        if behind is None and not error.__suppress_context__:
            behind = error.__context__
        if behind is None or id(behind) in seen:
            return error
        seen.add(id(behind))
        error = behind


def failure_of(event: tuple[Any, ...]) -> BaseException:
    """Make the exception for the event of a call that ended without a value (see `evener._bridge`)."""
    if event[1] == _RAISED:
        return exception_of(event[2])
    _number, _kind, code, detail, certificate, _retryable, _worker, _tries = event
    if code == "cancelled":
        return CancelledError(detail)
    error = _OF_CODE.get(code, _errors.EvenerError)(detail or code)
    error.code = code
    if isinstance(error, _errors.WorkerDied):
        error.certificate = certificate
    return error


def unreadable(name: str, error: BaseException) -> _errors.SerializationError:
    """Make the exception for a result that does not unpickle in this process."""
    made = _errors.SerializationError(
        f"the result of {name!r} cannot be unpickled here: {type(error).__name__}: {error}. "
        "What a function returns must be importable in the process that called it"
    )
    made.__cause__ = error
    return made
