"""What is compared, and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass

from .stats import Spread


@dataclass(frozen=True)
class Goal:
    """A ratio (Evener's figure to a peer's) that is to be reached or not to be passed."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, ratio: float) -> bool:
        """Whether the ratio is good enough."""
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)

    def verdict(self, ratio: Spread) -> str:
        """Say whether it is met, and whether some pair says otherwise."""
        met = self.met(ratio.median)
        sure = self.met(ratio.least) == met and self.met(ratio.greatest) == met
        return ("met" if met else "missed") + ("" if sure else ", not by every pair")

    def __str__(self) -> str:
        """Say it as in a table."""
        return f"at least {self.at_least}" if self.at_least is not None else f"at most {self.at_most}"


@dataclass(frozen=True)
class Case:
    """A number of stages of two workers each, under a number of connections."""

    stages: int
    connections: int
    goals: tuple[Goal, ...]

    @property
    def title(self) -> str:
        """Name it."""
        stages = "1 stage" if self.stages == 1 else f"{self.stages} stages"
        return f"{stages}, {self.connections} connection" + ("" if self.connections == 1 else "s")

    def goal(self, figure: str) -> Goal | None:
        """Give the goal for a figure, if there is one."""
        return next((goal for goal in self.goals if goal.figure == figure), None)


WORKERS = 2
MANY = 32
OPEN_CONNECTIONS = 64

CASES = (
    Case(1, MANY, (Goal("requests/s", at_least=2.0),)),
    Case(1, 1, (Goal("p50", at_most=0.65),)),
    Case(3, MANY, (Goal("requests/s", at_least=4.0), Goal("p50", at_most=0.35))),
    Case(3, 1, (Goal("p50", at_most=0.35),)),
)

NODE_MEMORY = 30 * 1024 * 1024
"""What an idle node may hold, in bytes, without its workers."""
