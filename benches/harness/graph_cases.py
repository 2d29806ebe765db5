"""What graph.py compares, and what is aimed at."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass, field
from typing import Any

from .cases import MANY, Goal
from .measure import Effort
from .results import Context, series_data
from .stats import Series, Spread

BATCH = 32
BATCH_CONNECTIONS = 4 * BATCH
"""So many that another batch is there when one is done."""
IDEAL = BATCH / 0.005
"""Items a second of one worker that takes 5 ms for each full batch and loses no time in between."""

PRIMES = {number: factor for number, factor in [
    (3, 3), (9, 3), (91, 7), (97, 97), (289, 17), (561, 3), (997, 997), (1763, 41), (4087, 61), (7919, 7919),
]}  # fmt: skip
"""Small odd numbers, which both stages see, and the smallest factor of each."""


@dataclass(frozen=True)
class GraphCase:
    """A comparison, the figure that the goal is about, and how that comes out of a series."""

    name: str
    title: str
    connections: int
    figure: str
    goal: Goal
    how: str = "ratio"
    unit: str = ""

    def value(self, series: Series, figure: str | None = None) -> Spread:
        """What the pairs say about a figure: a ratio, a difference, or, where both sides are one, a share of IDEAL."""
        figure = figure or self.figure
        if self.how == "difference":
            return series.difference(figure)
        if self.how == "share":
            both = [block.figure(figure) / IDEAL for pair in series.pairs for block in (pair.first, pair.second)]
            return Spread(statistics.median(both), min(both), max(both))
        return series.ratio(figure)


SCATTER = GraphCase("scatter", "scatter to two stages and gather / one stage", 1, "p50", Goal("p50", at_most=1.3))
JQ = GraphCase("jq", "a jq stage in front − without it", 1, "p50", Goal("p50", at_most=15), "difference", " µs")
RUST = GraphCase("rust", "two Rust stages in process / bare axum", MANY, "requests/s", Goal("requests/s", at_least=0.6))
BATCHES = GraphCase(
    "batches",
    f"batches of {BATCH} that take 5 ms / {IDEAL:,.0f} a second",
    BATCH_CONNECTIONS,
    "requests/s",
    Goal("requests/s", at_least=0.8),
    "share",
)
CASES = (SCATTER, JQ, RUST, BATCHES)


@dataclass
class GraphMeasured:
    """What was found for one case: the pairs, and one side of it against its like, if that is something else."""

    case: GraphCase
    series: Series
    tie: Series | None


@dataclass
class GraphResults(Context):
    """One run."""

    quick: bool
    effort: Effort
    versions: dict[str, str]
    measured: list[GraphMeasured] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self) -> list[Series]:
        """Every series of the run, each once."""
        every = [series for each in self.measured for series in (each.series, each.tie) if series]
        return list({id(series): series for series in every}.values())

    def as_data(self) -> dict[str, Any]:
        """Give all of it as plain data."""
        return {
            "quick": self.quick,
            "date": self.date,
            "cores": self.cores,
            "machine": self.machine,
            "versions": self.versions,
            "effort": dataclasses.asdict(self.effort),
            "cases": [
                {
                    "name": each.case.name,
                    "goal": dataclasses.asdict(each.case.goal),
                    "value": dataclasses.asdict(each.case.value(each.series)),
                    "series": series_data(each.series),
                    "tie": each.tie and series_data(each.tie),
                }
                for each in self.measured
            ],
            "notes": self.notes,
        }
