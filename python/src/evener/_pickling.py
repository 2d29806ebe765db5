"""What travels: a function's body, and the inputs of its calls. Opaque bytes for everyone but this client and workers.

A function's body is a pickle of ``{"format", "name", "modules", "initializer", "key", "function"}``; the input of a
call is a pickle of ``(arguments, keywords or None)``; the input of a group is a pickle of ``(spread, items)``, where an
item is the one argument of a call, or, if `spread`, the tuple of its arguments.

Values of exact builtin types need no more than the standard library's pickle. Everything else goes through cloudpickle,
in `evener._cloud`, which is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, NoReturn, Union

PROTOCOL = 5

#: The version of Python that bodies made here are for.
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

# A body larger than this many bytes is worth a warning: it travels once, but every worker keeps it.
_LARGE = 10 * 1024 * 1024

_ATOMS = frozenset((int, float, bool, type(None)))
_TEXTS = frozenset((str, bytes))

# Beyond this length, `pickle.dumps` copies text and bytes several times, and a pickler with a file does not.
_LONG = 262_144

_NOTHING = object()

# A module, its name, or a pair of an alias and one of these.
ModuleLike = Union[ModuleType, str]
Modules = Union[Iterable[Union[ModuleLike, tuple[str, ModuleLike]]], Mapping[str, ModuleLike]]

_dumps = pickle.dumps


class _Impure(Exception):
    """Something is not of a builtin type."""


class _Pure(pickle.Pickler):
    """Pickles builtin types at the speed of C, and gives up at the first object of another kind."""

    def reducer_override(self, obj: Any) -> NoReturn:  # noqa: ARG002 (pickle calls it so)
        raise _Impure


def _pure(value: object) -> bytes | None:
    """Return the pickle of `value`, or None if it holds anything but builtin types."""
    out = io.BytesIO()
    try:
        _Pure(out, PROTOCOL).dump(value)
    except (_Impure, RecursionError):
        return None
    return out.getvalue()


def call_input(
    name: str,
    target: Callable[[], object],
    by_value: tuple[ModuleType, ...],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any] | None,
) -> bytes:
    """Return the input of one call of what `target` returns, which errors call `name`.

    Raises `SerializationError` that names the argument which cannot be pickled.
    """
    if not keywords:
        for argument in arguments:
            kind = type(argument)
            if kind not in _ATOMS and (kind not in _TEXTS or len(argument) > _LONG):
                break
        else:
            return _dumps((arguments, None), PROTOCOL)
    value = (arguments, keywords or None)
    done = _pure(value)
    if done is not None:
        return done
    from evener import _cloud  # noqa: PLC0415

    return _cloud.arguments(name, target, by_value, value)


def group_input(by_value: tuple[ModuleType, ...], spread: bool, items: list[Any]) -> bytes:
    """Return the input of a group. Raises whatever pickling raises: the caller goes on item by item."""
    done = _pure((spread, items))
    if done is not None:
        return done
    from evener import _cloud  # noqa: PLC0415

    return _cloud.values((spread, items), by_value)


class Body(NamedTuple):
    """A function as it travels, with what shows later whether it is still the same."""

    data: bytes
    hash: bytes
    name: str
    # The names that a function by value takes from its module, and what they stood for.
    watch: tuple[tuple[dict[str, Any], str, object], ...]

    def stale(self) -> bool:
        """Whether a name that the function uses stands for another object than when the body was made."""
        for space, name, thing in self.watch:  # noqa: SIM110 (a generator costs more than the rest of a call)
            if space.get(name, _NOTHING) is not thing:
                return True
        return False


class Initializer(NamedTuple):
    """What runs once in each worker process before its first call under this `key`."""

    key: str
    data: bytes


def body_of(
    function: Callable[..., Any],
    name: str,
    modules: tuple[tuple[str, str], ...] = (),
    by_value: tuple[ModuleType, ...] = (),
    initializer: Initializer | None = None,
) -> Body:
    """Make the body of `function`, which errors and the engine's log call `name`.

    Raises `SerializationError` that names what in the function cannot travel, and warns if the body is over 10 MiB.
    """
    from evener import _cloud  # noqa: PLC0415

    watch = tuple(_globals_of(function, lambda one: _cloud.travels_by_value(one, by_value), set()))
    pickled = _cloud.function(function, name, by_value)
    if len(pickled) > _LARGE:
        warnings.warn(_cloud.too_large(function, name, len(pickled), by_value), stacklevel=_depth_of_caller())
    fields = {
        "format": 1,
        "name": name,
        "modules": [list(pair) for pair in modules],
        "initializer": initializer.data if initializer else None,
        "key": initializer.key if initializer else None,
        "function": pickled,
    }
    data = pickle.dumps(fields, PROTOCOL)
    return Body(data, hashlib.sha256(data).digest(), name, watch)


def _globals_of(
    function: object, travels: Callable[[Any], bool], seen: set[int]
) -> Iterable[tuple[dict[str, Any], str, object]]:
    """Give each global variable that a function uses, itself or through others that travel with it: where, and what."""
    if id(function) in seen:
        return
    seen.add(id(function))
    if isinstance(function, type):
        # A class of `__main__` travels with its methods.
        for member in list(vars(function).values()):
            yield from _globals_of(getattr(member, "__func__", member), travels, seen)
        return
    if hasattr(type(function), "__evener__"):
        function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or not travels(function):
        return
    space = function.__globals__
    for name in sorted(_names_in(function.__code__)):
        if name in space:
            yield space, name, space[name]
            yield from _globals_of(space[name], travels, seen)
    for cell in function.__closure__ or ():
        # One that has no value yet says so.
        with contextlib.suppress(ValueError):
            yield from _globals_of(cell.cell_contents, travels, seen)


def _names_in(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _depth_of_caller() -> int:
    """Return how far up the stack the code outside this package is, for a warning that points to it."""
    frame = sys._getframe(1)
    depth = 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("evener."):
        frame = frame.f_back
        depth += 1
    return depth


def name_of(function: object) -> str:
    """Return what a callable is called, for people."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    return str(name) if name else type(function).__qualname__


def module_pairs(modules: Modules) -> tuple[tuple[str, str], ...]:
    """Return pairs of the name in the function's globals and the name of the module to import.

    `modules` holds modules, names of modules, or pairs of an alias and one of these; or it is a mapping from alias to
    module. A dotted name without an alias is imported whole and binds its first part, as ``import a.b`` does.
    """
    pairs: list[tuple[str, str]] = []
    if isinstance(modules, (str, ModuleType)):
        raise TypeError(f"modules takes a list of modules, not {modules!r}; write modules=[{_shown(modules)}]")
    for entry in modules.items() if isinstance(modules, Mapping) else modules:
        if isinstance(entry, tuple):
            if len(entry) != 2 or not isinstance(entry[0], str) or not entry[0].isidentifier():
                raise TypeError(f"modules takes pairs of (alias, module), where alias is a name, not {entry!r}")
            pairs.append((entry[0], _module_name(entry[1])))
            continue
        name = _module_name(entry)
        pairs.append((name, name))
        if "." in name:
            first = name.partition(".")[0]
            pairs.append((first, first))
    return tuple(pairs)


def _shown(module: ModuleLike) -> str:
    return repr(module) if isinstance(module, str) else module.__name__


def _module_name(module: object) -> str:
    if isinstance(module, ModuleType):
        return module.__name__
    if isinstance(module, str) and all(part.isidentifier() for part in module.split(".")):
        return module
    raise TypeError(f"modules takes modules or names of modules, not {module!r} (a {type(module).__name__})")


def modules_by_value(modules: Iterable[ModuleLike]) -> tuple[ModuleType, ...]:
    """Return the modules of a `by_value` list, whose names must have been imported already."""
    if isinstance(modules, (str, ModuleType)):
        raise TypeError(f"by_value takes a list of modules, not {modules!r}; write by_value=[{_shown(modules)}]")
    found = []
    for entry in modules:
        module = sys.modules.get(_module_name(entry)) if isinstance(entry, str) else entry
        if module is None:
            raise ValueError(f"by_value names the module {entry!r}, which is not imported; import it first")
        if not isinstance(module, ModuleType):
            raise TypeError(f"by_value takes modules or their names, not {entry!r} (a {type(entry).__name__})")
        found.append(module)
    return tuple(found)


# cloudpickle keeps one list of modules by value for the whole process.
by_value_lock = threading.RLock()
