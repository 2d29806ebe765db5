"""Pickling with cloudpickle: functions, and arguments that are more than builtin types.

Functions of ``__main__``, lambdas and functions within functions travel by value, with what they refer to. Functions
of other modules travel by reference: the worker imports the module. A decorated function hides the plain one that its
name used to stand for, so the plain one is sent as "what this name wraps".
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped, unused-ignore]

from evener import _culprit, _worker
from evener._errors import SerializationError
from evener._pickling import PROTOCOL, by_value_lock

# The script; in a process that multiprocessing has spawned it goes by the other name.
_MAIN = ("__main__", "__mp_main__")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
    """cloudpickle's pickler, which knows decorated functions and refuses to send open files as their contents."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is io.TextIOWrapper:
            if obj not in (sys.stdin, sys.stdout, sys.stderr):
                raise TypeError(f"cannot pickle an open file ({obj.name!r})")
        elif type(obj) is CodeType:
            # Some versions of cloudpickle leave out which file code is from, and tracebacks then show no lines of it.
            make, parts = self.dispatch_table[CodeType](obj)
            return make, tuple(obj.co_filename if part == "<dynamic-code>" else part for part in parts)
        elif _is_decorated(obj):
            # Objects of `compute_this` have a way of their own.
            if getattr(obj, "_bound", None) == () and not is_importable(obj):
                # In a worker it calls the plain function, however it is called.
                return _worker._Local, (obj.__wrapped__,)
        elif isinstance(obj, FunctionType):
            wrapper = _wrapper_of(obj)
            if wrapper is not None and not _is_by_value(obj.__module__):
                return getattr, (wrapper, "__wrapped__")
        return super().reducer_override(obj)


def _wrapper_of(function: Callable[..., Any]) -> Any | None:
    """Return the decorated function that can be found under the name of this plain one, if there is one."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for name in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found if _is_decorated(found) and getattr(found, "__wrapped__", None) is function else None


def _is_decorated(value: object) -> bool:
    return getattr(type(value), "__evener__", None) == "function"


def _is_by_value(module: str | None) -> bool:
    if module is None or module in _MAIN:
        return True
    listed: set[str] = cloudpickle.list_registry_pickle_by_value()
    parts = module.split(".")
    return any(".".join(parts[:count]) in listed for count in range(1, len(parts) + 1))


def is_named(decorated: Any) -> bool:
    """Whether a decorated function is what its module has under its name, so that others pickle it by that name."""
    return _wrapper_of(decorated.__wrapped__) is decorated


def is_importable(decorated: Any) -> bool:
    """Whether a worker finds a decorated function by importing its module."""
    return not _is_by_value(getattr(decorated.__wrapped__, "__module__", None)) and is_named(decorated)


def dumps(value: object) -> bytes:
    """Return the pickle of `value`. Raises whatever the pickling of its parts raises."""
    out = io.BytesIO()
    _Pickler(out, protocol=PROTOCOL).dump(value)
    return out.getvalue()


@contextlib.contextmanager
def _registered(modules: tuple[ModuleType, ...]) -> Iterator[None]:
    """Have these modules, and what is in them, travel by value for a while."""
    if "__mp_main__" in sys.modules:
        modules = (*modules, sys.modules["__mp_main__"])
    if not modules:
        yield
        return
    with by_value_lock:
        fresh = [module for module in modules if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
        for module in fresh:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in fresh:
                cloudpickle.unregister_pickle_by_value(module)


def travels_by_value(function: Callable[..., Any], by_value: tuple[ModuleType, ...]) -> bool:
    """Whether the code of `function` travels, and not just its name."""
    if not isinstance(function, FunctionType):
        return False
    with _registered(by_value):
        if _is_by_value(function.__module__):
            return True
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is not function and _wrapper_of(function) is None


def function(target: Callable[..., Any], name: str, by_value: tuple[ModuleType, ...]) -> bytes:
    """Return the pickle of a function that errors call `name`."""
    with _registered(by_value):
        try:
            return dumps(target)
        except Exception as error:
            raise SerializationError(_culprit.in_function(target, name, error, dumps)) from error


def initializer(
    name: str, value: tuple[Callable[..., Any], tuple[Any, ...]], by_value: tuple[ModuleType, ...]
) -> bytes:
    """Return the pickle of an initializer and its arguments."""
    with _registered(by_value):
        try:
            return dumps(value)
        except Exception as error:
            raise SerializationError(_culprit.in_arguments(name, value[0], (value[1], None), error, dumps)) from error


def too_large(target: Callable[..., Any], name: str, size: int, by_value: tuple[ModuleType, ...]) -> str:
    """Say what makes a function large."""
    with _registered(by_value):
        return _culprit.largest(target, name, size, dumps)


def values(value: object, by_value: tuple[ModuleType, ...]) -> bytes:
    """Return the pickle of `value`. Raises whatever the pickling of its parts raises."""
    with _registered(by_value):
        return dumps(value)


def arguments(
    name: str,
    target: Callable[[], object],
    by_value: tuple[ModuleType, ...],
    value: tuple[tuple[Any, ...], dict[str, Any] | None],
) -> bytes:
    """Return the input of a call of `target`, which errors call `name`."""
    with _registered(by_value):
        try:
            return dumps(value)
        except Exception as error:
            raise SerializationError(_culprit.in_arguments(name, target(), value, error, dumps)) from error
