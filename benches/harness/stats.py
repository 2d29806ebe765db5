"""Blocks, pairs of blocks, and what the pairs of a series say together."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from .floor import Floor
from .load import Load

STEADY = 0.10
"""By what share the floor may move, and how much of the machine others may use, before a pair is set aside."""


@dataclass(frozen=True)
class Block:
    """One system under load for some seconds.

    `server_cpu` is what all its processes used, in seconds; `foreign` is the share of the whole machine that went to
    anything but the system, the load generator and the harness.
    """

    system: str
    load: Load
    server_cpu: float
    foreign: float

    def figure(self, name: str) -> float:
        """Give one of FIGURES for this block."""
        if name == "requests/s":
            return self.load.requests / self.load.seconds
        if name == "CPU per request":
            return self.server_cpu / self.load.requests * 1e6
        if name == "generator CPU per request":
            return self.load.generator_cpu / self.load.requests * 1e6
        if name == "client CPU per request":
            return self.load.client_cpu / self.load.requests * 1e6
        return {"p50": self.load.p50_us, "p99": self.load.p99_us}[name]


FIGURES = ("requests/s", "p50", "p99", "CPU per request")


@dataclass(frozen=True)
class Pair:
    """Two neighbouring blocks, and the floor before, between and after them."""

    first: Block
    second: Block
    floor: tuple[Floor, Floor, Floor]

    @property
    def moved(self) -> float:
        """By what share the floor moved around and within the pair."""
        before, between, after = self.floor
        return max(before.moved(between), between.moved(after), before.moved(after))

    @property
    def foreign(self) -> float:
        """The share of the machine that others used, in the worse of the two blocks."""
        return max(self.first.foreign, self.second.foreign)

    @property
    def steady(self) -> bool:
        """Whether the machine was the same, and ours, all along."""
        return self.moved <= STEADY and self.foreign <= STEADY

    def ratio(self, figure: str) -> float:
        """Divide the first system's figure by the second's."""
        return self.first.figure(figure) / self.second.figure(figure)

    def difference(self, figure: str) -> float:
        """Take the second system's figure from the first's."""
        return self.first.figure(figure) - self.second.figure(figure)


@dataclass(frozen=True)
class Spread:
    """The median, least and greatest of some numbers."""

    median: float
    least: float
    greatest: float

    def holds(self, value: float) -> bool:
        """Whether the value lies within."""
        return self.least <= value <= self.greatest


@dataclass
class Series:
    """The pairs of one comparison; those during which the machine was not steady are set aside."""

    first: str
    second: str
    wanted: int
    kept: list[Pair] = field(default_factory=list)
    dropped: list[Pair] = field(default_factory=list)

    @property
    def enough(self) -> bool:
        """Whether as many pairs were kept as wanted."""
        return len(self.kept) >= self.wanted

    def add(self, pair: Pair) -> bool:
        """Take one pair in; False if it is set aside."""
        (self.kept if pair.steady else self.dropped).append(pair)
        return pair.steady

    def across(self) -> list[float]:
        """All readings of what waking another processor cost, in microseconds."""
        readings = [reading for pair in self.kept + self.dropped for reading in pair.floor]
        return [reading.across_us for reading in readings if reading.across_us is not None]

    @property
    def pairs(self) -> list[Pair]:
        """Those that count: the kept ones, or all when the machine let none be kept."""
        return self.kept or self.dropped

    def ratio(self, figure: str) -> Spread:
        """Sum up what the pairs say about one figure, first against second."""
        return _spread([pair.ratio(figure) for pair in self.pairs])

    def difference(self, figure: str) -> Spread:
        """Sum up by how much the first system's figure is above the second's."""
        return _spread([pair.difference(figure) for pair in self.pairs])

    def absolute(self, figure: str, second: bool = False) -> Spread:
        """One system's own figure over the blocks that count."""
        return _spread([(pair.second if second else pair.first).figure(figure) for pair in self.pairs])


def _spread(numbers: list[float]) -> Spread:
    return Spread(statistics.median(numbers), min(numbers), max(numbers))
