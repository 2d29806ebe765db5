"""Heat in a square plate, turn by turn.

Where nothing changes any more, each point is as warm as the mean of its four neighbours. `refine` brings a strip of the
plate nearer to that, `judge` puts the strips together and decides whether there is another turn.
"""

import os

import evener

HOT, COLD = 100.0, 0.0
SWEEPS = 10


def begin(request):
    """The plate at first: hot along its upper edge, cold everywhere else."""
    size = number(request, "size", int, 11, 3, 101)
    exact = number(request, "exact", float, 0.001, 1e-12, 1.0)
    rows = [[HOT] * (size + 2)] + [[COLD] * (size + 2) for _ in range(size + 1)]
    return {"rows": rows, "exact": exact, "turns": 0, "workers": []}


def number(request, name, kind, default, least, most):
    """A number from the query."""
    try:
        value = kind(request.query.get(name, default))
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise evener.Abort(400, f"{name} must be a number from {least} to {most}")
    return value


def refine(rows):
    """Some sweeps over a strip, in which each point becomes the mean of its neighbours. First and last row stay."""
    before = [list(row) for row in rows]
    for _ in range(SWEEPS):
        for above, row, below in zip(rows, rows[1:], rows[2:]):
            for x in range(1, len(row) - 1):
                row[x] = (above[x] + below[x] + row[x - 1] + row[x + 1]) / 4
    change = max(abs(new - old) for row, was in zip(rows, before) for new, old in zip(row, was))
    return {"rows": rows[1:-1], "change": change, "worker": os.environ["WORKER"]}


def judge(turn):
    """The plate after this turn: round again, or the answer."""
    plate, strips = turn["plate"], turn["strips"]
    rows = [plate["rows"][0], *(row for strip in strips for row in strip["rows"]), plate["rows"][-1]]
    turns = plate["turns"] + 1
    workers = sorted({*plate["workers"], *(strip["worker"] for strip in strips)})
    if max(strip["change"] for strip in strips) > plate["exact"]:
        return evener.Goto("turn", {"rows": rows, "exact": plate["exact"], "turns": turns, "workers": workers})
    middle = len(rows) // 2
    return {"middle": round(rows[middle][middle], 2), "turns": turns, "workers": len(workers)}
