"""What a run of functions.py found, also as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .function_cases import FunctionCase
from .measure import Effort
from .results import Context, series_data
from .stats import Series


@dataclass
class FunctionsMeasured:
    """What was found in one case: the first peer against itself, and Evener against each peer."""

    case: FunctionCase
    tie: Series
    against: dict[str, Series] = field(default_factory=dict)


@dataclass
class FunctionResults(Context):
    """All that a run found."""

    quick: bool
    effort: Effort
    versions: dict[str, str]
    measured: list[FunctionsMeasured] = field(default_factory=list)
    growth: dict[str, dict[str, dict[int, int]]] = field(default_factory=dict)
    """By system, process and number of calls: by how many bytes the process grew, at its peak."""
    load_tests: list[list[dict[str, Any]]] = field(default_factory=list)
    """By seed: the runs of the load test."""
    notes: list[str] = field(default_factory=list)

    def series(self) -> list[Series]:
        """Every series of the run."""
        return [series for each in self.measured for series in (each.tie, *each.against.values())]

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
                    "load": each.case.load,
                    "peer_against_itself": series_data(each.tie),
                    "evener_against": {peer: series_data(series) for peer, series in each.against.items()},
                }
                for each in self.measured
            ],
            "growth": self.growth,
            "load_tests": self.load_tests,
            "notes": self.notes,
        }
