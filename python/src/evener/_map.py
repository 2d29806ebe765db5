"""The receiving half of a map: hands out the results, in order, and keeps the workers busy while it waits."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from evener._errors import InitializerFailed
from evener._feed import Bundle, Feed, Maker

if TYPE_CHECKING:
    from evener._progress import Progress

R = TypeVar("R")

# How many groups, or single calls, are on their way at most, for each worker of the pool.
_WINDOW = 4

# While the first result is late, so many other bundles may wait for it, and so many bytes.
_SPARE = 1_000
_HELD = 64 * 1_048_576

_clock = time.monotonic
_nothing: Callable[[], Any] = iter(()).__next__


class _Failure:
    """An exception in the place of a result."""

    __slots__ = ("make",)

    def __init__(self, make: Maker) -> None:
        self.make = make


class Results(Iterator[R]):
    """The results of a map: an iterator for one thread.

    It takes from the input only as far as it needs to keep the workers busy. An exception that the function raised for
    an item is raised in its place; later items are computed all the same, and iteration can go on behind it. `close`,
    or dropping the iterator, cancels what has not begun.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: Progress | None = None,
        window: int | None = None,
        timeout: float | None = None,
        broken: Callable[[InitializerFailed], None] | None = None,
    ) -> None:
        # The results at hand are taken from this.
        self._take = _nothing
        self._closed = False
        self._feed = feed
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._progress = progress
        self._broken = broken
        self._until = None if timeout is None else _clock() + timeout
        # How many bundles may be unconsumed, and how many more while the first is late. A window of 0 has no end.
        self._window = _WINDOW * feed.workers if window is None else window or sys.maxsize
        self._spare = _SPARE if window is None else 0
        # All bundles whose results were not handed out yet, as keys, in the order of the input; those of them that are
        # on their way; and, if the order does not matter, those that are back.
        self._line: deque[Bundle] = deque()
        self._flying: set[Bundle] = set()
        self._back: deque[Bundle] = deque()
        self._segments: deque[Any] = deque()
        self._held = 0
        try:
            while self._may_send(ready=False):
                self._send()
        except BaseException:
            self.close()
            raise

    # ----------------------------------------------------------------------------------------------------------------
    # Handing out
    # ----------------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Results[R]:
        return self

    def __next__(self) -> R:
        try:
            value: R = self._take()
        except StopIteration:
            return self._advance()
        return value

    def _advance(self) -> R:
        while True:
            while self._segments:
                segment = self._segments.popleft()
                if isinstance(segment, _Failure):
                    self._raise(segment)
                self._take = iter(segment).__next__
                with contextlib.suppress(StopIteration):
                    value: R = self._take()
                    return value
            bundle = None if self._closed else self._next()
            if bundle is not None:
                self._open(bundle)
                continue
            # What the input raised comes last, and once.
            error, self._feed.error = self._feed.error, None
            self.close()
            if error is None:
                raise StopIteration
            raise error

    def _raise(self, failure: _Failure) -> None:
        error = failure.make()
        if isinstance(error, StopIteration):
            # As itself it would end the loop in silence.
            raise RuntimeError("the remote function raised StopIteration") from error  # noqa: TRY004
        raise error

    def _open(self, bundle: Bundle) -> None:
        """Lay out the results of a bundle, and the exceptions between them."""
        results, failures = bundle.outcome(self._feed.name)
        begin = 0
        for place, make in failures:
            if self._return_exceptions:
                results[place] = self._noted(make)()
                continue
            self._segments.append(results[begin:place])
            self._segments.append(_Failure(self._noted(make)))
            begin = place + 1
        self._segments.append(results[begin:] if begin else results)

    def _noted(self, make: Maker) -> Maker:
        broken = self._broken
        if broken is None:
            return make

        def noted() -> BaseException:
            error = make()
            if isinstance(error, InitializerFailed):
                broken(error)
            return error

        return noted

    # ----------------------------------------------------------------------------------------------------------------
    # Waiting and sending
    # ----------------------------------------------------------------------------------------------------------------

    def _next(self) -> Bundle | None:
        """Return the next bundle that is done, or None at the end; meanwhile, keep the workers busy."""
        inbox = self._feed.inbox
        while True:
            while not inbox.empty():
                self._land(inbox.get())
            ready = bool(self._back) or (self._ordered and bool(self._line) and self._line[0] not in self._flying)
            if self._may_send(ready):
                self._send()
            elif ready:
                bundle = self._line.popleft() if self._ordered else self._back.popleft()
                if not self._ordered:
                    self._line.remove(bundle)
                self._held -= bundle.value_bytes
                return bundle
            elif not self._line:
                return None
            else:
                self._land(self._wait())

    def _may_send(self, ready: bool) -> bool:
        if self._feed.exhausted:
            return False
        if ready:
            # Results that are there must not wait for an input that takes its time.
            return len(self._line) < self._window and not self._feed.slow
        return len(self._flying) < self._window and len(self._line) < self._window + self._spare and self._held < _HELD

    def _send(self) -> None:
        bundles = self._feed.next()
        self._line.extend(bundles)
        self._flying.update(bundles)

    def _wait(self) -> Bundle:
        self._feed.session.check_fork()
        if self._until is None:
            return self._feed.inbox.get()
        try:
            return self._feed.inbox.get(timeout=max(0.0, self._until - _clock()))
        except queue.Empty:
            self.close()
            raise concurrent.futures.TimeoutError from None

    def _land(self, bundle: Bundle) -> None:
        """Take in that a bundle is done."""
        self._flying.discard(bundle)
        instead = self._feed.again(bundle)
        if instead is not None:
            place = self._line.index(bundle)
            self._line.rotate(-place)
            self._line.popleft()
            self._line.extendleft(reversed(instead))
            self._line.rotate(place)
            self._flying.update(instead)
            return
        self._feed.landed(bundle)
        self._held += bundle.value_bytes
        if not self._ordered:
            self._back.append(bundle)
        if self._progress is not None:
            self._progress.add(bundle.size)

    def close(self) -> None:
        """Cancel the calls that have not begun, and forget the results of all others. The iterator is at its end."""
        if self._closed:
            return
        self._closed = True
        self._take = _nothing
        self._segments.clear()
        self._line.clear()
        self._back.clear()
        flying, self._flying = self._flying, set()
        for bundle in flying:
            if not bundle.done:
                self._feed.carrier.cancel(bundle, False)
        if self._progress is not None:
            self._progress.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
