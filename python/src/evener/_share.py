"""What stands between the calls of one executor and the session: it counts them, and sends no more than its share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evener._errors import EngineLost, EvenerError, InitializerFailed
from evener._future import PROBLEM, Future

if TYPE_CHECKING:
    from evener._session import Order, Session, Sink


class Share:
    """Carries the calls of an executor, and keeps watch over them.

    At most `most` of them are with the engine at a time, if that is given; the rest wait here. `ended` is called once
    it is closed and the last call is over.
    """

    def __init__(self, source: Callable[[], Session], most: int | None, ended: Callable[[], None]) -> None:
        self._source = source
        self._most = most
        self._ended = ended
        self._changed = threading.Condition()
        # Calls that are not over; those of them that are with the engine; and those that wait for their turn.
        self._out: set[Any] = set()
        self._sent: set[Any] = set()
        self._waiting: dict[Any, tuple[Order, bytes, bool]] = {}
        self._closed = False
        self._broken: InitializerFailed | None = None

    # ----------------------------------------------------------------------------------------------------------------
    # For the executor
    # ----------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise why no more calls are taken, if that is so."""
        if self._broken is not None:
            raise InitializerFailed(str(self._broken)) from self._broken.__cause__
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def close(self, wait: bool, cancel: bool) -> None:
        """Take no more calls; cancel those that have not begun, or not; wait until all are over, or not."""
        with self._changed:
            self._closed = True
            out = list(self._out) if cancel else ()
        for sink in out:
            self._give_up(sink)
        if wait:
            with self._changed:
                self._changed.wait_for(lambda: not self._out)
        if not self._out:
            self._ended()

    def _give_up(self, sink: Any) -> None:
        if isinstance(sink, Future):
            sink.cancel()
            return
        with self._changed:
            unsent = self._waiting.pop(sink, None)
        if unsent is not None:
            sink._settle(_problem("cancelled", "the executor was shut down"))
        else:
            self._source().cancel(sink, False)

    def broke(self, error: InitializerFailed) -> None:
        """Take no more calls, because the initializer fails."""
        self._broken = error

    def leave_to_parent(self) -> None:
        """Forget all calls in a child process: they are the parent's."""
        self._changed = threading.Condition()
        self._out = set()
        self._sent = set()
        self._waiting = {}

    # ----------------------------------------------------------------------------------------------------------------
    # For the calls
    # ----------------------------------------------------------------------------------------------------------------

    def send(self, sink: Sink, order: Order, payload: bytes, group: bool = False) -> None:
        """Send a call, or keep it until it is its turn."""
        with self._changed:
            self.check()
            self._out.add(sink)
            if self._most is not None:
                if len(self._sent) >= self._most:
                    self._waiting[sink] = (order, payload, group)
                    return
                self._sent.add(sink)
        try:
            try:
                self._source().send(sink, order, payload, group)
            except EngineLost:
                # It was not sent, and there may be another engine by now.
                self._source().send(sink, order, payload, group)
        except BaseException:
            self._forget(sink)
            raise

    def cancel(self, sink: Sink, kill: bool) -> bool:
        """Cancel a call, and return whether it is cancelled."""
        with self._changed:
            unsent = self._waiting.pop(sink, None) is not None
        if unsent:
            # Nobody else will ever tell of it.
            self._forget(sink)
            return True
        return self._source().cancel(sink, kill)

    def settled(self, sink: Any, error: BaseException | None) -> None:
        """Note that a call is over, and send the next."""
        if isinstance(error, InitializerFailed):
            self.broke(error)
        self._forget(sink)
        if self._most is not None:
            self._send_next(self._most)
        if self._closed and not self._out:
            self._ended()

    def _forget(self, sink: Any) -> None:
        with self._changed:
            self._out.discard(sink)
            self._sent.discard(sink)
            if not self._out:
                self._changed.notify_all()

    def _send_next(self, most: int) -> None:
        while True:
            with self._changed:
                if not self._waiting or len(self._sent) >= most:
                    return
                sink = next(iter(self._waiting))
                order, payload, group = self._waiting.pop(sink)
                self._sent.add(sink)
            try:
                self._source().send(sink, order, payload, group)
            except EvenerError as error:
                self._fail(sink, str(error))
                return

    def _fail(self, sink: Any, why: str) -> None:
        """Fail a call that cannot be sent any more, and with it all that wait."""
        with self._changed:
            sinks = [sink, *self._waiting]
            self._waiting.clear()
        for each in sinks:
            each._settle(_problem("engine-lost", why))


def _problem(code: str, detail: str) -> tuple[Any, ...]:
    return (0, PROBLEM, code, detail, "", False, 0, 0)
