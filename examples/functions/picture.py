"""Draws what a load test did as an SVG: each row a worker, each bar a call. It reads on white as well as on black."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from schedule import Run

# Pixels.
WIDTH = 860
MARGIN = 16
GAP = 28
ROW = 7.0
BAR = 5.5
HEAD = 42
FOOT = 24
LEGEND = 26
LEAST_PANEL = 118

# Colours that stand out from white as well as from black; two blues, so that neighbours can be told apart.
BLUES = ("#3b82f6", "#60a5fa")
LINE = "#f97316"
INK = "#7a838e"


def draw(runs: Sequence[Run]) -> str:
    """All runs on one scale of time: as many side by side as there is room for."""
    scale, lines = _layout(runs)
    parts: list[str] = []
    top = float(MARGIN)
    for line in lines:
        left = float(MARGIN)
        for run in line:
            parts += _panel(run, left, top, scale)
            left += _width(run, scale) + GAP
        top += HEAD + ROW * max(len(run.workers) for run in line) + FOOT
    parts += _legend(top + 6)
    height = math.ceil(top + LEGEND + 4)
    told = "; ".join(f"{len(run.calls)} calls {run.real:.2f} s, {run.against_greedy:.1%} of greedy" for run in runs)
    title = escape(f"Calls on {len(runs[0].workers)} workers: {told}")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-labelledby="title" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
            f'<title id="title">{title}</title>',
            *parts,
            "</svg>\n",
        ]
    )


def _layout(runs: Sequence[Run]) -> tuple[float, list[list[Run]]]:
    """Pixels a second, and which runs go on which line.

    The longest run fills a line, unless a slightly smaller scale lets the others do with fewer lines.
    """
    full = (WIDTH - 2 * MARGIN) / max(_seconds(run) for run in runs)
    tried = [(scale, _lines(runs, scale)) for scale in (full * percent / 100 for percent in range(100, 80, -1))]
    return min(tried, key=lambda found: len(found[1]))


def _lines(runs: Sequence[Run], scale: float) -> list[list[Run]]:
    lines: list[list[Run]] = []
    room = 0.0
    for run in runs:
        width = _width(run, scale)
        if width > room:
            lines.append([])
            room = WIDTH - 2 * MARGIN + 0.5
        lines[-1].append(run)
        room -= width + GAP
    return lines


def _seconds(run: Run) -> float:
    return max(run.real, run.greedy)


def _width(run: Run, scale: float) -> float:
    return max(_seconds(run) * scale, LEAST_PANEL)


def _panel(run: Run, left: float, top: float, scale: float) -> Iterator[str]:
    """One run: its name, a row for each worker, an axis."""
    yield f'<g transform="translate({left:.1f} {top:.1f})">'
    yield f'<text y="12" font-weight="600">{len(run.calls)} calls</text>'
    yield f'<text y="28">{run.real:.2f} s, {run.against_greedy:.1%} of greedy</text>'
    rows = {worker: HEAD + place * ROW for place, worker in enumerate(_by_first_call(run))}
    end = _seconds(run) * scale
    for y in rows.values():
        yield f'<rect y="{y:.1f}" width="{end:.1f}" height="{BAR}" rx="1" fill="{INK}" fill-opacity="0.14"/>'
    seen: collections.Counter[int] = collections.Counter()
    for call in sorted(run.calls, key=lambda call: call.began):
        blue = BLUES[seen[call.worker] % 2]
        seen[call.worker] += 1
        x, width = call.began * scale, max((call.ended - call.began) * scale - 0.6, 0.6)
        yield f'<rect x="{x:.1f}" y="{rows[call.worker]:.1f}" width="{width:.1f}" height="{BAR}" rx="1" fill="{blue}"/>'
    bottom = HEAD + len(rows) * ROW
    yield _dashes(run.greedy * scale, HEAD - 5, bottom + 2)
    for second in range(int(_seconds(run)) + 1):
        x = second * scale
        # A number at the very end would stand out of the panel.
        anchor = "start" if second == 0 else "end" if x > end - 8 else "middle"
        label = f"{second} s" if second else "0"
        yield f'<text x="{x:.1f}" y="{bottom + 12:.1f}" font-size="10" text-anchor="{anchor}">{label}</text>'
    yield "</g>"


def _by_first_call(run: Run) -> list[int]:
    """The workers in the order of their first calls; those without any come last."""
    first: dict[int, float] = {}
    for call in run.calls:
        first[call.worker] = min(first.get(call.worker, math.inf), call.began)
    every = dict.fromkeys([*run.workers, *first])
    return sorted(every, key=lambda worker: first.get(worker, math.inf))


def _legend(top: float) -> Iterator[str]:
    """What a row, a bar and the line are."""
    y = top + 12
    for place, blue in enumerate(BLUES):
        x = MARGIN + 16 * place
        yield f'<rect x="{x}" y="{top + 4:.1f}" width="15" height="{BAR}" rx="1" fill="{blue}"/>'
    yield f'<text x="{MARGIN + 40}" y="{y:.1f}" font-size="11">each row is a worker, each bar a call</text>'
    yield _dashes(MARGIN + 290, top, top + 14)
    told = "where the greedy schedule of the same numbers ends"
    yield f'<text x="{MARGIN + 300}" y="{y:.1f}" font-size="11">{told}</text>'


def _dashes(x: float, y1: float, y2: float) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{LINE}" stroke-width="1.5" '
        'stroke-dasharray="4 2"/>'
    )
