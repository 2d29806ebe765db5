#!/usr/bin/env python3
"""Measure calls of Python functions beside ProcessPoolExecutor, Ray and a bare relay, and write down what came of it.

    python3 benches/functions.py [--wheel dist/evener-….whl] [--quick] [--write docs/performance.md] [--json FILE]

The wheel (by default the newest in dist) goes into benches/.venv, as do the peers. A full run takes about fifteen
minutes and wants the machine to itself. Progress goes to stderr, tables to stdout. A goal that is missed does not make
the run fail; a wrong result does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import tempfile
from pathlib import Path

from harness import callers, document, function_report, prepare, processes
from harness.callers import Caller
from harness.floor import Probe
from harness.function_cases import (
    CALLS_PER_WORKER,
    CASES,
    FEW,
    LOAD_WORKERS,
    MANY,
    POOL,
    RAY,
    WORKERS,
    FunctionCase,
)
from harness.function_results import FunctionResults, FunctionsMeasured
from harness.load import BENCHES, Load, LoadError
from harness.measure import FULL, QUICK, Machine, Quiet, interleave, say
from harness.stats import Series
from harness.systems import ServerError, System

OWN = "Evener"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure calls of Python functions beside other systems.")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="our package (default: the newest in dist)")
    parser.add_argument("--evener", type=Path, metavar="BINARY", help="a binary in place of the one in the wheel")
    parser.add_argument("--quick", action="store_true", help="short blocks: shows that everything works")
    parser.add_argument("--only", action="append", metavar="LOAD", help="one part: a load, memory or load-test")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of blocks per comparison")
    parser.add_argument("--seconds", type=int, metavar="N", help="length of a block")
    parser.add_argument("--patience", type=int, metavar="S", help="wait so long, in all, for a busy machine")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables into this document")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found, machine-readable")
    chosen = parser.parse_args()
    if chosen.wheel is None:
        wheels = sorted((BENCHES.parent / "dist").glob("evener-*.whl"), key=lambda file: file.stat().st_mtime)
        chosen.wheel = wheels[-1] if wheels else None
    if chosen.wheel is None or not chosen.wheel.is_file():
        parser.error(f"there is no {chosen.wheel or 'wheel in dist: `make wheel` builds one'}")
    if chosen.evener and not chosen.evener.is_file():
        parser.error(f"there is no {chosen.evener}")
    if (chosen.pairs or 1) < 1 or (chosen.seconds or 1) < 1:
        parser.error("--pairs and --seconds must be at least 1")
    known = {*(case.load for case in CASES), "memory", "load-test"}
    if unknown := set(chosen.only or ()) - known:
        parser.error(f"--only knows {', '.join(sorted(known))}, not {', '.join(sorted(unknown))}")
    return chosen


def main() -> int:
    """Prepare, measure, report."""
    chosen = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        results = run(chosen)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except (prepare.PreparationError, ServerError, LoadError) as error:
        say(f"error: {error}")
        return 1
    finally:
        _clean_up()
    text = function_report.render(results)
    print(text, end="")
    if chosen.write:
        document.write(chosen.write, "functions", text)
    if chosen.json:
        chosen.json.write_text(json.dumps(results.as_data(), indent=1) + "\n")
    return 0


def run(chosen: argparse.Namespace) -> FunctionResults:
    """Measure all that was asked for."""
    prepare.wheel(chosen.wheel)
    notes = []
    try:
        prepare.peer("ray")
    except prepare.PreparationError as error:
        say(str(error))
        notes.append("Ray could not be installed here, and is missing.")
    asked = {"pairs": chosen.pairs, "block": chosen.seconds, "patience": chosen.patience}
    effort = dataclasses.replace(
        QUICK if chosen.quick else FULL, **{name: value for name, value in asked.items() if value is not None}
    )
    versions = {OWN: prepare.installed("evener"), "Python": prepare.python_version()}
    if version := prepare.installed("ray"):
        versions[RAY] = version
    results = FunctionResults(chosen.quick, effort, versions, notes=notes)
    with (
        tempfile.TemporaryDirectory(prefix="evener-bench-") as scratch,
        contextlib.closing(Probe()) as probe,
    ):
        environment = {"EVENER_BIN": str(chosen.evener.resolve())} if chosen.evener else {}
        bench = Bench(Path(scratch), Machine(probe, Quiet(effort.patience)), environment, results)
        for case in CASES:
            if not chosen.only or case.load in chosen.only:
                bench.case(case)
        if not chosen.only or "memory" in chosen.only:
            bench.memory()
        if not chosen.only or "load-test" in chosen.only:
            bench.load_test()
    return results


class Bench:
    """One run: what it measures with, and where it puts what it finds."""

    def __init__(self, scratch: Path, machine: Machine, environment: dict[str, str], results: FunctionResults) -> None:
        """Take everything that all cases need; `environment` is for our own system."""
        self.scratch, self.machine, self.environment, self.results = scratch, machine, environment, results
        self.effort = results.effort

    def case(self, case: FunctionCase) -> None:
        """One case: the first peer against itself, then our own system against every peer."""
        first, *others = (peer for peer in case.peers if peer != RAY or RAY in self.results.versions)
        with contextlib.ExitStack() as stack:
            peer, twin, own = started = [self._start(name, stack) for name in (first, first, OWN)]
            say(f"{case.title}: {first} against itself")
            found = FunctionsMeasured(case, self._interleave(peer, twin, case))
            say(f"{case.title}: {OWN} against {first}")
            found.against[first] = self._interleave(own, peer, case)
            for name in others:
                # Only while it is measured: it is never quite still.
                with contextlib.ExitStack() as shorter:
                    other = self._start(name, shorter)
                    started.append(other)
                    say(f"{case.title}: {OWN} against {name}")
                    found.against[name] = self._interleave(own, other, case)
        self.results.measured.append(found)
        for system in started:
            self.results.notes += [note for note in system.notes if note not in self.results.notes]

    def memory(self) -> None:
        """How much a map takes, of few calls and of many."""
        say(f"memory during a map of {FEW:,} and of {MANY:,}")
        for name in (OWN, POOL):
            with contextlib.ExitStack() as stack:
                client = self._start(name, stack)
                pids = {"client": client.pid}
                if name == OWN:
                    pids["engine"] = client.engine()
                client.load("map", 0.0, FEW)
                grown = {calls: callers.growth(client, pids, calls) for calls in (FEW, MANY)}
                self.results.growth[name] = {
                    process: {calls: grown[calls][process] for calls in grown} for process in pids
                }

    def load_test(self) -> None:
        """The load test of the examples, with several seeds."""
        loads = "1,2" if self.results.quick else CALLS_PER_WORKER
        for seed in range(1, self.effort.pairs + 1):
            self.machine.quiet.wait()
            runs = callers.load_test(LOAD_WORKERS, loads, seed, self.scratch, self.environment)
            say(f"load test, seed {seed}: " + ", ".join(f"{run['against_greedy']:.1%}" for run in runs))
            self.results.load_tests.append(runs)

    def _start(self, name: str, stack: contextlib.ExitStack) -> Caller:
        say(f"starting {name}")
        environment = self.environment if name == OWN else {}
        return stack.enter_context(callers.caller(name, WORKERS, self.scratch, environment))

    def _interleave(self, first: Caller, second: Caller, case: FunctionCase) -> Series:
        seconds, warm_up = self.effort.block, self.effort.warm_up
        calls = FEW if self.results.quick else 0

        def drive(system: System, _number: int) -> Load:
            assert isinstance(system, Caller)
            return system.load(case.load, seconds, calls)

        def warm(system: System) -> None:
            assert isinstance(system, Caller)
            system.load(case.load, warm_up, FEW)

        return interleave(first, second, drive, self.machine, self.effort, warm)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _clean_up() -> None:
    """Make sure, whatever happened, that nothing of this run is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    processes.kill_marked(processes.RUN)


if __name__ == "__main__":
    sys.exit(main())
