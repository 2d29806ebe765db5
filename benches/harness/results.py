"""All that one run found, and its machine-readable form."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from dataclasses import dataclass, field
from typing import Any

from .cases import Case
from .measure import Effort, Resting
from .stats import FIGURES, Series


def kernel() -> str:
    """The kernel's version, without what its builder added."""
    return platform.release().split("-")[0]


@dataclass
class Measured:
    """What was found for one case: the peer against itself, Evener against the peer, the peer tuned against itself."""

    case: Case
    tie: Series
    against: Series | None = None
    compact: Series | None = None


@dataclass
class OpenLoop:
    """Latency when requests come at half of what each system can do."""

    stages: int
    rates: dict[str, float]
    series: Series


@dataclass(kw_only=True)
class Context:
    """When and where a run was."""

    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"))
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    machine: str = field(default_factory=lambda: f"{platform.system()} {kernel()}, {platform.machine()}")


@dataclass
class Results(Context):
    """One run."""

    quick: bool
    effort: Effort
    versions: dict[str, str]
    measured: list[Measured] = field(default_factory=list)
    open_loop: list[OpenLoop] = field(default_factory=list)
    bare: dict[int, Series] = field(default_factory=dict)
    resting: list[Resting] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self) -> list[Series]:
        """Every series of the run."""
        found = [series for each in self.measured for series in (each.tie, each.against, each.compact) if series]
        return found + [each.series for each in self.open_loop] + list(self.bare.values())

    def as_data(self) -> dict[str, Any]:
        """Give all of it as plain data, each series with its figures worked out."""
        return {
            "quick": self.quick,
            "date": self.date,
            "cores": self.cores,
            "machine": self.machine,
            "versions": self.versions,
            "effort": dataclasses.asdict(self.effort),
            "cases": [
                {
                    "stages": each.case.stages,
                    "connections": each.case.connections,
                    "goals": [dataclasses.asdict(goal) for goal in each.case.goals],
                    "peer_against_itself": series_data(each.tie),
                    "evener_against_peer": each.against and series_data(each.against),
                    "compact_against_peer": each.compact and series_data(each.compact),
                }
                for each in self.measured
            ],
            "open_loop": [
                {"stages": each.stages, "rates": each.rates, "series": series_data(each.series)}
                for each in self.open_loop
            ],
            "bare": [{"connections": count, "series": series_data(series)} for count, series in self.bare.items()],
            "resting": [dataclasses.asdict(each) for each in self.resting],
            "notes": self.notes,
        }


def series_data(series: Series) -> dict[str, Any]:
    """Give a series as plain data, with those figures worked out that were taken."""
    taken = [figure for figure in FIGURES if all(pair.second.figure(figure) for pair in series.pairs)]
    summary = {
        figure: {
            "ratio": dataclasses.asdict(series.ratio(figure)),
            "first": dataclasses.asdict(series.absolute(figure)),
            "second": dataclasses.asdict(series.absolute(figure, second=True)),
        }
        for figure in taken
    }
    return {"summary": summary} | dataclasses.asdict(series)
