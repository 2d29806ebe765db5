"""The sending half of a map: takes items from the input, and sends them alone or in groups."""

from __future__ import annotations

import pickle
import queue
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from evener import _remote
from evener._echo import Output, adorn
from evener._errors import EngineLost, EvenerError, SerializationError
from evener._future import PROBLEM, VALUE
from evener._pace import Pace
from evener._pickling import group_input

if TYPE_CHECKING:
    from evener._sender import Sender
    from evener._session import Carrier, Order, Session, Watcher

# A group whose input is larger than this many bytes is cut in two.
_LARGE = 4 * 1_048_576

# How long items are gathered for one group, and what makes an input slow, for each item, in seconds.
_GATHER = 0.005
_SLOW = 0.001

# The problems of a group whose calls may be sent again, one by one: always, or as often as `retries` allows.
_NEVER_BEGUN = frozenset(("body-too-large",))
_BEGUN = frozenset(("worker-died", "result-too-large"))

_loads = pickle.loads
_clock = time.monotonic

# What makes an exception when it is its turn to be raised.
Maker = Callable[[], BaseException]


class Bundle:
    """Items that travel together, and what became of them."""

    __slots__ = (
        "_echo",
        "_inbox",
        "_number",
        "_watcher",
        "event",
        "failure",
        "input_bytes",
        "items",
        "output",
        "single",
        "size",
    )

    def __init__(
        self, size: int, single: bool, inbox: queue.SimpleQueue[Bundle], echo: bool, watcher: Watcher | None
    ) -> None:
        self._number = 0
        self._inbox = inbox
        self._echo = echo
        self._watcher = watcher
        self.size = size
        # A single call has the input and the value of a call, and not of a group.
        self.single = single
        self.event: tuple[Any, ...] | None = None
        # Why it was never sent.
        self.failure: Exception | None = None
        self.output: Output | None = None
        self.input_bytes = 0
        # The items, while they may have to be sent again.
        self.items: list[Any] | None = None

    @property
    def done(self) -> bool:
        """Whether it is known what became of it."""
        return self.event is not None or self.failure is not None

    @property
    def value_bytes(self) -> int:
        """How many bytes of results wait in it."""
        return len(self.event[2]) if self.event is not None and self.event[1] == VALUE else 0

    def outcome(self, name: str) -> tuple[list[Any], list[tuple[int, Maker]]]:
        """Return the results, and the places at which there is an exception instead."""
        event = self.event
        if event is None:
            failure = self.failure
            assert failure is not None
            return [None], [(0, lambda: failure)]
        if event[1] == VALUE:
            try:
                value = _loads(event[2])
            except Exception as error:  # noqa: BLE001 (unpickling runs code of any kind)
                kept = error
                return self._all(lambda: _remote.unreadable(name, kept))
            if self.single:
                return [value], []
            results, failures = value
            return results, [(place, self._raised(blob)) for place, blob in failures]
        return self._all(lambda: _remote.failure_of(event))

    def _all(self, make: Maker) -> tuple[list[Any], list[tuple[int, Maker]]]:
        made = self._adorned(make)
        return [None] * self.size, [(place, made) for place in range(self.size)]

    def _raised(self, blob: bytes) -> Maker:
        return self._adorned(lambda: _remote.exception_of(blob))

    def _adorned(self, make: Maker) -> Maker:
        def adorned() -> BaseException:
            error = make()
            adorn(error, self.output)
            return error

        return adorned

    def _hear(self, stream: int, data: bytes, truncated: bool) -> None:
        if self.output is None:
            self.output = Output(self._echo)
        self.output.add(stream, data, truncated)

    def _settle(self, event: tuple[Any, ...]) -> None:
        if self.output is not None:
            self.output.end()
        self.event = event
        self._inbox.put(self)
        if self._watcher is not None:
            self._watcher.settled(self, None)

    def _be_lost_in_fork(self, _error: BaseException) -> None:
        # Whoever iterates in the child asks the session first.
        self._watcher = None


class Route(NamedTuple):
    """Where bundles go: the session; what sends and cancels, if that is not the session; and who keeps count."""

    carrier: Carrier | None = None
    watcher: Watcher | None = None


class Feed:
    """Takes items and sends them; the bundles come back through `inbox` when they are done."""

    def __init__(
        self,
        sender: Sender,
        items: Iterator[Any],
        spread: bool,
        chunksize: int | None,
        total: int | None,
        route: Route = Route(),  # noqa: B008 (it is a tuple)
    ) -> None:
        self.inbox: queue.SimpleQueue[Bundle] = queue.SimpleQueue()
        # Nothing more will come from the input; and what it raised, if it did not just end.
        self.exhausted = False
        self.error: BaseException | None = None
        # Whether the input takes its time, so that results that are there should not wait for it.
        self.slow = False
        self.name = sender.name
        self._sender = sender
        # Held here, because the sender may hold it weakly.
        self._function = sender.function
        self._items = items
        self._spread = spread
        self._route = route
        self._begun = False
        self._prepare(sender.ready())
        options = sender.options
        self.workers = max(1, self.session.pools[options.pool].workers)
        self._pace = Pace(self.workers, total)
        # A timeout is for one call, and a group would have to share it.
        self._fixed = 1 if chunksize is None and options.timeout is not None else chunksize

    def _prepare(self, ready: tuple[Session, Order]) -> None:
        self.session, self._order = ready
        self.carrier: Carrier = self._route.carrier or self.session

    def next(self) -> list[Bundle]:
        """Send the next items, and return the bundles that they became; an empty list if there were none."""
        items = self._gather(self._fixed or self._pace.next_size())
        self._pace.sent(len(items))
        return self._pack(items) if items else []

    def landed(self, bundle: Bundle) -> None:
        """Learn from a bundle that came back."""
        event = bundle.event
        if event is not None and event[1] == VALUE:
            self._pace.learn(bundle.size, event[4], bundle.input_bytes, len(event[2]), event[3])

    def again(self, bundle: Bundle) -> list[Bundle] | None:
        """Send the calls of a lost group one by one, if they may be; return their bundles."""
        event, items = bundle.event, bundle.items
        bundle.items = None
        if event is None or items is None or event[1] != PROBLEM:
            return None
        retries = self._order.retries
        if event[2] in _BEGUN and retries:
            retries -= 1
        elif event[2] not in _NEVER_BEGUN:
            return None
        return [self._one(item, self._order._replace(retries=retries)) for item in items]

    # ----------------------------------------------------------------------------------------------------------------
    # Taking
    # ----------------------------------------------------------------------------------------------------------------

    def _gather(self, size: int) -> list[Any]:
        """Take up to `size` items; fewer if they come slowly, because those that are there can go."""
        items: list[Any] = []
        began = _clock()
        step = size if self._fixed else 1
        try:
            while len(items) < size:
                before = len(items)
                wanted = min(size - before, step)
                # What was taken before the input raises stays in the list.
                items.extend(islice(self._items, wanted))
                if len(items) - before < wanted:
                    self.exhausted = True
                    break
                if not self._fixed and _clock() - began > _GATHER:
                    break
                step *= 2
        except Exception as error:  # noqa: BLE001 (it is raised when its turn comes)
            self.exhausted = True
            self.error = error
        self.slow = _clock() - began > _SLOW * max(1, len(items))
        return items

    # ----------------------------------------------------------------------------------------------------------------
    # Sending
    # ----------------------------------------------------------------------------------------------------------------

    def _pack(self, items: list[Any]) -> list[Bundle]:
        size = len(items)
        if size == 1:
            return [self._one(items[0], self._order)]
        try:
            payload = group_input(self._sender.options.by_value, self._spread, items)
        except Exception:  # noqa: BLE001 (which item it is shows when each is sent by itself)
            return [self._one(item, self._order) for item in items]
        if len(payload) > _LARGE and not self._fixed:
            return self._pack(items[: size // 2]) + self._pack(items[size // 2 :])
        order = self._order
        timeout = None if order.timeout is None else order.timeout * size
        bundle = self._bundle(size, payload)
        # What dies with its worker is sent again from here, one by one; the engine would send all of it again.
        bundle.items = items if order.retries or len(payload) > _LARGE else None
        self._send(bundle, order._replace(retries=0, timeout=timeout), payload)
        return [bundle]

    def _one(self, item: Any, order: Order) -> Bundle:
        try:
            arguments = tuple(item) if self._spread else (item,)
            payload = self._sender.input(arguments, None)
        except (SerializationError, TypeError) as error:
            # It cannot travel, or it is no tuple of arguments.
            bundle = self._bundle(1, b"")
            bundle.failure = error
            self.inbox.put(bundle)
            return bundle
        bundle = self._bundle(1, payload, single=True)
        self._send(bundle, order, payload)
        return bundle

    def _bundle(self, size: int, payload: bytes, single: bool = False) -> Bundle:
        bundle = Bundle(size, single, self.inbox, self._order.echo, self._route.watcher)
        bundle.input_bytes = len(payload)
        return bundle

    def _send(self, bundle: Bundle, order: Order, payload: bytes) -> None:
        group = not bundle.single
        try:
            try:
                self.carrier.send(bundle, order, payload, group)
            except EngineLost:
                if self._begun:
                    raise
                # There may be another engine by now.
                self._prepare(self._sender.prepare())
                self.carrier.send(bundle, order, payload, group)
        except EvenerError as error:
            bundle.failure = error
            self.exhausted = True
            self.inbox.put(bundle)
            return
        self._begun = True
