"""The future of a remote call, and waiting for many of them."""

from __future__ import annotations

import _thread
import concurrent.futures
import contextlib
import pickle
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

from evener import _remote
from evener._echo import Output, adorn

if TYPE_CHECKING:
    from evener._session import Carrier, Order, Watcher

R = TypeVar("R")

_OVER = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))

# The kinds of events that end a call.
VALUE, PROBLEM = 1, 3

_loads = pickle.loads
# Not the function `threading.RLock`, which costs as much as the lock itself.
_new_lock = _thread.RLock


class Future(concurrent.futures.Future[R]):
    """The result of a remote call, once it is there.

    It is a `concurrent.futures.Future`, so `result`, `exception`, `add_done_callback`, `concurrent.futures.wait` and
    `concurrent.futures.as_completed` work as they do there. It can also be awaited in a coroutine of asyncio::

        future = square.submit(3)
        future.result(timeout=5)     # waits; raises what the function raised
        await square.submit(3)       # the same in a coroutine

    Beyond the standard library's it has `stdout`, `stderr` and `worker`, and `cancel` can stop a call that runs.
    """

    __module__ = "evener"

    # What most futures never change stays here: a program may make a hundred thousand of them in a second.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _number: int = 0
    _output: Output | None = None
    _worker: int = 0
    _made: threading.Condition | None = None
    _carrier: Carrier | None = None
    _watcher: Watcher | None = None
    _order: Order | None = None

    def __init__(self, carrier: Carrier | None = None, order: Order | None = None) -> None:
        # Does what the base class does, without a condition: most futures are done before anyone waits for them.
        self._lock = _new_lock()
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Any], object]] = []
        self._carrier = carrier
        self._order = order

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        # What the standard library locks and waits on. It shares our lock, so it can be made at any time.
        with self._lock:
            made = self._made
            if made is None:
                made = self._made = threading.Condition(self._lock)
            return made

    # ----------------------------------------------------------------------------------------------------------------
    # For whoever waits
    # ----------------------------------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> R:
        """Wait for the call and return what the function returned, or raise what it raised.

        `timeout` is in seconds; None waits without end. Raises `concurrent.futures.TimeoutError` if the call has no
        outcome by then (it goes on), and `concurrent.futures.CancelledError` if it was cancelled.
        """
        if self._state is FINISHED and self._exception is None:
            value: R = self._result
            return value
        try:
            return super().result(timeout)
        finally:
            # An exception holds this frame, and the future holds the exception.
            del self

    def cancel(self, kill: bool = False) -> bool:
        """Cancel the call, and return whether it is cancelled.

        The engine is asked, so the answer is certain: True means that the function has not begun and never will. With
        `kill`, a call that runs is stopped too: it is told (``evener.context().cancelled()``), and if it does not come
        back soon its worker is terminated and replaced. False means that the call has begun (and `kill` is not given)
        or has ended.
        """
        with self._lock:
            if self._state in _OVER:
                return self._state is not FINISHED
        carrier = self._carrier
        if carrier is None:
            return bool(super().cancel())
        if not carrier.cancel(self, kill):
            with self._lock:
                if self._state is PENDING:
                    self._state = RUNNING
                return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)
        self._be_cancelled()
        return True

    @property
    def stdout(self) -> str:
        """What the function has written to standard output so far; all of it once the future is done."""
        return "" if self._output is None else self._output.text(1)

    @property
    def stderr(self) -> str:
        """What the function has written to standard error so far; all of it once the future is done."""
        return "" if self._output is None else self._output.text(2)

    @property
    def worker(self) -> int | None:
        """The process number of the worker that did the call; None while that is not known."""
        return self._worker or None

    def __await__(self) -> Generator[Any, None, R]:
        if self._state not in _OVER:
            yield from self._in_loop()
        return self.result()

    def _in_loop(self) -> Generator[Any, None, None]:
        """Wait in a coroutine until it is done. A wait that is cancelled asks to cancel the call."""
        import asyncio  # noqa: PLC0415 (only those who await pay for it)

        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def wake(_future: object) -> None:
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))

        self.add_done_callback(wake)
        try:
            yield from done.__await__()
        except asyncio.CancelledError:
            # The engine answers soon, but a loop waits for nobody.
            loop.run_in_executor(None, self.cancel)
            raise

    def __reduce__(self) -> Any:
        raise TypeError("a Future belongs to this process and cannot be sent; send its .result() instead")

    # ----------------------------------------------------------------------------------------------------------------
    # For the session, which tells what happens to the call
    # ----------------------------------------------------------------------------------------------------------------

    def _hear(self, stream: int, data: bytes, truncated: bool) -> None:
        output = self._output
        if output is None:
            output = self._output = Output(self._order is None or self._order.echo)
            with self._lock:
                if self._state is PENDING:
                    self._state = RUNNING
        output.add(stream, data, truncated)

    def _settle(self, event: tuple[Any, ...]) -> None:
        if self._output is not None:
            self._output.end()
        error: BaseException | None = None
        value: Any = None
        if event[1] == VALUE:
            self._worker = event[3]
            try:
                value = _loads(event[2])
            except Exception as failure:  # noqa: BLE001 (unpickling runs code of any kind)
                error = _remote.unreadable(self._name(), failure)
        else:
            self._worker = event[6] if event[1] == PROBLEM else event[3]
            error = _remote.failure_of(event)
            if event[1] == PROBLEM and event[2] == "cancelled":
                self._be_cancelled()
                return
        self._be_done(value, error)

    def _name(self) -> str:
        return self._order.name if self._order is not None else "the function"

    def _be_done(self, value: Any, error: BaseException | None) -> None:
        if error is not None:
            adorn(error, self._output)
        with self._lock:
            if self._state in _OVER:
                return
            self._result = value
            self._exception = error
            self._state = FINISHED
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            if self._made is not None:
                self._made.notify_all()
        self._tell()

    def _be_cancelled(self) -> None:
        with self._lock:
            if self._state in _OVER:
                return
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            if self._made is not None:
                self._made.notify_all()
        self._tell()

    def _tell(self) -> None:
        try:
            if self._done_callbacks:
                self._invoke_callbacks()  # type: ignore[attr-defined]
        finally:
            if self._watcher is not None:
                self._watcher.settled(self, self._exception)

    def _be_lost_in_fork(self, error: BaseException) -> None:
        """End it in a child process. Its locks may be held by threads that do not exist there, so it gets new ones."""
        self._lock = _new_lock()
        self._made = None
        self._waiters = []
        self._done_callbacks = []
        self._carrier = self._watcher = None
        if self._state not in _OVER:
            self._exception = error
            self._state = FINISHED


def as_completed(futures: Iterable[Future[R]], timeout: float | None = None) -> Iterator[Future[R]]:
    """Yield the futures as they are done; first those that are already.

    Raises `concurrent.futures.TimeoutError` if they are not all done `timeout` seconds after the call. The same as
    `concurrent.futures.as_completed`::

        for future in evener.as_completed([square.submit(n) for n in range(10)]):
            print(future.result())
    """
    return concurrent.futures.as_completed(futures, timeout)  # type: ignore[arg-type, return-value, unused-ignore]


def wait(
    futures: Iterable[Future[R]],
    timeout: float | None = None,
    return_when: str = concurrent.futures.ALL_COMPLETED,
) -> concurrent.futures._base.DoneAndNotDoneFutures[R]:
    """Wait for futures, and return the set of those that are ``done`` and the set of those that are ``not_done``.

    `timeout` is in seconds. `return_when` is one of `concurrent.futures.ALL_COMPLETED`, ``FIRST_COMPLETED`` and
    ``FIRST_EXCEPTION``. The same as `concurrent.futures.wait`.
    """
    return concurrent.futures.wait(futures, timeout, return_when)
