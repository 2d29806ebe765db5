"""A function that is ready to be sent, with its options; and a memory of those that were sent before."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from evener._errors import EngineLost
from evener._pickling import (
    Body,
    Initializer,
    body_of,
    call_input,
    module_pairs,
    modules_by_value,
    name_of,
)

if TYPE_CHECKING:
    from evener._future import Future
    from evener._session import Order, Session

_OUTPUTS = ("echo", "capture", "discard")


class Options(NamedTuple):
    """How a function's calls are to be done; see `evener.function` for what each option means."""

    timeout: float | None = None
    retries: int = 0
    pool: str = "default"
    modules: tuple[tuple[str, str], ...] = ()
    by_value: tuple[ModuleType, ...] = ()
    output: str = "echo"
    priority: int = 0

    def but(self, given: Mapping[str, Any]) -> Options:
        """Return these options with some replaced. Raises TypeError or ValueError that names the option."""
        unknown = sorted(given.keys() - _CHECKS.keys())
        if unknown:
            raise TypeError(f"there is no option {unknown[0]!r}; the options are {', '.join(_CHECKS)} and client")
        return self._replace(**{name: _CHECKS[name](value) for name, value in given.items()})


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"timeout is a number of seconds or None, not {value!r}")
    # NaN is not above 0 either.
    if not value > 0:
        raise ValueError(f"timeout is a number of seconds above 0, or None for no limit, not {value!r}")
    return None if value == float("inf") else float(value)


def _whole(name: str, least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is a whole number, not {value!r}")
        if not least <= value <= most:
            raise ValueError(f"{name} is a whole number from {least} to {most}, not {value!r}")
        return value

    return check


def _pool(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"pool is the name of a function pool, not {value!r}")
    return value


def _output(value: Any) -> str:
    if value not in _OUTPUTS:
        raise ValueError(f"output is one of {', '.join(map(repr, _OUTPUTS))}, not {value!r}")
    return str(value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "timeout": _timeout,
    "retries": _whole("retries", 0, 1000),
    "pool": _pool,
    "modules": module_pairs,
    "by_value": modules_by_value,
    "output": _output,
    "priority": _whole("priority", -100, 100),
}


class Sender:
    """A callable with its options, and what it takes to send its calls quickly.

    The body is made at the first call, and again when a global variable that the function uses has come to stand for
    another object. `source` gives the session to use whenever the last one is over.
    """

    __slots__ = ("_initializer", "_ready", "_source", "_target", "name", "options")

    def __init__(
        self,
        target: Callable[[], Callable[..., Any] | None],
        name: str,
        options: Options,
        source: Callable[[], Session],
        initializer: Initializer | None = None,
    ) -> None:
        self._target = target
        self.name = name
        self.options = options
        self._source = source
        self._initializer = initializer
        self._ready: tuple[Session, Order, Body] | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The callable itself, which whoever uses the sender holds."""
        function = self._target()
        assert function is not None
        return function

    def ready(self) -> tuple[Session, Order]:
        """Return the session to send calls to, and the order that goes with each of them."""
        ready = self._ready
        if ready is not None:
            session, order, body = ready
            if session.over is None and not (body.watch and body.stale()):
                return session, order
        return self.prepare()

    def prepare(self) -> tuple[Session, Order]:
        """Do what `ready` does, from the beginning."""
        from evener._session import Order  # noqa: PLC0415

        session = self._source()
        options = self.options
        session.pool(options.pool)
        body = None if self._ready is None else self._ready[2]
        if body is None or body.stale():
            body = body_of(self.function, self.name, options.modules, options.by_value, self._initializer)
        order = Order(
            hash=body.hash,
            body=body,
            pool=options.pool,
            retries=options.retries,
            timeout=options.timeout,
            priority=options.priority,
            discard=options.output == "discard",
            echo=options.output == "echo",
            name=self.name,
        )
        self._ready = (session, order, body)
        return session, order

    def input(self, arguments: tuple[Any, ...], keywords: dict[str, Any] | None) -> bytes:
        """Return the input of one call."""
        return call_input(self.name, self._target, self.options.by_value, arguments, keywords)

    def submit(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Future[Any]:
        """Send one call."""
        session, order = self.ready()
        payload = call_input(self.name, self._target, self.options.by_value, arguments, keywords)
        try:
            return session.submit(order, payload)
        except EngineLost:
            # It was not sent, and there may be another engine by now.
            session, order = self.prepare()
            return session.submit(order, payload)

    def run(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Do one call and wait for it."""
        session, order = self.ready()
        payload = call_input(self.name, self._target, self.options.by_value, arguments, keywords)
        try:
            handle = session.begin(order, payload)
        except EngineLost:
            session, order = self.prepare()
            handle = session.begin(order, payload)
        return session.finish(order, handle)


# Calls a callable that comes as the first argument. It has no name of its own, so it always travels by value.
_call: Callable[..., Any] = lambda function, /, *arguments, **keywords: function(*arguments, **keywords)  # noqa: E731
_call.__evener__ = "caller"  # type: ignore[attr-defined]


class Senders:
    """Senders for plain callables, so that each function is pickled once and not for every call.

    Functions are remembered for as long as they live. What may change from call to call (bound methods, partials, other
    objects that can be called) and functions that are seen once (a lambda made for one call) travel as an argument.
    """

    def __init__(self, options: Options, source: Callable[[], Session], initializer: Initializer | None = None) -> None:
        self._options = options
        self._source = source
        self._initializer = initializer
        self._known: weakref.WeakKeyDictionary[Any, Sender | None] = weakref.WeakKeyDictionary()
        self._caller = Sender(lambda: _call, "a callable", options, source, initializer)

    def of(self, function: Callable[..., Any]) -> Sender | None:
        """Return the sender for a callable, or None if it is to travel as an argument of `caller`."""
        kind = type(function)
        if kind is FunctionType:
            sender = self._known.get(function)
            if sender is None and function not in self._known:
                lasts = function.__closure__ is None and function.__name__ != "<lambda>"
                # Modules are imported into the globals of a body.
                if lasts or self._options.modules:
                    return self._remember(function)
                self._known[function] = None
                return None
            return sender or self._remember(function)
        if kind is BuiltinFunctionType and isinstance(getattr(function, "__self__", None), ModuleType):
            return self._known.get(function) or self._remember(function)
        if getattr(kind, "__evener__", None) == "function" and not getattr(function, "_bound", ()):
            return self._known.get(function) or self._remember_decorated(function)
        if not callable(function):
            raise TypeError(f"a remote call needs something that can be called, not {function!r}")
        return None

    def lasting(self, function: Callable[..., Any]) -> Sender:
        """Return a sender for a callable that will do many calls."""
        found = self.of(function)
        if found is not None:
            return found
        return Sender(lambda: function, name_of(function), self._options, self._source, self._initializer)

    def _remember(self, function: Callable[..., Any]) -> Sender:
        target = weakref.ref(function)
        made = Sender(target, name_of(function), self._options, self._source, self._initializer)
        self._known[function] = made
        return made

    def _remember_decorated(self, function: Any) -> Sender:
        plain = function.__wrapped__
        own = function._sender
        made = self._known[function] = Sender(lambda: plain, own.name, own.options, self._source, self._initializer)
        return made

    def pick(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Sender, tuple[Any, ...]]:
        """Return the sender for one call of a callable, and the arguments to send."""
        sender = self.of(function)
        return (self._caller, (function, *arguments)) if sender is None else (sender, arguments)
