"""A `concurrent.futures.Executor` whose workers belong to an engine."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import os
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from evener import _client
from evener._errors import SerializationError
from evener._feed import Feed, Route
from evener._future import Future
from evener._map import Results
from evener._pickling import Initializer, ModuleLike, Modules, name_of
from evener._sender import Options, Senders
from evener._share import Share

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from evener._client import Client
    from evener._session import Session

    P = ParamSpec("P")

R = TypeVar("R")


class Executor(concurrent.futures.Executor):
    """Runs callables in the workers of an engine, wherever a `concurrent.futures.Executor` is wanted.

    ::

        with evener.Executor(max_workers=8) as pool:
            print(list(pool.map(math.factorial, range(10))))
            await asyncio.get_running_loop().run_in_executor(pool, work, 1)

    max_workers: how many calls may run at a time. Without `client` and without `EVENER_URL`, the executor has a private
        engine of its own with so many workers, which ends with it; None shares the program's default client. With an
        engine that others use too, no more calls of this executor than `max_workers` are with the engine at a time.
    client: the `Client` whose engine does the calls. It is not closed with the executor.
    initializer, initargs: called in each worker process before it does its first call for this executor. If it raises,
        the executor is broken: calls raise `InitializerFailed`.
    pool, timeout, retries, output, modules, by_value, priority: as for `evener.function`.

    Futures are `evener.Future`, so they have `stdout`, `stderr` and `worker` and can be awaited. A call whose worker
    died raises `WorkerDied`, which is a `BrokenExecutor`; unlike those of the standard library, the executor goes on.
    As there, the program does not exit before all calls are done, unless they are cancelled.
    """

    __module__ = "evener"

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        client: Client | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        pool: str = "default",
        timeout: float | None = None,
        retries: int = 0,
        output: str = "echo",
        modules: Modules = (),
        by_value: Iterable[ModuleLike] = (),
        priority: int = 0,
    ) -> None:
        if max_workers is not None:
            if isinstance(max_workers, bool) or not isinstance(max_workers, int):
                raise TypeError(f"max_workers is a whole number, not {max_workers!r}")
            if max_workers <= 0:
                raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        options = Options().but(
            {
                "timeout": timeout,
                "retries": retries,
                "pool": pool,
                "output": output,
                "modules": modules,
                "by_value": by_value,
                "priority": priority,
            }
        )
        self._client = client
        # A private engine of its own is all its; of any other it takes no more than its share.
        self._own: Client | None = None
        most: int | None = None
        if max_workers is not None and client is None and not os.environ.get("EVENER_URL"):
            self._own = _client.Client(workers=max_workers)
        else:
            most = max_workers
        self._senders = Senders(options, self._session, _initializer(initializer, initargs, options))
        self._share = Share(self._session, most, self._end)
        _executors.add(self)

    def _session(self) -> Session:
        client = self._own or self._client
        return client._live() if client is not None else _client.shared_session()

    def _end(self) -> None:
        if self._own is not None:
            self._own.close()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Send a call of any callable, and return its future.

        Raises RuntimeError after `shutdown`, `InitializerFailed` if the initializer has failed, and `ConnectError`,
        `AuthenticationError`, `UnknownPool` or `PythonMismatch` if the engine is not there or not the right one; the
        rest is on the future.
        """
        self._share.check()
        sender, arguments = self._senders.pick(fn, args)
        try:
            _session, order = sender.ready()
            payload = sender.input(arguments, kwargs)
        except SerializationError as error:
            # As in the standard library, what cannot be pickled is found on the future.
            failed: Future[R] = Future()
            failed.set_exception(error)
            return failed
        future: Future[R] = Future(self._share, order)
        future._watcher = self._share
        self._share.send(future, order, payload)
        return future

    def map(
        self,
        fn: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Call `fn` for each item of the iterables, and return an iterator over the results in their order.

        As in the standard library all calls are sent at once, unless `buffersize` bounds how many are ahead of the
        results that were taken. `timeout` is how many seconds after this call the last result must be there; else the
        iterator raises `concurrent.futures.TimeoutError`. `chunksize` items travel together.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        self._share.check()
        items: Iterator[Any] = zip(*iterables)
        if buffersize is None:
            # What the iterables raise is raised here and now.
            items = iter(list(items))
        feed = Feed(self._senders.lasting(fn), items, True, chunksize, None, Route(self._share, self._share))
        window = 0 if buffersize is None else max(1, buffersize // chunksize)
        return Results(feed, window=window, timeout=timeout, broken=self._share.broke)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        With `wait`, return when all calls are over. With `cancel_futures`, cancel those that have not begun.
        """
        self._share.close(wait, cancel_futures)


def _initializer(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...], options: Options
) -> Initializer | None:
    if initializer is None:
        return None
    from evener import _cloud  # noqa: PLC0415

    value = (initializer, tuple(initargs))
    name = f"the initializer {name_of(initializer)}"
    return Initializer(uuid.uuid4().hex, _cloud.initializer(name, value, options.by_value))


# --------------------------------------------------------------------------------------------------------------------
# The end of the program, and forks
# --------------------------------------------------------------------------------------------------------------------

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


def _at_exit() -> None:
    for executor in list(_executors):
        with contextlib.suppress(Exception):
            executor.shutdown()


def _in_child() -> None:
    for executor in list(_executors):
        executor._share.leave_to_parent()


# Runs before the clients are closed, because it was registered after that.
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
