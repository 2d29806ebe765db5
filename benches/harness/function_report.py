"""A run of functions.py as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from .document import duration, mebibytes, middle, reach, table
from .function_cases import (
    CALLS_PER_WORKER,
    FEW,
    FLAT,
    LOAD_WORKERS,
    MANY,
    OF_GREEDY,
    PICKLING,
    POOL,
    RAY,
    RELAY,
    WORKERS,
)
from .function_results import FunctionResults, FunctionsMeasured
from .stats import STEADY, Series, Spread

WORDS = {"requests/s": "calls/s", "CPU per request": "CPU per call"}
TAKES_LATENCY = ("single", "echo")


def render(results: FunctionResults) -> str:
    """All tables of the run."""
    parts = [_heading(results), _ratios(results), _absolutes(results), _growth(results), _load_test(results)]
    return "\n\n".join(part for part in [*parts, _notes(results)] if part) + "\n"


def _heading(results: FunctionResults) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    text = f"Measured {results.date} on {results.cores} cores ({results.machine}): {versions}."
    if results.quick:
        text = "**A quick run: it shows that everything works, not how fast it is.**\n\n" + text
    return text


def _ratios(results: FunctionResults) -> str:
    rows = []
    for each in results.measured:
        for peer, series in each.against.items():
            for figure in (each.case.figure, "CPU per request"):
                ratio = series.ratio(figure)
                goal = each.case.peers[peer] if figure == each.case.figure else None
                # The first peer is the one that was measured against itself.
                first = peer == next(iter(each.case.peers))
                tie = reach(each.tie.ratio(figure), each.tie) if first else ""
                verdict = f"**{goal.verdict(ratio)}**" if goal else ""
                words = WORDS.get(figure, figure)
                rows.append([each.case.title, words, peer, middle(ratio), reach(ratio, series), tie])
                rows[-1] += [str(goal) if goal else "", verdict]
    rows += _load_row(results)
    head = ["case", "figure", "peer", "Evener / peer", "least – greatest", "peer / peer", "goal", "verdict"]
    text = (
        "Ratios are medians over pairs of neighbouring blocks, with the least and the greatest, and how many "
        "pairs there were. What lies within the peer's ratios to itself is a tie.\n\n"
    )
    return text + table(head, rows, "lllrrrll")


def _load_row(results: FunctionResults) -> Iterable[list[str]]:
    shares = [run["against_greedy"] for runs in results.load_tests for run in runs]
    if not shares:
        return
    spread = Spread(statistics.median(shares), min(shares), max(shares))
    found = [f"{spread.median:.3f}", f"{spread.least:.3f} – {spread.greatest:.3f} ({len(shares)})", ""]
    title = f"load test, {LOAD_WORKERS} workers"
    yield [title, "share of", "greedy schedule", *found, str(OF_GREEDY), f"**{OF_GREEDY.verdict(spread)}**"]


def _absolutes(results: FunctionResults) -> str:
    rows = []
    for each in results.measured:
        rows += [[each.case.title, *row] for row in _case_rows(each)]
    head = ["case", "system", "calls/s", "p50", "p99", "CPU per call", "of it the client"]
    text = (
        "Absolute figures, as context: they belong to this machine on that day. CPU per call is that of the whole "
        "process tree, the client included, which is a part of every system here.\n\n"
    )
    return text + table(head, rows, "llrrrrr")


def _case_rows(each: FunctionsMeasured) -> Iterable[list[str]]:
    latency = each.case.load in TAKES_LATENCY
    if each.against:
        yield ["Evener", *_figures(next(iter(each.against.values())), False, latency)]
        for peer, series in each.against.items():
            yield [peer, *_figures(series, True, latency)]
    else:
        yield [each.tie.first, *_figures(each.tie, False, latency)]


def _figures(series: Series, second: bool, latency: bool) -> list[str]:
    def median(name: str) -> float:
        return series.absolute(name, second).median

    times = [duration(median(name)) if latency else "" for name in ("p50", "p99")]
    cpu = [_cpu(median(name)) for name in ("CPU per request", "client CPU per request")]
    return [f"{median('requests/s'):,.0f}", *times, *cpu]


def _cpu(microseconds: float) -> str:
    return f"{microseconds:.0f} µs" if microseconds >= 10 else f"{microseconds:.2f} µs"


def _growth(results: FunctionResults) -> str:
    rows = []
    for system, processes in results.growth.items():
        for process, grown in processes.items():
            more = grown[MANY] - grown[FEW]
            verdict = ("**flat**" if more <= FLAT else "**grows**") if system == "Evener" else ""
            rows.append([system, process, *(mebibytes(grown[calls]) for calls in (FEW, MANY)), verdict])
    if not rows:
        return ""
    text = (
        "Memory during the map: by how much a process that had done such a map before grew, at its peak. Flat is what "
        f"grows by at most {FLAT / 2**20:.0f} MiB more for ten times the calls.\n\n"
    )
    return text + table(["system", "process", f"{FEW:,} calls", f"{MANY:,} calls", ""], rows, "llrrl")


def _load_test(results: FunctionResults) -> str:
    rows = []
    for place, _ in enumerate(CALLS_PER_WORKER.split(",")):
        runs = [runs[place] for runs in results.load_tests if place < len(runs)]
        if not runs:
            continue
        cells = [statistics.median(run[name] for run in runs) for name in ("ideal", "greedy", "real")]
        shares = [run["against_greedy"] for run in runs]
        rows.append([str(runs[0]["calls"]), *(f"{cell:.3f} s" for cell in cells)])
        rows[-1] += [f"{statistics.median(run['against_ideal'] for run in runs):.1%}"]
        rows[-1] += [f"{statistics.median(shares):.1%}", f"{min(shares):.1%} – {max(shares):.1%} ({len(shares)})"]
    if not rows:
        return ""
    text = (
        f"Load test: calls that sleep between 0 and 1 s, all submitted at once to {LOAD_WORKERS} workers, against the "
        "greedy schedule of the same numbers. Medians over several seeds.\n\n"
    )
    head = ["calls", "ideal", "greedy", "real", "of the ideal", "of greedy", "least – greatest"]
    return text + table(head, rows, "rrrrrrr")


def _notes(results: FunctionResults) -> str:
    effort = results.effort
    every = results.series()
    dropped = sum(len(series.dropped) for series in every if series.kept)
    unsteady = sum(1 for series in every if not series.kept)
    peers = {peer for each in results.measured for peer in each.against}
    lines = [
        f"All sides: {WORKERS} workers, the same interpreter, the same function (it returns its argument), started and "
        "warmed before. Every result is compared with what it must be. *All submitted* is 5,000 calls, again and "
        f"again. {POOL} maps in chunks of 1,000, Evener as it comes. The client is a process of its own on each side.",
        f"The *{RELAY}* is the limit for 1 MiB: three plain Python processes that hand the same pickled bytes on over "
        "Unix sockets, whole messages with their length in front, and pickle nothing meanwhile. The "
        f"*{PICKLING}* also does what a system that calls functions cannot do without: it pickles and unpickles at "
        "both ends.",
        f"Blocks of {effort.block} s, A-B-B-A, {effort.pairs} pairs, {effort.warm_up} s of warm-up before each. Before "
        "and after each block a message bounces between two processes on one core over a Unix socket; pairs around "
        f"which that rate moved by more than {STEADY:.0%}, or during which others used more than {STEADY:.0%} of the "
        f"machine, are measured again ({dropped} set aside).",
    ]
    if RAY in peers:
        lines.append(
            "Ray on this machine alone, `num_cpus=2`, without dashboard. Its helpers may come and go; what ended "
            "within a block is missing from its CPU."
        )
    if across := sorted(reading for series in every for reading in series.across()):
        least, greatest = duration(across[len(across) // 20]), duration(across[-1 - len(across) // 20])
        lines.append(
            f"A message to a process on the other core and back took between {least} and {greatest} (nine readings of "
            "ten): one at a time, where every hop wakes somebody, much of a latency is this."
        )
    if unsteady:
        lines.append(
            f"**The machine was never steady during {unsteady} of the {len(every)} series: all their pairs count.**"
        )
    lines += results.notes
    return "\n".join(f"- {line}" for line in lines)
