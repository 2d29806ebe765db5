"""One way into a running system, measured as if it were a system of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .load import BODY, Load, closed, closed_gets
from .processes import Process
from .systems import System


class Way:
    """A path that takes the usual body, or some paths that are got in turn, and what has to come back from each.

    It has what measuring wants of a system; its processes are those of the whole system.
    """

    changing = False

    def __init__(self, name: str, system: System, answers: Mapping[str, Any], method: str = "POST") -> None:
        """Take the right answers by path, and see that they come."""
        self.name, self._system, self._answers, self._method = name, system, answers, method
        self.check()

    def tree(self) -> dict[int, Process]:
        """All processes of the system."""
        return self._system.tree()

    def check(self) -> None:
        """Ask once for each path."""
        for path, expected in self._answers.items():
            self._system.ask(self._method, path, expected)

    def load(self, connections: int, seconds: int) -> Load:
        """Load it in closed loop."""
        if self._method == "POST":
            (path,) = self._answers
            return closed(self._system.address, connections, seconds, path)
        return closed_gets(self._system.address, connections, seconds, list(self._answers))


VALUE = json.loads(BODY)
"""The value that is sent."""
