"""Client processes under measurement: each holds a system that runs Python functions, and loads it as it is told."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import processes
from .load import BENCHES, Load
from .systems import PYTHON, START_PATIENCE, STOP_PATIENCE, ServerError, System

NAMES = {
    "Evener": "evener",
    "ProcessPoolExecutor": "pool",
    "Ray": "ray",
    "relay": "relay",
    "relay that pickles": "pickling-relay",
}
PATIENCE = 120.0
"""How much longer than asked for a load may take, in seconds."""


class Caller(System):
    """One client and all that belongs to it: `benches/caller.py` in benches/.venv."""

    def __init__(self, name: str, workers: int, scratch: Path, environment: dict[str, str]) -> None:
        """Start it."""
        self.changing = name == "Ray"
        command = [str(PYTHON), str(BENCHES / "caller.py"), NAMES[name], "--workers", str(workers)]
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        super().__init__(name, command, quiet | environment, scratch, stdin=subprocess.PIPE)

    def wait(self) -> None:
        """Wait until it and its system are there."""
        if (line := self._line(START_PATIENCE)) != "ready":
            raise self.failure(f"said {line!r} instead of `ready`")

    def load(self, name: str, seconds: float, calls: int = 0) -> Load:
        """Have it load its system for some seconds."""
        found = self._ask({"load": name, "seconds": seconds, "calls": calls}, seconds + PATIENCE)
        latencies = [found.get(figure, 0.0) for figure in ("p50_us", "p90_us", "p99_us", "max_us")]
        return Load(found["calls"], found["seconds"], *latencies, 0.0, client_cpu=found["client_cpu"])

    def check(self) -> None:
        """Nothing: the client compares every result with what it must be, and fails if it is not."""

    def engine(self) -> int:
        """The process number of Evener's node, which the client started."""
        for process in self.tree().values():
            if re.fullmatch(r"evener", Path(process.executable).name) and "up" in process.arguments[1:2]:
                return process.pid
        raise self.failure("has no engine")

    def stop(self) -> None:
        """End its input, which ends it, and see that nothing is left."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_PATIENCE)
        super().stop()

    def _ask(self, order: dict[str, Any], patience: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self.failure(f"is gone: {error}") from error
        found: dict[str, Any] = json.loads(self._line(patience))
        return found

    def _line(self, patience: float) -> str:
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise self.failure(f"did not answer within {patience:.0f} s") from None
        if line is None:
            raise self.failure("ended")
        return line


@contextlib.contextmanager
def caller(name: str, workers: int, scratch: Path, environment: dict[str, str] | None = None) -> Iterator[Caller]:
    """Start a client with its system, and end both."""
    started = Caller(name, workers, scratch, environment or {})
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def growth(client: Caller, pids: dict[str, int], calls: int) -> dict[str, int]:
    """By how many bytes each of some processes grows, at its peak, while a map of so many calls goes on."""
    for pid in pids.values():
        processes.forget_peak(pid)
    before = {name: processes.memory(pid).resident for name, pid in pids.items()}
    client.load("map", 0.0, calls)
    return {name: max(0, processes.peak(pid) - before[name]) for name, pid in pids.items()}


def load_test(workers: int, calls_per_worker: str, seed: int, scratch: Path, environment: dict[str, str]) -> list[Any]:
    """Run the load test of the examples; give its runs as it tells them."""
    program = BENCHES.parent / "examples" / "functions" / "load_test.py"
    place = scratch / f"load-{seed}-{time.monotonic_ns()}.json"
    command = [str(PYTHON), str(program), "--workers", str(workers), "--seed", str(seed), "--json", str(place)]
    plain = System.plain_environment(scratch) | environment | {processes.MARK: processes.new_mark()}
    done = subprocess.run(
        [*command, "--calls-per-worker", calls_per_worker],
        env=plain,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"the load test ended with code {done.returncode}:\n{done.stdout[-2000:]}")
    runs: list[Any] = json.loads(place.read_text())["runs"]
    return runs
