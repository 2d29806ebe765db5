"""What a run of the load test is compared with, and what is said of it: plain arithmetic, without Evener."""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def ideal(durations: Sequence[float], workers: int) -> float:
    """The time that the work would take if it could be cut at will, but not less than its longest call.

    No schedule is better; for most numbers there is none that is as good.
    """
    return max(sum(durations) / workers, max(durations))


def greedy(durations: Iterable[float], workers: int) -> float:
    """The time of list scheduling: in the order of submission, each call goes to the worker that is free first.

    That is the best that can be done without knowing beforehand how long a call will take (Graham, 1966).
    """
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


@dataclass(frozen=True)
class Call:
    """One call as it ran: its worker's process number, its begin and its end, in seconds from the first submit."""

    worker: int
    began: float
    ended: float


@dataclass(frozen=True)
class Run:
    """One load, measured."""

    workers: tuple[int, ...]
    calls: tuple[Call, ...]
    ideal: float
    greedy: float
    real: float

    @property
    def against_ideal(self) -> float:
        """The ideal time as a share of the real one."""
        return self.ideal / self.real

    @property
    def against_greedy(self) -> float:
        """The greedy schedule's time as a share of the real one."""
        return self.greedy / self.real

    def served(self) -> dict[int, int]:
        """How many workers served so many calls, those that served none included."""
        calls = collections.Counter({worker: 0 for worker in self.workers})
        calls.update(call.worker for call in self.calls)
        return dict(sorted(collections.Counter(calls.values()).items()))

    def __str__(self) -> str:
        """The run in the layout of the first load test of this kind."""
        lines = [
            "-" * 80,
            f"workers: {len(self.workers)}",
            f"calls: {len(self.calls)}",
            f"ideal_execution_time: {self.ideal:.6f}",
            f"greedy_execution_time: {self.greedy:.6f}",
            f"real_execution_time: {self.real:.6f}",
            f"effectiveness against ideal: {self.against_ideal:.2%}",
            f"effectiveness against greedy: {self.against_greedy:.2%}",
            "",
            "num of calls: served by num of workers",
        ]
        return "\n".join(lines + [f"{calls:>12}: {workers:>4}" for calls, workers in self.served().items()])

    def as_data(self) -> dict[str, object]:
        """The run as plain data."""
        return {
            "workers": len(self.workers),
            "calls": len(self.calls),
            "ideal": self.ideal,
            "greedy": self.greedy,
            "real": self.real,
            "against_ideal": self.against_ideal,
            "against_greedy": self.against_greedy,
            "served": {str(calls): workers for calls, workers in self.served().items()},
        }


def table(runs: Sequence[Run]) -> str:
    """The runs as a table of Markdown."""
    rows = [
        "| workers | calls | ideal, s | greedy, s | real, s | of the ideal | of greedy | calls: served by how many |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for run in runs:
        served = ", ".join(f"{calls}: {workers}" for calls, workers in run.served().items())
        rows.append(
            f"| {len(run.workers)} | {len(run.calls)} | {run.ideal:.3f} | {run.greedy:.3f} | {run.real:.3f} "
            f"| {run.against_ideal:.1%} | {run.against_greedy:.1%} | {served} |"
        )
    return "\n".join(rows) + "\n"
