"""The decorator `compute_this`: a function whose call is an object that can be run elsewhere."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from evener import _client, _worker
from evener._function import P, check_function
from evener._pickling import Modules, name_of
from evener._sender import Options, Sender

R = TypeVar("R")


class Computation(Generic[R]):
    """A call that is yet to be made: what a function decorated with `compute_this` returns.

    Each `run` and each `async_run` makes it once more.
    """

    def __init__(self, sender: Sender, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._sender = sender
        self._arguments = arguments
        self._keywords = keywords

    def run(self) -> R:
        """Do the call in a worker, wait, and return what it returned or raise what it raised."""
        if _is_worker():
            return cast("R", self._sender.function(*self._arguments, **self._keywords))
        return cast("R", self._sender.run(self._arguments, self._keywords))

    async def async_run(self) -> R:
        """Do the call in a worker, without holding up the event loop meanwhile."""
        if _is_worker():
            return self.run()
        return cast("R", await self._sender.submit(self._arguments, self._keywords))

    def __repr__(self) -> str:
        return f"<evener.compute_this call of {self._sender.name}>"


class Computable(Generic[P, R]):
    """What `compute_this` makes of a function: its call, ``func(2)``, is a `Computation`, and its workers can be seen.

    The plain function is `__wrapped__`.
    """

    __evener__ = "function"

    def __init__(self, function: Callable[P, R], server: str | None, modules: tuple[tuple[str, str], ...]) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self._made_of = (function, server, modules)
        self._server = server
        self._sender = Sender(
            lambda: function,
            name_of(function),
            Options(modules=modules),
            lambda: _client.shared(server)._live(),
        )

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Computation[R]:
        return Computation(self._sender, args, kwargs)

    def get_workers(self) -> int:
        """Return how many workers do the calls. `Client.workers` says more of each."""
        return len(_client.shared(self._server).workers(self._sender.options.pool))

    def __reduce__(self) -> Any:
        from evener import _cloud  # noqa: PLC0415

        if _cloud.is_importable(self):
            return self.__wrapped__.__qualname__
        return Computable, self._made_of

    def __repr__(self) -> str:
        return f"<evener.compute_this {self._sender.name}>"


class ComputeDecorator(Protocol):
    """What ``evener.compute_this(…)`` returns: it makes a `Computable` of a function."""

    def __call__(self, function: Callable[P, R], /) -> Computable[P, R]:
        """Decorate `function`."""


@overload
def compute_this(server: Callable[P, R], /) -> Computable[P, R]: ...


@overload
def compute_this(server: str | None = ..., depmodules: Modules = ...) -> ComputeDecorator: ...


def compute_this(server: Any = None, depmodules: Modules = ()) -> Any:
    """Make a function whose call is an object that can be run in a worker. A decorator.

    ::

        @evener.compute_this(depmodules=["time"])
        def func(x):
            time.sleep(x)
            return x * x

        func(2).run()                    # 4, after two seconds
        await func(2).async_run()        # the same in a coroutine
        func.get_workers()               # how many workers do it

    server: where the engine listens (``host:port``, or an address as for `Client`); without it, `EVENER_URL`, else a
        private engine.
    depmodules: modules to import before the first call, as `modules` of `evener.function`.
    """
    if callable(server):
        return compute_this()(server)
    url = server if server is None or "://" in server or server.startswith("unix:") else f"http://{server}"
    modules = Options().but({"modules": depmodules}).modules

    def decorate(function: Callable[..., Any]) -> Any:
        check_function(function, "evener.compute_this")
        return Computable(function, url, modules)

    return decorate


def _is_worker() -> bool:
    """Whether this is a worker, in which calls are made where they are."""
    return _worker._RUNTIME in sys.modules
