"""The decorator `evener.function`, and what it makes of a function."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast, overload

from evener import _worker
from evener._client import shared_session
from evener._pickling import name_of
from evener._sender import Options, Sender

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from evener._client import Client
    from evener._future import Future
    from evener._map import Results
    from evener._pickling import ModuleLike, Modules
    from evener._session import Session

    P = ParamSpec("P")
elif sys.version_info >= (3, 10):
    from typing import ParamSpec

    P = ParamSpec("P")
else:
    P = TypeVar("P")

R = TypeVar("R")


class Function(Generic[P, R]):
    """A function that can be called here, and elsewhere. `evener.function` makes it.

    Called as ever, it is called in this process. `run` calls it in a worker and waits, `submit` returns a future,
    `map` and `starmap` do many calls. The plain function is `__wrapped__`.

    The function is sent with its first call, and remembered by the workers. A function of ``__main__`` (or a notebook)
    travels with the global variables that it uses, as they are at that moment; if one of those names is later bound to
    another object, the function is sent again with the next call. Functions of other modules are imported by name.
    """

    __module__ = "evener"
    __evener__ = "function"

    def __init__(self, function: Callable[P, R], options: Options, client: Client | None = None) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self._client = client
        source: Callable[[], Session] = shared_session if client is None else client._live
        self._sender = Sender(lambda: function, name_of(function), options, source)
        # The instance, for a function that was found through one; and the function that it was found as.
        self._bound: tuple[Any, ...] = ()
        self._unbound: Function[..., R] | None = None

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", self._sender.function(*self._bound, *args, **kwargs))

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a worker, wait, and return what it returned.

        Raises what the function raised, as its own type, with the traceback of the worker behind it; `WorkerDied`,
        `CallTimeout`, `EngineLost` or another `EvenerError` if it never came to an end; `SerializationError` if an
        argument or the result cannot travel. Each has what the function printed as `stdout` and `stderr`. Ctrl-C stops
        the call, in the worker as well::

            square.run(3)      # 9
        """
        return cast("R", self._sender.run((*self._bound, *args) if self._bound else args, kwargs))

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Send a call to the workers, and return its `Future` at once.

        Raises `SerializationError` if an argument cannot travel, and `ConnectError`, `AuthenticationError`,
        `UnknownPool` or `PythonMismatch` if the engine is not there or not the right one; the rest is on the future::

            futures = [square.submit(n) for n in range(100)]
            total = sum(future.result() for future in futures)
        """
        return self._sender.submit((*self._bound, *args) if self._bound else args, kwargs)

    @overload
    def map(
        self,
        *iterables: Iterable[Any],
        ordered: bool = ...,
        return_exceptions: Literal[False] = ...,
        progress: bool | str = ...,
        chunksize: int | None = ...,
    ) -> Results[R]: ...

    @overload
    def map(
        self,
        *iterables: Iterable[Any],
        ordered: bool = ...,
        return_exceptions: bool,
        progress: bool | str = ...,
        chunksize: int | None = ...,
    ) -> Results[R | BaseException]: ...

    def map(self, *iterables: Iterable[Any], **options: Any) -> Results[Any]:
        """Call the function for each item, and return an iterator over the results.

        With several iterables the function gets one item of each, until the shortest ends. Calls begin at once, but the
        input is taken only as far as it keeps the workers busy, so it may be endless, and memory stays flat.

        ordered: results come in the order of the items; with False, as they are done.
        return_exceptions: an exception takes the place of the result, where else it is raised when its turn comes.
        progress: show on standard error how many are done (with tqdm where it is installed); a string labels it.
        chunksize: how many items travel together. By default short calls are grouped by themselves, as many as run for
            some milliseconds, and calls of a millisecond or more go one by one. A function with a timeout is not
            grouped; with a chunksize, its timeout is for one call times the size.

        Calls that travel together may share arguments, as they do with the built-in `map`, and die together if their
        worker dies: then each is sent again by itself if the function's `retries` allow, else each is `WorkerDied`.

        Closing the iterator, or dropping it, cancels the calls that have not begun::

            for result in square.map(range(1_000_000)):
                ...
        """
        if self._bound:
            return results(self._sender, (((*self._bound, *each) for each in zip(*iterables)),), spread=True, **options)
        return results(self._sender, iterables, **options)

    @overload
    def starmap(
        self,
        arguments: Iterable[Iterable[Any]],
        *,
        ordered: bool = ...,
        return_exceptions: Literal[False] = ...,
        progress: bool | str = ...,
        chunksize: int | None = ...,
    ) -> Results[R]: ...

    @overload
    def starmap(
        self,
        arguments: Iterable[Iterable[Any]],
        *,
        ordered: bool = ...,
        return_exceptions: bool,
        progress: bool | str = ...,
        chunksize: int | None = ...,
    ) -> Results[R | BaseException]: ...

    def starmap(self, arguments: Iterable[Iterable[Any]], **options: Any) -> Results[Any]:
        """Do what `map` does, for items that are already tuples of arguments::

        list(power.starmap([(2, 3), (3, 2)]))      # [8, 9]
        """
        if self._bound:
            arguments = ((*self._bound, *each) for each in arguments)
        return results(self._sender, (arguments,), spread=True, **options)

    def options(self, *, client: Client | None = None, **options: Any) -> Function[P, R]:
        """Return the same function with other options: those of `evener.function`::

        square.options(priority=5, output="capture").submit(3)
        """
        made: Function[P, R] = Function(self.__wrapped__, self._sender.options.but(options), client or self._client)
        if self._bound:
            made = cast("Function[P, R]", made.__get__(self._bound[0]))
        return made

    def __get__(self, instance: Any, owner: type | None = None) -> Function[..., R]:
        if instance is None:
            return self
        # A method: the instance goes in front of the arguments.
        bound: Function[..., R] = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._bound = (instance,)
        bound._unbound = self
        return bound

    def __reduce__(self) -> Any:
        from evener import _cloud  # noqa: PLC0415

        if self._bound:
            return functools.partial, (self._unbound, *self._bound)
        if _cloud.is_named(self):
            return self.__wrapped__.__qualname__
        # In a worker it calls the plain function, however it is called.
        return _worker._Local, (self.__wrapped__,)

    def __repr__(self) -> str:
        return f"<evener.function {self._sender.name}>"


class Decorator(Protocol):
    """What ``evener.function(…)`` returns: it makes a `Function` of a function."""

    def __call__(self, function: Callable[P, R], /) -> Function[P, R]:
        """Decorate `function`."""


@overload
def function(function: Callable[P, R], /) -> Function[P, R]: ...


@overload
def function(
    *,
    timeout: float | None = ...,
    retries: int = ...,
    pool: str = ...,
    modules: Modules = ...,
    by_value: Iterable[ModuleLike] = ...,
    output: str = ...,
    priority: int = ...,
    client: Client | None = ...,
) -> Decorator: ...


def function(function: Any = None, /, *, client: Client | None = None, **options: Any) -> Any:
    """Make a function that can also be called in a worker. The decorator, with or without options.

    ::

        @evener.function
        def square(x):
            return x * x

        @evener.function(timeout=10, retries=2, modules=["json"])
        def fetch(url): ...

        square(3)                               # here, as ever
        square.run(3)                           # in a worker
        future = square.submit(3)               # the same, without waiting
        for y in square.map(range(1000)): ...   # many

    timeout: how long one try may run, in seconds (None: without end). A call that takes longer is stopped, and raises
        `CallTimeout`.
    retries: how often a call is tried again after its worker died (0). Exceptions of the function are never tried
        again.
    pool: which function pool of the engine does the calls ("default").
    modules: modules to import into the function's globals before its first call: modules, names, pairs of an alias and
        one of these, or a mapping from alias to module (``{"np": "numpy"}``).
    by_value: modules that travel with the function, because the workers cannot import them: modules, or names of
        modules that are imported.
    output: what becomes of what the function prints. "echo": it is written to this process's own streams as it comes,
        and kept on the future; "capture": only kept; "discard": neither.
    priority: from -100 to 100 (0); calls with a higher one are begun first.
    client: the `Client` whose engine does the calls; by default that of `EVENER_URL`, else a private one.

    A generator function or an ``async def`` is refused with a TypeError: what they return cannot travel. Return a list,
    or call ``asyncio.run`` inside a plain function.
    """
    chosen = Options().but(options)

    def decorate(function: Callable[..., Any]) -> Any:
        check_function(function)
        if _worker._RUNTIME in sys.modules:
            # Within a worker a decorated function is called where it is.
            return _worker._Local(function)
        return Function(function, chosen, client)

    return decorate if function is None else decorate(function)


def check_function(function: object, decorator: str = "evener.function") -> None:
    """Raise a TypeError that says why this cannot be decorated, if it cannot."""
    name = getattr(function, "__qualname__", repr(function))
    if isinstance(function, (staticmethod, classmethod)):
        raise TypeError(f"write @{type(function).__name__} above @{decorator}, not below it")
    if isinstance(function, type):
        raise TypeError(f"{decorator} takes a function, and {name} is a class; wrap what makes it in a function")
    if getattr(type(function), "__evener__", None) == "function":
        raise TypeError(f"{name} is decorated already; decorate the plain function, or use its options(…)")
    if not callable(function):
        raise TypeError(f"{decorator} takes a function, not {function!r}; options are given by name")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{decorator} takes a plain function, and {name} is an async one; call asyncio.run inside a plain "
            "function instead"
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{decorator} takes a function that returns, and {name} is a generator, which cannot travel; return a "
            "list instead"
        )


def results(
    sender: Sender,
    iterables: tuple[Iterable[Any], ...],
    *,
    spread: bool = False,
    ordered: bool = True,
    return_exceptions: bool = False,
    progress: bool | str = False,
    chunksize: int | None = None,
) -> Results[Any]:
    """Begin a map; see `Function.map`. With `spread`, the one iterable holds tuples of arguments."""
    from evener._feed import Feed  # noqa: PLC0415
    from evener._map import Results  # noqa: PLC0415

    if not iterables:
        raise TypeError(f"a map of {sender.name!r} needs at least one iterable")
    if chunksize is not None:
        if isinstance(chunksize, bool) or not isinstance(chunksize, int):
            raise TypeError(f"chunksize is a whole number of items, or None, not {chunksize!r}")
        if chunksize < 1:
            raise ValueError(f"chunksize is at least 1, not {chunksize}")
    sizes = [len(each) if isinstance(each, Sized) else None for each in iterables]
    total = None if None in sizes else min(cast("list[int]", sizes))
    items: Iterator[Any] = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables)
    feed = Feed(sender, items, spread or len(iterables) > 1, chunksize, total)
    bar = None
    if progress:
        from evener._progress import Progress  # noqa: PLC0415

        bar = Progress(total, progress if isinstance(progress, str) else sender.name)
    return Results(feed, ordered=ordered, return_exceptions=return_exceptions, progress=bar)
