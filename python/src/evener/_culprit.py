"""Finds what in a function or an argument cannot be pickled, or is large, and says so in a sentence.

Pickling alone says that it cannot pickle a lock, and not that the lock is the global variable ``cache`` of the function
that was to be sent. So the parts are tried one by one, from the outside in.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from evener._pickling import name_of

Dumps = Callable[[object], bytes]

# How many parts are tried at most, and how deep.
_TRIES = 2_000
_DEPTH = 12

# The instructions that read a variable which is not the function's own.
_READS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"))

_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("lock", "RLock", "Condition", "Semaphore", "Event", "Thread", "_local", "Queue", "SimpleQueue", "Future"),
        "it belongs to the threads of this process; make one inside the function if the function needs one",
    ),
    (("generator", "async_generator", "coroutine"), "make a list of it first, or make it inside the function"),
    (
        ("TextIOWrapper", "BufferedReader", "BufferedWriter", "BufferedRandom", "FileIO"),
        "pass its path instead, and open it inside the function",
    ),
    (("socket", "SSLSocket", "Connection", "connection"), "connect inside the function"),
    (("module",), "import it inside the function"),
    (("frame", "traceback"), "pass its text instead"),
)


class Part(NamedTuple):
    """A part of something: what to call it, where it is referred to, and the part itself."""

    label: str
    where: str
    value: object


def in_function(target: object, name: str, error: Exception, dumps: Dumps) -> str:
    """Say which part of a function does not pickle, where it is referred to, and what to do about it."""
    found = _Search(dumps).deepest(target, "")
    if found is None:
        return f"the function {name!r} cannot be sent: {_reason(error)}"
    path, where, leaf, reason = found
    what = f"its {path}" if path else "it"
    used = f", referred to at {where}" if where else ""
    return (
        f"the function {name!r} cannot be sent: {what} ({_kind(leaf)}{used}) cannot be pickled: {reason}. "
        f"What to do: {_remedy(leaf, 'pass what the function needs of it as an argument, or make it inside it')}"
    )


def in_arguments(
    name: str,
    target: object,
    value: tuple[tuple[Any, ...], dict[str, Any] | None],
    error: Exception,
    dumps: Dumps,
) -> str:
    """Say which argument of a call does not pickle, and what in it."""
    search = _Search(dumps)
    arguments, keywords = value
    if getattr(target, "__evener__", None) == "caller":
        # The callable itself comes in front of its arguments.
        target, name = arguments[0], name_of(arguments[0])
        reason = search.reason(target)
        if reason is not None:
            return in_function(target, name, error, dumps)
        arguments = arguments[1:]
    for label, argument in _labelled(target, arguments, keywords):
        if search.reason(argument) is None:
            continue
        found = search.deepest(argument, "")
        path, _where, leaf, reason = found if found is not None else ("", "", argument, _reason(error))
        holder = f"{label} of {name!r}"
        what = f"{holder} cannot be sent: its {path}" if path else f"{holder} cannot be sent: it"
        return (
            f"{what} ({_kind(leaf)}) cannot be pickled: {reason}. "
            f"What to do: {_remedy(leaf, 'pass what the function needs of it, as plain values')}"
        )
    return f"the arguments of {name!r} cannot be sent: {_reason(error)}"


def largest(target: object, name: str, size: int, dumps: Dumps) -> str:
    """Say that a function is large, and which part makes it so."""
    search = _Search(dumps)
    sized = [(search.size(part.value), part) for part in _parts(target)]
    text = f"the function {name!r} is {_mebibytes(size)} large as it travels to the workers, each of which keeps it"
    if sized:
        bytes_, part = max(sized, key=lambda pair: pair[0])
        used = f", referred to at {part.where}" if part.where else ""
        text += f"; the largest part is its {part.label} ({_kind(part.value)}{used}) with {_mebibytes(bytes_)}"
    return f"{text}. Pass such a value as an argument, or load it inside the function"


class _Search:
    """Tries parts, never the same one twice."""

    def __init__(self, dumps: Dumps) -> None:
        self._dumps = dumps
        self._tried = 0
        self._seen: set[int] = set()

    def reason(self, value: object) -> str | None:
        """Return why a value does not pickle, or None if it does."""
        self._tried += 1
        try:
            self._dumps(value)
        except Exception as error:  # noqa: BLE001 (pickling runs code of any kind)
            return _reason(error)
        return None

    def size(self, value: object) -> int:
        try:
            return len(self._dumps(value))
        except Exception:  # noqa: BLE001
            return 0

    def deepest(self, value: object, path: str, where: str = "", depth: int = 0) -> tuple[str, str, Any, str] | None:
        """Return path, place in the source, value and reason of the innermost part that does not pickle."""
        reason = self.reason(value)
        if reason is None:
            return None
        self._seen.add(id(value))
        if depth < _DEPTH:
            for part in _parts(value):
                if id(part.value) in self._seen or self._tried > _TRIES:
                    continue
                inner = (
                    path + part.label if part.label[:1] in ".[ " else (f"{path}, {part.label}" if path else part.label)
                )
                found = self.deepest(part.value, inner, part.where or where, depth + 1)
                if found is not None:
                    return found
        return path, where, value, reason


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")


def _parts(value: object) -> Iterator[Part]:
    """Yield what a value is made of, as far as pickle takes it along."""
    if isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, MethodType):
        yield Part("instance", "", value.__self__)
        yield Part("function", "", value.__func__)
    elif isinstance(value, functools.partial):
        yield Part("wrapped function", "", value.func)
        yield from (Part(f"argument {place}", "", item) for place, item in enumerate(value.args, 1))
        yield from (Part(f"argument {name!r}", "", item) for name, item in value.keywords.items())
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            yield Part(f"[{_short(key)}]", "", item)
            yield Part(f"[key {_short(key)}]", "", key)
    elif isinstance(value, (list, tuple)):
        yield from (Part(f"[{place}]", "", item) for place, item in enumerate(list(value)))
    elif isinstance(value, (set, frozenset)):
        yield from (Part("[an element]", "", item) for item in list(value))
    elif isinstance(value, type):
        yield from (Part(f".{name}", "", item) for name, item in list(vars(value).items()) if _is_own(value, item))
    elif not isinstance(value, (ModuleType, BuiltinFunctionType)):
        yield from _attributes(value)


def _is_own(kind: type, item: object) -> bool:
    return not isinstance(item, (classmethod, staticmethod)) and getattr(item, "__objclass__", None) is not kind


def _attributes(value: object) -> Iterator[Part]:
    """Yield what an object gives to pickle, which may be more or less than its attributes."""
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 (its own code refuses, so it is the culprit itself)
        return
    if not isinstance(reduced, tuple):
        return
    _function, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    for place, argument in enumerate(arguments or ()):
        if argument is not type(value):
            yield Part(f" part {place}", "", argument)
    for some in state if isinstance(state, tuple) else (state,):
        if isinstance(some, dict):
            yield from (Part(f".{name}", "", item) for name, item in list(some.items()))
        elif some is not None:
            yield Part(" state", "", some)
    yield from (Part(f"[{place}]", "", item) for place, item in enumerate(items or ()))
    yield from (Part(f"[{_short(key)}]", "", item) for key, item in pairs or ())


def _parts_of_function(function: FunctionType) -> Iterator[Part]:
    code = function.__code__
    lines = _lines(code)

    def place(name: str) -> str:
        return f"{code.co_filename}:{lines.get(name, code.co_firstlineno)}"

    for name, cell in zip(code.co_freevars, function.__closure__ or ()):
        try:
            yield Part(f"closure variable {name!r}", place(name), cell.cell_contents)
        except ValueError:  # a variable that has no value yet
            continue
    for name in sorted(lines):
        if name in function.__globals__ and name not in code.co_freevars:
            yield Part(f"global variable {name!r}", place(name), function.__globals__[name])
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    given = [*zip(names[len(names) - len(defaults) :], defaults), *(function.__kwdefaults__ or {}).items()]
    for name, default in given:
        yield Part(f"default of the parameter {name!r}", f"{code.co_filename}:{code.co_firstlineno}", default)
    for name, item in vars(function).items():
        yield Part(f".{name}", "", item)


def _lines(code: CodeType) -> dict[str, int]:
    """Return the first line on which each name is used, in the code and in the code within it."""
    found: dict[str, int] = {}
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        # From Python 3.13 on, `starts_line` says only whether one begins.
        begun = getattr(step, "line_number", None) or step.starts_line
        if isinstance(begun, int) and not isinstance(begun, bool):
            line = begun
        if isinstance(step.argval, str) and step.opname in _READS:
            found.setdefault(step.argval, line)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            for name, inner in _lines(constant).items():
                found.setdefault(name, inner)
    return found


def _labelled(
    target: object, arguments: tuple[Any, ...], keywords: dict[str, Any] | None
) -> Iterator[tuple[str, object]]:
    """Yield each argument with what to call it: by its parameter's name, else by its number."""
    names: list[str] = []
    try:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(target).parameters.values()  # type: ignore[arg-type]
        names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    except (TypeError, ValueError):
        names = []
    for place, argument in enumerate(arguments):
        yield (f"the argument {names[place]!r}" if place < len(names) else f"argument number {place + 1}"), argument
    for name, argument in (keywords or {}).items():
        yield f"the argument {name!r}", argument


def _kind(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, FunctionType):
        return f"the function {value.__qualname__}"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _remedy(leaf: object, otherwise: str) -> str:
    names = [kind.__name__ for kind in type(leaf).__mro__]
    for kinds, remedy in _REMEDIES:
        if any(name in kinds for name in names):
            return remedy
    return otherwise


def _mebibytes(size: int) -> str:
    return f"{size / 1_048_576:.1f} MiB"
