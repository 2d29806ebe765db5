"""What is compared of remote functions, and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass

from .cases import Goal

WORKERS = 2
POOL, RAY, RELAY, PICKLING = "ProcessPoolExecutor", "Ray", "relay", "relay that pickles"


@dataclass(frozen=True)
class FunctionCase:
    """One load, by its name in caller.py; its peers, each with the goal for the figure if there is one.

    The first peer is also measured against itself.
    """

    load: str
    title: str
    figure: str
    peers: dict[str, Goal | None]


CASES = (
    FunctionCase(
        "gathered",
        "all submitted, then gathered",
        "requests/s",
        {POOL: Goal("requests/s", at_least=4.0), RAY: Goal("requests/s", at_least=25.0)},
    ),
    FunctionCase("single", "one at a time", "p50", {POOL: Goal("p50", at_most=0.5), RAY: Goal("p50", at_most=0.08)}),
    FunctionCase("map", "map of 1,000,000", "requests/s", {POOL: Goal("requests/s", at_least=0.7)}),
    FunctionCase("echo", "1 MiB there and back", "p50", {RELAY: Goal("p50", at_most=1.5), PICKLING: None}),
)

LOAD_WORKERS = 20
CALLS_PER_WORKER = "1,2,5,10"
OF_GREEDY = Goal("of greedy", at_least=0.99)

FEW, MANY = 100_000, 1_000_000
FLAT = 8 << 20
"""By how many bytes more the peak of a process may grow with MANY calls than with FEW, and still count as flat."""
