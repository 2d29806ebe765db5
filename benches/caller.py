"""A client process of functions.py: holds one system that runs Python functions, and loads it as it is told.

    python benches/caller.py SYSTEM --workers N

Reads one JSON object a line from standard input, {"load": NAME, "seconds": S, "calls": N}, carries it out, and answers
with one line on standard output: how many calls, in how many seconds, the latencies if they were taken, and the CPU
seconds of this process alone. Every result is compared with what it must be. It ends with its input.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import work

PAYLOAD = os.urandom(1 << 20)
GATHERED = 5_000
MILLION = 1_000_000
CHUNK = 1_000


class Wrong(Exception):
    """A result is not what it must be."""


class System:
    """What every system has to be able to do. Those that cannot do something are not asked to."""

    def submit(self, value: Any) -> Any:
        """Begin a call, and give something that `gather` takes."""
        raise NotImplementedError

    def gather(self, begun: list[Any]) -> list[Any]:
        """Wait for all, and give their results in order."""
        return [each.result() for each in begun]

    def run(self, value: Any) -> Any:
        """Call, and wait for the result."""
        return self.submit(value).result()

    def map(self, count: int) -> Iterator[Any]:
        """Call with 0, 1, … and give the results in order."""
        raise NotImplementedError


class Evener(System):
    """A private engine."""

    def __init__(self, workers: int) -> None:
        """Start it."""
        import evener

        self.function = evener.Client(workers=workers).function(work.same)
        self.submit = self.function.submit
        self.run = self.function.run

    def map(self, count: int) -> Iterator[Any]:
        """As it comes, with groups of its own choice."""
        return self.function.map(range(count))


class Pool(System):
    """concurrent.futures.ProcessPoolExecutor."""

    def __init__(self, workers: int) -> None:
        """Start it."""
        self.pool = concurrent.futures.ProcessPoolExecutor(workers)

    def submit(self, value: Any) -> Any:
        """As any executor."""
        return self.pool.submit(work.same, value)

    def map(self, count: int) -> Iterator[Any]:
        """In chunks, which is the most that it can do."""
        return self.pool.map(work.same, range(count), chunksize=CHUNK)


class Ray(System):
    """Ray, on this machine alone."""

    def __init__(self, workers: int) -> None:
        """Start it."""
        import ray

        self.ray = ray
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            logging_level="ERROR",
            object_store_memory=512 << 20,
            _temp_dir=os.environ["TMPDIR"] + "/ray",
        )
        self.submit = ray.remote(work.same).remote

    def gather(self, begun: list[Any]) -> list[Any]:
        """All at once, which is quicker than one after the other."""
        return self.ray.get(begun)

    def run(self, value: Any) -> Any:
        """Call, and wait for the result."""
        return self.ray.get(self.submit(value))


class Relay(System):
    """The limit: the pickled bytes go to a relay process, from there to a worker process, and back, and that is all.

    With `pickles` the worker unpickles and pickles, and so does this end, as any system that calls functions has to.
    """

    def __init__(self, pickles: bool) -> None:
        """Start both processes."""
        self.pickles = pickles
        self.socket, theirs = socket.socketpair()
        ahead, last = socket.socketpair()
        hop = [sys.executable, "-S", __file__, "--hop"]
        kind = "pickles" if pickles else "bytes"
        passed = [([theirs, ahead], ["relay"]), ([last], [kind])]
        self.processes = [
            subprocess.Popen(
                [*hop, *words, *(str(end.fileno()) for end in ends)], pass_fds=[end.fileno() for end in ends]
            )
            for ends, words in passed
        ]
        for end in (theirs, ahead, last):
            end.close()
        self.room = bytearray()
        self.sent: tuple[Any, bytes] = (None, b"")

    def run(self, value: Any) -> Any:
        """There and back. Without `pickles`, what is sent is pickled once and not at each call."""
        if self.pickles:
            send(self.socket, pickle.dumps(((value,), None), 5))
            return pickle.loads(receive(self.socket, self.room))
        if self.sent[0] is not value:
            self.sent = (value, pickle.dumps(((value,), None), 5))
        send(self.socket, self.sent[1])
        # Compared so, it is one memcmp; a memoryview would be compared byte by byte.
        if len(receive(self.socket, self.room)) != len(self.sent[1]) or not self.room.startswith(self.sent[1]):
            raise Wrong("the relay brought other bytes back")
        return value

    def submit(self, value: Any) -> Any:
        """Only for the first check."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(self.run(value))
        return future


def send(end: socket.socket, data: bytes | memoryview) -> None:
    """Write a message: its length, and itself."""
    end.sendall(len(data).to_bytes(8, "little"))
    end.sendall(data)


def receive(end: socket.socket, room: bytearray) -> memoryview:
    """Read a whole message into `room`, which grows as needed; empty at the end of the stream."""
    head = bytearray(8)
    if not _fill(end, memoryview(head)):
        return memoryview(b"")
    length = int.from_bytes(head, "little")
    if len(room) < length:
        room.extend(bytes(length - len(room)))
    whole = memoryview(room)[:length]
    _fill(end, whole)
    return whole


def _fill(end: socket.socket, place: memoryview) -> bool:
    while place:
        count = end.recv_into(place)
        if not count:
            return False
        place = place[count:]
    return True


def hop(kind: str, descriptors: list[int]) -> None:
    """Be the relay, between two sockets, or the worker, at the end of one."""
    ends = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    room, back = bytearray(), bytearray()
    while message := receive(ends[0], room):
        if kind == "relay":
            send(ends[1], message)
            send(ends[0], receive(ends[1], back))
        elif kind == "bytes":
            send(ends[0], message)
        else:
            (value,), _ = pickle.loads(message)
            # A memoryview holds on to `room`; it has to be let go before the room can grow.
            send(ends[0], pickle.dumps(work.same(value), 5))
        message.release()


def gathered(system: System, until: float, _calls: int) -> tuple[int, list[int]]:
    """Submit many calls, then gather all of them; again until the time is over."""
    done = 0
    while True:
        results = system.gather([system.submit(number) for number in range(GATHERED)])
        if results != list(range(GATHERED)):
            raise Wrong("the gathered results are not what was sent")
        done += GATHERED
        if time.perf_counter() > until:
            return done, []


def single(system: System, until: float, _calls: int) -> tuple[int, list[int]]:
    """One call at a time."""
    return _closed(system, until, lambda number: number)


def echo(system: System, until: float, _calls: int) -> tuple[int, list[int]]:
    """One call at a time with 1 MiB, which comes back."""
    return _closed(system, until, lambda _number: PAYLOAD)


def _closed(system: System, until: float, value: Callable[[int], Any]) -> tuple[int, list[int]]:
    took: list[int] = []
    now = time.perf_counter_ns()
    end = int(until * 1e9)
    while now < end or not took:
        sent = value(len(took))
        if system.run(sent) != sent:
            raise Wrong("a result is not what was sent")
        then, now = now, time.perf_counter_ns()
        took.append(now - then)
    return len(took), took


def mapped(system: System, until: float, calls: int) -> tuple[int, list[int]]:
    """Map over a range of so many numbers (a million unless said otherwise), and again until the time is over."""
    count, done = calls or MILLION, 0
    while True:
        if sum(system.map(count)) != count * (count - 1) // 2:
            raise Wrong("the mapped results are not what was sent")
        done += count
        if time.perf_counter() > until:
            return done, []


LOADS = {"gathered": gathered, "single": single, "echo": echo, "map": mapped}
SYSTEMS: dict[str, Callable[[int], System]] = {
    "evener": Evener,
    "pool": Pool,
    "ray": Ray,
    "relay": lambda _workers: Relay(pickles=False),
    "pickling-relay": lambda _workers: Relay(pickles=True),
}


def obey(system: System, order: dict[str, Any]) -> dict[str, Any]:
    """Carry one order out."""
    cpu, began = time.process_time(), time.perf_counter()
    calls, took = LOADS[order["load"]](system, began + order["seconds"], order.get("calls", 0))
    found = {"calls": calls, "seconds": time.perf_counter() - began, "client_cpu": time.process_time() - cpu}
    if took:
        took.sort()
        shares = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "max_us": 1.0}
        found |= {name: took[min(int(share * len(took)), len(took) - 1)] / 1000 for name, share in shares.items()}
    return found


def main() -> None:
    """Start the system, say so, and obey."""
    if sys.argv[1:2] == ["--hop"]:
        return hop(sys.argv[2], [int(word) for word in sys.argv[3:]])
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("system", choices=SYSTEMS)
    arguments.add_argument("--workers", type=int, default=2)
    chosen = arguments.parse_args()
    # What a system prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.closing(answers):
        system = SYSTEMS[chosen.system](chosen.workers)
        # So many calls that every worker has had some.
        for _ in range(50):
            system.gather([system.submit(number) for number in range(4 * chosen.workers)])
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(obey(system, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
