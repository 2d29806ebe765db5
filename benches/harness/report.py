"""A run beside Mosec as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from .cases import MANY, NODE_MEMORY, OPEN_CONNECTIONS, WORKERS
from .document import duration, mebibytes, middle, reach, table
from .results import Measured, Results
from .stats import FIGURES, STEADY, Series


def render(results: Results) -> str:
    """All tables of the run."""
    parts = [_heading(results)]
    if any(each.against for each in results.measured):
        parts.append(_ratios(results))
    parts += [_absolutes(results), _open_loop(results), _memory(results), _notes(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    text = f"Measured {results.date} on {results.cores} cores ({results.machine}): {versions}."
    if results.quick:
        text = "**A quick run: it shows that everything works, not how fast it is.**\n\n" + text
    return text


def _ratios(results: Results) -> str:
    rows = []
    for each in results.measured:
        if each.against is None:
            continue
        for figure in FIGURES:
            ratio, tie = each.against.ratio(figure), each.tie.ratio(figure)
            goal = each.case.goal(figure)
            verdict = f"**{goal.verdict(ratio)}**" if goal else ("tie" if tie.holds(ratio.median) else "")
            rows.append(
                [
                    each.case.title,
                    figure,
                    middle(ratio),
                    reach(ratio, each.against),
                    reach(tie, each.tie),
                    str(goal) if goal else "",
                    verdict,
                ]
            )
    for loop in results.open_loop:
        if loop.series.first == "Evener":
            title = f"{_stages(loop.stages)}, open loop"
            for figure in ("p50", "p99"):
                ratio = loop.series.ratio(figure)
                rows.append([title, figure, middle(ratio), reach(ratio, loop.series), "", "", ""])
    node = next((each for each in results.resting if each.role == "node"), None)
    if node:
        goal_text = f"under {NODE_MEMORY / 2**20:.0f} MiB"
        verdict = "**met**" if node.resident < NODE_MEMORY else "**missed**"
        rows.append(["idle node", "resident memory", mebibytes(node.resident), "", "", goal_text, verdict])
    head = ["case", "figure", "Evener / Mosec", "least – greatest", "Mosec / Mosec", "goal", "verdict"]
    text = (
        "Ratios are medians over pairs of neighbouring blocks, with the least and the greatest, and how many "
        "pairs there were. What lies within Mosec's ratios to itself is a tie.\n\n"
    )
    return text + table(head, rows, "llrrrll")


def _absolutes(results: Results) -> str:
    rows = []
    for each in results.measured:
        rows += [[each.case.title, *row] for row in _case_rows(each)]
    for connections, series in results.bare.items():
        title = f"no stage, {connections} connection" + ("" if connections == 1 else "s")
        rows.append([title, "bare hyper (the limit)", *_figures(series, False)])
    head = ["case", "system", "requests/s", "p50", "p99", "CPU per request", "load generator's CPU"]
    text = (
        "Absolute figures, as context: they belong to this machine on that day. CPU per request is that of the "
        "system's whole process tree; the load generator's own is apart.\n\n"
    )
    return text + table(head, rows, "llrrrrr")


def _case_rows(each: Measured) -> Iterable[list[str]]:
    if each.against:
        yield ["Evener", *_figures(each.against, False)]
        yield ["Mosec", *_figures(each.against, True)]
    else:
        yield ["Mosec", *_figures(each.tie, False)]
        yield ["Mosec again", *_figures(each.tie, True)]
    if each.compact:
        yield ["Mosec with compact JSON", *_figures(each.compact, False)]


def _figures(series: Series, second: bool) -> list[str]:
    def median(name: str) -> float:
        return series.absolute(name, second).median

    cpu = [f"{median(name):.0f} µs" for name in ("CPU per request", "generator CPU per request")]
    return [f"{median('requests/s'):,.0f}", duration(median("p50")), duration(median("p99")), *cpu]


def _open_loop(results: Results) -> str:
    rows = []
    for loop in results.open_loop:
        for second, name in enumerate((loop.series.first, loop.series.second)):
            blocks = [pair.second if second else pair.first for pair in loop.series.pairs]
            wakes = [
                duration(statistics.median(numbers))
                for numbers in zip(*[(block.load.wake_p50_us, block.load.wake_p99_us) for block in blocks])
            ]
            late = max(block.load.backlogged / block.load.requests for block in blocks)
            p50, p99 = (duration(loop.series.absolute(figure, bool(second)).median) for figure in ("p50", "p99"))
            cpu = [
                f"{loop.series.absolute(figure, bool(second)).median:.0f} µs"
                for figure in ("CPU per request", "generator CPU per request")
            ]
            rate = f"{loop.rates[name]:,.0f}/s"
            rows.append([_stages(loop.stages), name, rate, p50, p99, ", ".join(wakes), f"{late:.1%}", *cpu])
    if not rows:
        return ""
    head = ["case", "system", "mean rate", "p50", "p99", "of it waking", "no connection free", "CPU per request"]
    head.append("load generator's CPU")
    text = (
        f"Open loop at half of what each system did at {MANY} connections: Poisson arrivals of a fixed seed over "
        f"{OPEN_CONNECTIONS} connections, latency counted from when a request was due. *Of it waking* is what "
        "the kernel took to wake the sender (p50, p99); it is part of every latency here. *No connection free* is the "
        "worst block's share of requests that found none.\n\n"
    )
    return text + table(head, rows, "llrrrrrrr")


def _memory(results: Results) -> str:
    rows = []
    for system in dict.fromkeys(each.system for each in results.resting):
        for role in dict.fromkeys(each.role for each in results.resting if each.system == system):
            group = [each for each in results.resting if each.system == system and each.role == role]
            count = f"{len(group)} × " if len(group) > 1 else ""
            resident = max(each.resident for each in group)
            proportional = max(each.proportional for each in group)
            cpu = sum(each.cpu_share for each in group)
            rows.append([system, count + role, mebibytes(resident), mebibytes(proportional), f"{cpu:.1%}"])
    if not rows:
        return ""
    text = "Idle, one stage of two workers, after one request; of several alike the largest.\n\n"
    return text + table(["system", "process", "resident", "proportional", "CPU"], rows, "llrrr")


def _notes(results: Results) -> str:
    effort = results.effort
    every = results.series()
    dropped = sum(len(series.dropped) for series in every if series.kept)
    unsteady = sum(1 for series in every if not series.kept)
    lines = [
        f"Both sides: {WORKERS} Python workers a stage, the same interpreter, the same function (it returns the "
        "decoded value), a POST with 100 bytes of JSON over keep-alive connections, no logging of requests. The value "
        "that comes back is compared with what was sent after every block; wrk checks the statuses during it.",
        "Mosec as it comes: `max_batch_size=1`, `num=2` a stage, JSON at both ends, pickle between stages, log level "
        "`error`. Its own answer encoder indents; *compact JSON* is what it does with one that does not.",
        f"Blocks of {effort.block} s, A-B-B-A, {effort.pairs} pairs, {effort.warm_up} s of warm-up before each. Before "
        "and after each block a message bounces between two processes on one core over a Unix socket; pairs around "
        f"which that rate moved by more than {STEADY:.0%}, or during which others used more than {STEADY:.0%} of the "
        f"machine, are measured again ({dropped} set aside).",
        "The load generator shares the cores with the system it loads. wrk adds the samples that a stalled connection "
        "kept it from taking, where an answer took more than twice the mean.",
    ]
    if across := sorted(reading for series in every for reading in series.across()):
        least, greatest = duration(across[len(across) // 20]), duration(across[-1 - len(across) // 20])
        lines.append(
            f"A message to a process on the other core and back took between {least} and {greatest} (nine readings of "
            "ten): at one connection, where every hop wakes somebody, much of a latency is this."
        )
    if unsteady:
        lines.append(
            f"**The machine was never steady during {unsteady} of the {len(every)} series: all their pairs count.**"
        )
    lines += results.notes
    return "\n".join(f"- {line}" for line in lines)


def _stages(count: int) -> str:
    return "1 stage" if count == 1 else f"{count} stages"
