"""The floor probe: what a message between two processes costs on this machine at this moment.

One byte string goes back and forth over a Unix socket pair between this process and a partner. With both on one
processor, the rate tells how much of that processor is really ours; nothing that is being compared has a part in it, so
when it moves, the machine moved. With one on each of two, the median round trip tells what waking the other processor
costs. On a virtual machine that differs from one moment to the next by far more than anything else does, so it is
written down but decides nothing.

Run as a program, this file is the partner.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

SIZE = 64
ECHO, MOVE = 0, 1


@dataclass(frozen=True)
class Floor:
    """One reading: round trips a second on each single processor, and microseconds from one to another and back."""

    alone: tuple[float, ...]
    across_us: float | None

    def moved(self, other: Floor) -> float:
        """By what share the rates of the two readings differ, all processors taken together."""
        both = sum(self.alone), sum(other.alone)
        return max(both) / min(both) - 1


class Probe:
    """Holds the partner process; between readings it sleeps and costs nothing."""

    def __init__(self) -> None:
        """Start the partner."""
        self._socket, theirs = socket.socketpair()
        self._partner = subprocess.Popen(
            [sys.executable, "-S", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        self._processors = sorted(os.sched_getaffinity(0))
        self.read(0.05)

    def read(self, seconds: float) -> Floor:
        """Take one reading; each of its parts lasts the given time."""
        try:
            alone = []
            for processor in self._processors[:2]:
                trips = self._bounce(processor, processor, seconds)
                alone.append(len(trips) / (sum(trips) / 1e9))
            across = None
            if len(self._processors) > 1:
                trips = sorted(self._bounce(self._processors[0], self._processors[1], 2 * seconds))
                across = trips[len(trips) // 2] / 1000
        finally:
            os.sched_setaffinity(0, self._processors)
        return Floor(tuple(alone), across)

    def _bounce(self, mine: int, theirs: int, seconds: float) -> list[int]:
        """Nanoseconds of each round trip, with the two ends on the given processors."""
        os.sched_setaffinity(0, {mine})
        self._socket.send(bytes([MOVE, theirs]).ljust(SIZE))
        self._socket.recv(SIZE)
        message = bytes([ECHO]).ljust(SIZE)
        trips = []
        now = time.perf_counter_ns()
        end = now + int(seconds * 1e9)
        while now < end:
            self._socket.send(message)
            self._socket.recv(SIZE)
            then, now = now, time.perf_counter_ns()
            trips.append(now - then)
        return trips

    def close(self) -> None:
        """End the partner, which leaves when its socket closes."""
        self._socket.close()
        try:
            self._partner.wait(2)
        except subprocess.TimeoutExpired:
            self._partner.kill()
            self._partner.wait()


def _partner(descriptor: int) -> None:
    # An end in the middle of a reading is as good as any other.
    with contextlib.suppress(ConnectionError), socket.socket(fileno=descriptor) as peer:
        while message := peer.recv(SIZE):
            if message[0] == MOVE:
                os.sched_setaffinity(0, {message[1]})
            peer.send(message)


if __name__ == "__main__":
    _partner(int(sys.argv[1]))
