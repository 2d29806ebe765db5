"""How evenly, and how close to the best schedule, a pool of workers is loaded by calls that sleep.

    python load_test.py --workers 20

starts an engine with 20 workers for itself. With EVENER_URL set it takes the engine that runs there, and its workers.
For each load it submits calls that sleep between 0 and 1 second (the same numbers for the same seed), and compares the
time that they took with the ideal (all workers busy to the end) and with the greedy schedule of the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from pathlib import Path

import evener
from picture import draw
from schedule import Call, Run, greedy, ideal, table

# How long workers may take to get up, in seconds; they come one after the other on a machine with few cores.
PATIENCE = 120.0
BEGIN, END = "<!-- load test: begin -->\n", "<!-- load test: end -->"


def nap(seconds: float) -> tuple[float, float]:
    """Sleep, and say from when to when, on the clock that all processes of a machine share."""
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


def main() -> int:
    """Run the loads one after the other, and show each."""
    chosen = arguments()
    with client_for(chosen.workers) as client:
        workers = wait_for_workers(client, chosen.workers)
        remote_nap = client.function(nap)
        warm_up(remote_nap, len(workers))
        runs = []
        for calls_per_worker in chosen.calls_per_worker:
            run = measure(remote_nap, workers, calls_per_worker * len(workers), chosen.seed, chosen.scale)
            print(run, flush=True)
            runs.append(run)
    if chosen.svg:
        chosen.svg.write_text(draw(runs))
    if chosen.json:
        found = {"seed": chosen.seed, "runs": [run.as_data() for run in runs]}
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    if chosen.write:
        write(chosen.write, runs, chosen.seed, chosen.svg)
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=positive, metavar="N", help="workers to start (with EVENER_URL: to wait for)")
    parser.add_argument(
        "--calls-per-worker", type=positives, default=[1, 2, 5, 10], metavar="N,N,…", help="loads (default: 1,2,5,10)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which numbers (default: 1)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw what every worker did")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, machine-readable")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the table between its marks in a document")
    # Shorter sleeps, for tests: no statement about how well anything is scheduled.
    parser.add_argument("--scale", type=float, default=1.0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.workers is None and "EVENER_URL" not in os.environ:
        parser.error("how many workers? --workers 20, or EVENER_URL for an engine that runs already")
    return chosen


def positive(text: str) -> int:
    """Read a number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def positives(text: str) -> list[int]:
    """Read numbers with commas between them."""
    return [positive(part) for part in text.split(",")]


def client_for(workers: int | None) -> evener.Client:
    """The engine at EVENER_URL, or one of our own with so many workers."""
    return evener.Client() if "EVENER_URL" in os.environ else evener.Client(workers=workers)


def wait_for_workers(client: evener.Client, wanted: int | None) -> tuple[int, ...]:
    """Wait until as many workers are up as are wanted, and give their process numbers."""
    deadline = time.monotonic() + PATIENCE
    while len(found := client.workers()) < (wanted or 1):
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(found)} of {wanted} workers are up after {PATIENCE:.0f} s")
        time.sleep(0.01)
    return tuple(worker.pid for worker in found)


def warm_up(remote_nap: evener.Function, workers: int) -> None:
    """Call until each worker has had a call, so that every one of them has loaded the function and what that takes."""
    deadline, seen = time.monotonic() + PATIENCE, set()
    while len(seen) < workers and time.monotonic() < deadline:
        futures = [remote_nap.submit(0.02) for _ in range(workers)]
        for future in futures:
            future.result()
            seen.add(future.worker)


def measure(remote_nap: evener.Function, workers: tuple[int, ...], calls: int, seed: int, scale: float) -> Run:
    """Submit all calls at once, wait for all, and see who did which, and when."""
    numbers = random.Random(seed)
    durations = [numbers.random() * scale for _ in range(calls)]
    start = time.monotonic()
    futures = [remote_nap.submit(duration) for duration in durations]
    results = [future.result() for future in futures]
    real = time.monotonic() - start
    done = tuple(Call(future.worker, began - start, ended - start) for future, (began, ended) in zip(futures, results))
    return Run(workers, done, ideal(durations, len(workers)), greedy(durations, len(workers)), real)


def write(document: Path, runs: list[Run], seed: int, drawn: Path | None) -> None:
    """Put the table, and the picture if one was drawn, between their marks in a document."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{document} has no `{BEGIN.strip()}` and `{END}`")
    told = (
        f"Measured {time.strftime('%Y-%m-%d')} on {os.cpu_count()} cores, Python {platform.python_version()}, Evener "
        f"{evener.__version__}: `load_test.py --workers {len(runs[0].workers)} --seed {seed}`.\n\n"
    )
    shown = f"\n![What each worker did]({os.path.relpath(drawn, document.parent)})\n" if drawn else ""
    document.write_text(before + begin + told + table(runs) + shown + end + after)


if __name__ == "__main__":
    sys.exit(main())
