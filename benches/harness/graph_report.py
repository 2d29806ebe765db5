"""A run of graph.py as Markdown."""

from __future__ import annotations

from .document import duration, table
from .graph_cases import BATCH, BATCH_CONNECTIONS, PRIMES, GraphMeasured, GraphResults
from .stats import STEADY, Series


def render(results: GraphResults) -> str:
    """All tables of the run."""
    return "\n\n".join([_heading(results), _goals(results), _absolutes(results), _notes(results)]) + "\n"


def _heading(results: GraphResults) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    text = f"Measured {results.date} on {results.cores} cores ({results.machine}): {versions}."
    if results.quick:
        text = "**A quick run: it shows that everything works, not how fast it is.**\n\n" + text
    return text


def _goals(results: GraphResults) -> str:
    rows = []
    for each in results.measured:
        case = each.case
        row = [case.title, str(case.connections), case.figure, *_found(each, case.figure)]
        rows.append([*row, f"{case.goal}{case.unit}", f"**{case.goal.verdict(case.value(each.series))}**"])
        if case.how == "ratio":
            rows.append(["", "", "CPU per request", *_found(each, "CPU per request"), "", ""])
    head = ["what", "connections", "figure", "median", "least – greatest", "tie", "goal", "verdict"]
    text = (
        "Ratios, differences and shares are medians over pairs of neighbouring blocks, with the least and the "
        "greatest, and how many pairs there were. What lies within the tie, the same of a system and its like, says "
        "nothing.\n\n"
    )
    return text + table(head, rows, "lrlrrrll")


def _found(each: GraphMeasured, figure: str) -> list[str]:
    """The median, the reach, and the reach of the tie."""
    unit = each.case.unit

    def number(value: float) -> str:
        return f"{value:.0f}{unit}" if unit else f"{value:.2f}"

    def reach(series: Series) -> str:
        value = each.case.value(series, figure)
        return f"{number(value.least)} – {number(value.greatest)} ({len(series.pairs)})"

    median = number(each.case.value(each.series, figure).median)
    return [median, reach(each.series), reach(each.tie) if each.tie else ""]


def _absolutes(results: GraphResults) -> str:
    rows = {}
    for each in results.measured:
        for second, name in enumerate((each.series.first, each.series.second)):
            rows.setdefault((name, each.case.connections), _absolute(each, name, bool(second)))
    head = ["system", "connections", "requests/s", "p50", "p99", "CPU per request", "load generator's CPU"]
    text = "Absolute figures, as context: they belong to this machine on that day.\n\n"
    return text + table(head, list(rows.values()), "lrrrrrr")


def _absolute(each: GraphMeasured, name: str, second: bool) -> list[str]:
    def median(figure: str) -> float:
        return each.series.absolute(figure, second).median

    row = [name, str(each.case.connections), f"{median('requests/s'):,.0f}"]
    row += [duration(median(figure)) for figure in ("p50", "p99")]
    return row + [f"{median(figure):.0f} µs" for figure in ("CPU per request", "generator CPU per request")]


def _notes(results: GraphResults) -> str:
    effort, every = results.effort, results.series()
    dropped = sum(len(series.dropped) for series in every if series.kept)
    unsteady = sum(1 for series in every if not series.kept)
    lines = [
        "Stages are Python workers that return the decoded value, one worker each, all on one node with a route for "
        "each way; a POST with 100 bytes of JSON. The jq program makes a new object, `{data: .data}`. Answers are "
        "compared with what they must be after every block.",
        "The tie of the first two is one stage against another that is the same.",
        "The Rust stages are `examples/embed-rust`; the bare server, in `benches/floor`, gives the same answers to the "
        f"same GETs with axum and nothing else. {len(PRIMES)} odd numbers below 10,000 in turn: both stages work.",
        f"Batches: one worker, `batch: {{max: {BATCH}, wait: 5ms}}`, a function that sleeps 5 ms for each batch and "
        f"returns the values, {BATCH_CONNECTIONS} connections. The share is of what a worker could do that loses no "
        "time between two full batches.",
        f"Blocks of {effort.block} s, A-B-B-A, {effort.pairs} pairs, {effort.warm_up} s of warm-up before each. Pairs "
        f"around which the floor moved by more than {STEADY:.0%}, or during which others used more than {STEADY:.0%} "
        f"of the machine, are measured again ({dropped} set aside).",
    ]
    if across := sorted(reading for series in every for reading in series.across()):
        least, greatest = duration(across[len(across) // 20]), duration(across[-1 - len(across) // 20])
        lines.append(f"A message to a process on the other core and back took between {least} and {greatest}.")
    if unsteady:
        lines.append(
            f"**The machine was never steady during {unsteady} of the {len(every)} series: all their pairs count.**"
        )
    return "\n".join(f"- {line}" for line in lines + results.notes)
