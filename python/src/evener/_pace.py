"""How many calls travel together: learned from how long they run and how large they are."""

from __future__ import annotations

# How long a group should run, and from where on a call travels alone, in nanoseconds.
_GROUP_NS = 8_000_000
_SLOW_NS = 1_000_000

# At most so many calls in a group, and about so many bytes in its input and in its value.
_MOST = 10_000
_BYTES = 1_048_576

# How much larger the next group may be than the largest that came back.
_GROWTH = 4


class Pace:
    """Decides the sizes of the groups of one map.

    It begins with single calls. While they turn out quick, groups grow until one runs for some milliseconds: long
    beside what it costs to send it, short enough that the workers end together. Calls of a millisecond or more travel
    alone, so that they spread evenly.
    """

    def __init__(self, workers: int, left: int | None) -> None:
        self._workers = max(1, workers)
        # How many items are still to be sent, if that is known.
        self._left = left
        self._each_ns: float | None = None
        self._each_bytes = 0.0
        self._largest = 1
        self._warm = False
        self._seen: set[int] = set()

    def next_size(self) -> int:
        """Return how many calls should travel together next."""
        each = self._each_ns
        if each is None or each >= _SLOW_NS:
            return 1
        size = min(_MOST, self._largest * _GROWTH, _GROUP_NS / max(each, 1.0))
        if self._each_bytes:
            size = min(size, _BYTES / self._each_bytes)
        if self._left is not None:
            # Towards the end groups shrink, so that no worker is left with a large one.
            size = min(size, self._left / (2 * self._workers) + 1)
        return max(1, int(size))

    def sent(self, size: int) -> None:
        """Note that so many items were sent."""
        if self._left is not None:
            self._left = max(0, self._left - size)

    def learn(self, size: int, ran_ns: int, input_bytes: int, value_bytes: int, worker: int) -> None:
        """Take in that a group came back: how long it ran, and the larger of its input and its value.

        What a worker does first is slower than all the rest: it has yet to load the function and what that imports. So
        it counts only until something else is known.
        """
        cold = worker not in self._seen
        self._seen.add(worker)
        self._largest = max(self._largest, size)
        self._each_bytes = max(self._each_bytes * 0.9, max(input_bytes, value_bytes) / size)
        each = ran_ns / size
        if self._each_ns is None or (not self._warm and not cold):
            self._each_ns = each
        elif not cold:
            self._each_ns += (each - self._each_ns) / 2
        self._warm = self._warm or not cold
