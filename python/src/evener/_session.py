"""One connection to an engine: what is sent goes through here, and one thread brings back what comes."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from evener import _errors, _remote
from evener._echo import Output, adorn
from evener._future import PROBLEM, VALUE, Future
from evener._pickling import PYTHON, Body

if TYPE_CHECKING:
    from evener import _bridge
    from evener._engine import Engine

_loads = pickle.loads

# How long closing waits for the last events, in seconds.
_PATIENCE = 5.0


class Sink(Protocol):
    """Whoever is to be told what happens to a call."""

    _number: int

    def _hear(self, stream: int, data: bytes, truncated: bool) -> None:
        """The call has written something."""

    def _settle(self, event: tuple[Any, ...]) -> None:
        """The call has ended. Called exactly once, in the session's thread."""

    def _be_lost_in_fork(self, error: BaseException) -> None:
        """This process is a fork of the one that waits for the call."""


class Carrier(Protocol):
    """What sends calls, and can cancel them: a session, or what stands in front of it."""

    def send(self, sink: Sink, order: Order, payload: bytes, group: bool = False) -> None:
        """Send a call, or a group of calls, of which `sink` is told."""

    def cancel(self, sink: Sink, kill: bool) -> bool:
        """Cancel a call; return whether it is cancelled."""


class Watcher(Protocol):
    """Whoever keeps count of calls."""

    def settled(self, sink: Any, error: BaseException | None) -> None:
        """The call is over, and its future says so."""


class Order(NamedTuple):
    """How calls of one function are to be done."""

    hash: bytes
    body: Body
    pool: str
    retries: int
    timeout: float | None
    priority: int
    discard: bool
    echo: bool
    name: str


class Pool(NamedTuple):
    """A function pool of an engine: its `name`, the minor version of its `python`, and how many `workers` it has."""

    name: str
    python: str
    workers: int


class Session:
    """One connection, which many threads may use at once.

    `over` is None while it can be used; afterwards it is the type and the text of the error that every use raises.
    """

    def __init__(self, bridge: _bridge.Session, where: str, engine: Engine | None = None) -> None:
        self.over: tuple[type[_errors.EvenerError], str] | None = None
        self.where = where
        self.node: str = bridge.node
        self.pools = {name: Pool(name, python, workers) for name, python, workers in bridge.pools}
        self._bridge = bridge
        self._engine = engine
        self._submit = bridge.submit
        self._call = bridge.call
        # A signal handler may come here while its own thread is here already.
        self._lock = threading.RLock()
        self._pending: dict[int, Sink] = {}
        self._defined: set[bytes] = set()
        self._thread: threading.Thread | None = None
        # Why the engine is gone, if it is.
        self._loss: str | None = None
        # Closes the session once nothing is pending, if its owner has gone without closing it.
        self._abandoned = False
        _live.add(self)

    # ----------------------------------------------------------------------------------------------------------------
    # Sending
    # ----------------------------------------------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """Return the pool of this name. Raises `UnknownPool`, or `PythonMismatch` if functions cannot travel there."""
        self.check()
        pool = self.pools.get(name)
        if pool is None:
            has = ", ".join(sorted(self.pools)) or "none at all"
            raise _errors.UnknownPool(
                f"the engine at {self.where} has no function pool {name!r}; it has {has}. Name one of them as pool=, "
                "or add the pool to `functions:` in the engine's service file"
            )
        # A pool none of whose workers has started yet does not know its version.
        if pool.python and pool.python != PYTHON:
            raise _errors.PythonMismatch(
                f"this is Python {PYTHON}, and the pool {name!r} of the engine at {self.where} runs Python "
                f"{pool.python}; functions travel between equal minor versions only. Start the engine with an "
                f"interpreter of Python {PYTHON}, or run this program with Python {pool.python}"
            )
        return pool

    def _define(self, body: Body) -> None:
        """Make a function known to the engine."""
        try:
            self._bridge.define(body.hash, body.name, PYTHON, body.data)
        except Exception as error:  # noqa: BLE001 (it is raised again)
            self._fail(error)
        self._defined.add(body.hash)

    def submit(self, order: Order, payload: bytes) -> Future[Any]:
        """Send one call and return its future."""
        future: Future[Any] = Future(self, order)
        self.send(future, order, payload)
        return future

    def send(self, sink: Sink, order: Order, payload: bytes, group: bool = False) -> None:
        """Send a call, or a group of calls, of which `sink` is told."""
        if order.hash not in self._defined:
            self._define(order.body)
        if self._thread is None:
            self._start()
        try:
            with self._lock:
                number = sink._number = self._submit(
                    order.hash, order.pool, payload, group, order.retries, order.timeout, order.priority, order.discard
                )
                self._pending[number] = sink
        except Exception as error:  # noqa: BLE001 (it is raised again)
            self._fail(error)

    def begin(self, order: Order, payload: bytes) -> _bridge.Direct:
        """Send one call whose outcome `finish` waits for, in the thread that wants it."""
        if order.hash not in self._defined:
            self._define(order.body)
        try:
            return self._call(
                order.hash, order.pool, payload, False, order.retries, order.timeout, order.priority, order.discard
            )
        except Exception as error:  # noqa: BLE001 (it is raised again)
            self._fail(error)

    def finish(self, order: Order, handle: _bridge.Direct) -> Any:
        """Wait for the outcome of a call, and return or raise it."""
        output: Output | None = None
        event: tuple[Any, ...] | None = None
        try:
            while event is None:
                for heard in handle.wait(None):
                    if heard[1]:
                        event = heard
                        break
                    if output is None:
                        output = Output(order.echo)
                    output.add(heard[2], heard[3], heard[4])
        except BaseException:
            # Ctrl-C, or what another signal handler raised: nobody will ever take this call's result.
            self._cancel(handle.number, True)
            raise
        if output is not None:
            output.end()
        if event[1] == VALUE:
            try:
                return _loads(event[2])
            except Exception as error:
                raise _remote.unreadable(order.name, error) from error
        failure = _remote.failure_of(self._annotated(event))
        adorn(failure, output)
        raise failure

    def wait_ready(self) -> None:
        """Wait until the workers of a private engine are up."""
        if self._engine is not None:
            self._engine.wait_ready()

    def workers(self, pool: str) -> list[tuple[int, str, str, int, int, bool]]:
        """Ask the engine for the workers of a pool; an empty name stands for all pools."""
        self.check()
        try:
            return self._bridge.workers(pool)
        except Exception as error:  # noqa: BLE001 (it is raised again)
            self._fail(error)

    def check(self) -> None:
        """Raise what makes this session unusable, if something does."""
        over = self.over
        if over is not None:
            raise over[0](over[1])

    def check_fork(self) -> None:
        """Raise `ForkError` in a fork, where nothing would ever come."""
        if self.over is not None and self.over[0] is _errors.ForkError:
            self.check()

    def _fail(self, error: Exception) -> NoReturn:
        """Raise what an exception of the bridge means."""
        from evener._bridge import BridgeError  # noqa: PLC0415 (the compiled part; tests put another in its place)

        self.check()
        if not isinstance(error, BridgeError):
            raise error
        kind, message = error.args
        if kind in ("lost", "closed"):
            self._lose(message)
            self.check()
        raise _errors.EvenerError(message) from None

    # ----------------------------------------------------------------------------------------------------------------
    # Cancelling
    # ----------------------------------------------------------------------------------------------------------------

    def cancel(self, sink: Sink, kill: bool) -> bool:
        """Ask the engine to cancel a call, and return whether it is cancelled."""
        return self._cancel(sink._number, kill)

    def _cancel(self, number: int, kill: bool) -> bool:
        if self.over is not None:
            return False
        try:
            return self._bridge.cancel(number, kill)
        except Exception:  # noqa: BLE001 (a session that ended has settled the call by itself)
            return False

    # ----------------------------------------------------------------------------------------------------------------
    # Receiving
    # ----------------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            self.check()
            if self._thread is None:
                thread = threading.Thread(target=self._receive, name="evener-session", daemon=True)
                thread.start()
                self._thread = thread

    def _receive(self) -> None:
        """Tell each sink what happens to its call, until the session is over."""
        wait, pending = self._bridge.wait, self._pending
        why = "the connection ended"
        try:
            while True:
                events = wait(None)
                if events is None:
                    break
                for event in events:
                    if event[1]:
                        sink = pending.pop(event[0], None) or self._late(event[0], pending.pop)
                        if event[1] == PROBLEM:
                            event = self._annotated(event)  # noqa: PLW2901
                        if sink is not None:
                            _settle(sink, event)
                    else:
                        sink = pending.get(event[0]) or self._late(event[0], pending.get)
                        if sink is not None:
                            sink._hear(event[2], event[3], event[4])
                # What came may be large, and the next may take a while.
                events = event = sink = None  # type: ignore[assignment, unused-ignore]
                if self._abandoned and not pending:
                    self.close()
        except BaseException as error:  # noqa: BLE001 (whatever it was, nobody may wait in vain)
            _log.exception("the thread that receives results from the engine ended")
            why = f"the thread that receives results ended: {error!r}"
        # After `close` the engine is not lost, and how it ended is no question.
        if self.over is None:
            why = self._lose(why)
        while pending:
            with self._lock:
                _number, sink = pending.popitem()
            _settle(sink, (0, PROBLEM, "engine-lost", why, "", True, 0, 0))

    def _late(self, number: int, take: Callable[[int, None], Sink | None]) -> Sink | None:
        # Its events may be here before `send` has noted its number; that one holds the lock.
        with self._lock:
            return take(number, None)

    def _annotated(self, event: tuple[Any, ...]) -> tuple[Any, ...]:
        """Add how a private engine ended to the news that it is lost."""
        if event[1] != PROBLEM or event[2] != "engine-lost":
            return event
        return (*event[:3], self._lose(event[3]), *event[4:])

    def _lose(self, message: str) -> str:
        """Note that the engine is gone, and return why, as far as that is known."""
        if self._loss is None:
            ending = self._engine.ending() if self._engine is not None else ""
            self._loss = f"{message}; {ending}" if ending else message
            if self._engine is not None:
                self._engine.stop()
        if self.over is None:
            self.over = (
                _errors.EngineLost,
                f"the engine at {self.where} is gone ({self._loss}), and this client with it; make a new evener.Client",
            )
        return self._loss

    # ----------------------------------------------------------------------------------------------------------------
    # The end
    # ----------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session, and the engine if it is a private one. Calls without an outcome fail with `EngineLost`."""
        if self.over is not None and self.over[0] is _errors.ForkError:
            return
        if self.over is None:
            self.over = (_errors.EngineLost, "this client was closed")
        self._bridge.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)
        if self._engine is not None:
            self._engine.stop()

    def abandon(self) -> None:
        """Close it as soon as nothing is pending: its owner is gone, but may have left futures behind."""
        self._abandoned = True
        if not self._pending:
            self.close()

    def _leave_to_parent(self) -> None:
        """Give up in a child process: the connection is the parent's."""
        self.over = (
            _errors.ForkError,
            "Evener was used in the parent process before this one was forked, and its connection cannot be shared. "
            'Start processes with multiprocessing.get_context("spawn") or "forkserver", or use Evener only after the '
            "fork",
        )
        self._lock = threading.RLock()
        pending, self._pending = list(self._pending.values()), {}
        for sink in pending:
            sink._be_lost_in_fork(self.over[0](self.over[1]))


def _settle(sink: Sink, event: tuple[Any, ...]) -> None:
    try:
        sink._settle(event)
    except BaseException:  # noqa: BLE001 (what user code raises in callbacks is no reason to stop)
        _log.exception("a callback of a remote call raised")


def _in_child() -> None:
    for session in list(_live):
        session._leave_to_parent()


_live: weakref.WeakSet[Session] = weakref.WeakSet()
_log = logging.getLogger("evener")

os.register_at_fork(after_in_child=_in_child)
