#!/usr/bin/env python3
"""Measure what graphs cost: branches, jq stages, Rust stages in process, batches; and write down what came of it.

    python3 benches/graph.py --evener target/release/evener [--embedded target/release/embed-rust]
        [--quick] [--only NAME] [--write docs/performance.md] [--json FILE]

Without --embedded, or without cargo, the Rust stages are left out. A full run takes about seven minutes and wants the
machine to itself. Progress goes to stderr, tables to stdout. A goal that is missed does not make the run fail; a wrong
answer does.
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

from harness import document, graph_report, prepare, processes, systems
from harness.cases import MANY
from harness.floor import Probe
from harness.graph_cases import BATCHES, CASES, JQ, PRIMES, RUST, SCATTER, GraphCase, GraphMeasured, GraphResults
from harness.load import LoadError
from harness.measure import FULL, QUICK, Machine, Quiet, interleave, say
from harness.stats import Series
from harness.systems import ServerError
from harness.ways import VALUE, Way


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what graphs cost.")
    parser.add_argument("--evener", type=Path, required=True, metavar="BINARY", help="the evener binary")
    parser.add_argument("--embedded", type=Path, metavar="BINARY", help="the program of examples/embed-rust")
    parser.add_argument("--quick", action="store_true", help="short blocks: shows that everything works")
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append", help="only this case")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of blocks per comparison")
    parser.add_argument("--seconds", type=int, metavar="N", help="length of a block")
    parser.add_argument("--patience", type=int, metavar="S", help="wait so long, in all, for a busy machine")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables into this document")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found, machine-readable")
    chosen = parser.parse_args()
    for binary in filter(None, (chosen.evener, chosen.embedded)):
        if not binary.is_file():
            parser.error(f"there is no {binary}")
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
    text = graph_report.render(results)
    print(text, end="")
    if chosen.write:
        document.write(chosen.write, "graph", text)
    if chosen.json:
        chosen.json.write_text(json.dumps(results.as_data(), indent=1) + "\n")
    return 0


def run(chosen: argparse.Namespace) -> GraphResults:
    """Measure all that was asked for."""
    prepare.wrk()
    prepare.environment()
    tools = prepare.floor_tools() if chosen.embedded else None
    asked = {"pairs": chosen.pairs, "block": chosen.seconds, "patience": chosen.patience}
    effort = dataclasses.replace(
        QUICK if chosen.quick else FULL, **{name: value for name, value in asked.items() if value is not None}
    )
    versions = prepare.versions(chosen.evener)
    versions.pop("Mosec")
    if tools:
        versions["axum"] = prepare.floor_version("axum")
    results = GraphResults(chosen.quick, effort, versions)
    wanted = set(chosen.only or [case.name for case in CASES])
    with tempfile.TemporaryDirectory(prefix="evener-bench-") as scratch, contextlib.closing(Probe()) as probe:
        bench = Bench(Path(scratch), Machine(probe, Quiet(effort.patience)), results, wanted)
        if wanted - {RUST.name}:
            bench.routes(chosen.evener.resolve())
        if RUST.name in wanted and tools:
            bench.rust(chosen.embedded.resolve(), tools.primes)
    return results


class Bench:
    """One run: what it measures with, and where it puts what it finds."""

    def __init__(self, scratch: Path, machine: Machine, results: GraphResults, wanted: set[str]) -> None:
        """Take everything that all cases need."""
        self.scratch, self.machine, self.results, self.wanted = scratch, machine, results, wanted

    def routes(self, evener: Path) -> None:
        """The cases that are routes of one node."""
        say("starting Evener")
        with systems.graph(evener, self.scratch) as node:
            one = Way("one stage", node, {"/one": VALUE})
            other = Way("another such stage", node, {"/other": VALUE})
            branches = Way("scatter to two stages, gather", node, {"/branches": {"left": VALUE, "right": VALUE}})
            shaped = Way("jq, then one stage", node, {"/shaped": VALUE})
            batched = Way("batches", node, {"/batched": VALUE})
            again = Way("batches again", node, {"/batched": VALUE})
            if self.wanted & {SCATTER.name, JQ.name}:
                tie = self.pairs(one, other, 1)
                self.case(SCATTER, branches, one, tie)
                self.case(JQ, shaped, one, tie)
            if BATCHES.name in self.wanted:
                both = self.pairs(batched, again, BATCHES.connections)
                self.results.measured.append(GraphMeasured(BATCHES, both, None))
        self.results.notes += node.notes

    def rust(self, embedded: Path, primes: Path) -> None:
        """Rust stages in process, beside a server without stages."""
        say("starting the program with Rust stages, and the bare servers")
        answers = {f"/is_prime?possible_prime={number}": factor for number, factor in PRIMES.items()}
        with contextlib.ExitStack() as stack:

            def start(name: str, command: list[str], graceful: bool = False) -> Way:
                system = stack.enter_context(systems.program(name, command, self.scratch, graceful))
                return Way(name, system, answers, "GET")

            own = start("two Rust stages in process", [str(embedded), "127.0.0.1:0"], graceful=True)
            bare, twin = (start(name, [str(primes)]) for name in ("bare axum", "bare axum again"))
            self.case(RUST, own, bare, self.pairs(bare, twin, MANY))

    def case(self, case: GraphCase, first: Way, second: Way, tie: Series) -> None:
        """Measure one case, if it is wanted."""
        if case.name in self.wanted:
            self.results.measured.append(GraphMeasured(case, self.pairs(first, second, case.connections), tie))

    def pairs(self, first: Way, second: Way, connections: int) -> Series:
        """Pairs of blocks with so many connections."""
        say(f"{first.name} against {second.name}, {connections} connection(s)")
        effort = self.results.effort

        def drive(way: Way, _number: int):
            return way.load(connections, effort.block)

        def warm(way: Way) -> None:
            way.load(connections, effort.warm_up)

        return interleave(first, second, drive, self.machine, effort, warm)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _clean_up() -> None:
    """Make sure, whatever happened, that nothing of this run is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    processes.kill_marked(processes.RUN)


if __name__ == "__main__":
    sys.exit(main())
