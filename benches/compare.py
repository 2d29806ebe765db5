#!/usr/bin/env python3
"""Measure Evener beside Mosec on this machine, and write down what came of it.

    python3 benches/compare.py --evener target/release/evener [--quick] [--write docs/performance.md] [--json FILE]

Without --evener, Mosec is measured against itself: that shows what differences mean nothing here. A full run takes
about twelve minutes and wants the machine to itself. Progress goes to stderr, tables to stdout. A goal that is missed
does not make the run fail; a system that does not answer rightly does.
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

from harness import document, measure, prepare, processes, report, systems
from harness.cases import CASES, MANY, OPEN_CONNECTIONS, WORKERS
from harness.floor import Probe
from harness.load import Load, LoadError, closed, open_loop
from harness.measure import FULL, QUICK, Drive, Machine, Quiet, interleave, say
from harness.results import Measured, OpenLoop, Results
from harness.stats import Series
from harness.systems import ServerError, System

LOG_NOTICE = 64 * 1024
"""A log longer than this, in bytes, looks like one that has a line for each request."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure Evener beside Mosec.")
    parser.add_argument("--evener", type=Path, metavar="BINARY", help="the evener binary; without it, Mosec alone")
    parser.add_argument("--quick", action="store_true", help="short blocks: shows that everything works")
    parser.add_argument("--stages", type=int, choices=(1, 3), action="append", help="only the cases of so many stages")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of blocks per comparison")
    parser.add_argument("--seconds", type=int, metavar="N", help="length of a block")
    parser.add_argument("--patience", type=int, metavar="S", help="wait so long, in all, for a busy machine")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables into this document")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found, machine-readable")
    chosen = parser.parse_args()
    if chosen.evener and not chosen.evener.is_file():
        parser.error(f"there is no {chosen.evener}")
    if (chosen.pairs or 1) < 1 or (chosen.seconds or 1) < 1:
        parser.error("--pairs and --seconds must be at least 1")
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
    text = report.render(results)
    print(text, end="")
    if chosen.write:
        document.write(chosen.write, "http", text)
    if chosen.json:
        chosen.json.write_text(json.dumps(results.as_data(), indent=1) + "\n")
    return 0


def run(chosen: argparse.Namespace) -> Results:
    """Measure all that was asked for."""
    prepare.wrk()
    prepare.peer("mosec")
    tools = prepare.floor_tools()
    asked = {"pairs": chosen.pairs, "block": chosen.seconds, "patience": chosen.patience}
    effort = dataclasses.replace(
        QUICK if chosen.quick else FULL, **{name: value for name, value in asked.items() if value is not None}
    )
    results = Results(chosen.quick, effort, prepare.versions(chosen.evener))
    with (
        tempfile.TemporaryDirectory(prefix="evener-bench-") as scratch,
        contextlib.closing(Probe()) as probe,
    ):
        machine = Machine(probe, Quiet(effort.patience))
        bench = Bench(chosen.evener, Path(scratch), machine, tools, results)
        for stages in chosen.stages or sorted({case.stages for case in CASES}):
            bench.group(stages)
        bench.limit()
    return results


class Bench:
    """One run: what it measures with, and where it puts what it finds."""

    def __init__(
        self, binary: Path | None, scratch: Path, machine: Machine, tools: prepare.Tools | None, results: Results
    ) -> None:
        """Take everything that all groups need."""
        self.binary, self.scratch, self.machine, self.tools, self.results = binary, scratch, machine, tools, results
        self.effort = results.effort

    def group(self, stages: int) -> None:
        """All cases with so many stages. The systems stay up throughout; the one that is not loaded sleeps."""
        say(f"starting the systems with {stages} stage(s) of {WORKERS} workers")
        with contextlib.ExitStack() as stack:
            peer, twin = (stack.enter_context(systems.mosec(stages, self.scratch)) for _ in range(2))
            started = [peer, twin]
            own = None
            if self.binary:
                own = stack.enter_context(systems.evener(self.binary, stages, self.scratch))
                started.append(own)
            _same_workers(started, stages)
            if stages == 1:
                for system in filter(None, (own, peer)):
                    self.results.resting += measure.rest(system, self.effort.rest)
            for case in (case for case in CASES if case.stages == stages):
                drive = _closed(case.connections, self.effort.block)
                say(f"{case.title}: Mosec against itself")
                found = Measured(case, self._interleave(peer, twin, drive, case.connections))
                if own:
                    say(f"{case.title}: Evener against Mosec")
                    found.against = self._interleave(own, peer, drive, case.connections)
                self.results.measured.append(found)
            self._compact(stages, peer)
            self._open_loop(stages, own or twin, peer)
        for system in started:
            self.results.notes += system.notes
            if system.logged > LOG_NOTICE:
                self.results.notes.append(f"{system.name} wrote {system.logged // 1024} KiB of log")

    def _compact(self, stages: int, peer: System) -> None:
        """Measure the peer with a faster answer encoder, so that nobody need wonder what that would change."""
        found = next(each for each in self.results.measured if each.case.stages == stages)
        say(f"{found.case.title}: Mosec with compact JSON against Mosec as it comes")
        with systems.mosec(stages, self.scratch, compact=True) as compact:
            drive = _closed(found.case.connections, self.effort.block)
            found.compact = self._interleave(compact, peer, drive, found.case.connections, pairs=3)

    def _open_loop(self, stages: int, first: System, second: System) -> None:
        if self.tools is None:
            return
        busiest = next(each for each in self.results.measured if each.case.stages == stages)
        series = busiest.against or busiest.tie
        rates = {
            first.name: series.absolute("requests/s").median / 2,
            second.name: series.absolute("requests/s", second=True).median / 2,
        }
        generator, seconds = self.tools.openloop, self.effort.block

        def drive(system: System, number: int) -> Load:
            rate = rates[system.name]
            return open_loop(generator, system.address, rate, OPEN_CONNECTIONS, seconds, seed=number + 1)

        say(f"{stages} stage(s): open loop at half the peak")
        self.results.open_loop.append(OpenLoop(stages, rates, self._interleave(first, second, drive, MANY)))

    def limit(self) -> None:
        """Measure a server that does nothing but HTTP."""
        if self.tools is None:
            return
        with contextlib.ExitStack() as stack:
            pair = [stack.enter_context(systems.bare(self.tools.bare, self.scratch)) for _ in range(2)]
            for connections in (MANY, 1):
                say(f"bare hyper, {connections} connection(s)")
                drive = _closed(connections, self.effort.block)
                self.results.bare[connections] = self._interleave(pair[0], pair[1], drive, connections, pairs=2)

    def _interleave(
        self, first: System, second: System, drive: Drive, connections: int, pairs: int | None = None
    ) -> Series:
        effort = dataclasses.replace(self.effort, pairs=min(pairs or self.effort.pairs, self.effort.pairs))

        def warm(system: System) -> None:
            closed(system.address, connections, effort.warm_up)

        return interleave(first, second, drive, self.machine, effort, warm)


def _closed(connections: int, seconds: int) -> Drive:
    return lambda system, _number: closed(system.address, connections, seconds)


def _same_workers(started: list[System], stages: int) -> None:
    """Both sides must have as many workers, on one interpreter."""
    interpreters = set()
    for system in started:
        workers = system.workers()
        if len(workers) != stages * WORKERS:
            raise system.failure(f"has {len(workers)} Python workers, not {stages * WORKERS}")
        interpreters |= {worker.executable for worker in workers}
    if len(interpreters) != 1:
        raise ServerError(f"the systems run different interpreters: {sorted(interpreters)}")


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _clean_up() -> None:
    """Make sure, whatever happened, that nothing of this run is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    processes.kill_marked(processes.RUN)


if __name__ == "__main__":
    sys.exit(main())
