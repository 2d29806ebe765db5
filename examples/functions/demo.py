"""Calls functions on a pool of workers, shows what comes back, and checks it: prints, results, exceptions, a death.

    python examples/functions/demo.py

Needs the package `evener`, and nothing that runs: the script starts an engine of its own. Ends with 1 if anything came
back otherwise than it should.
"""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import time
import traceback

import evener

MANY = 10_000

wrong: list[str] = []


@evener.function
def square(x):
    """Print in three ways, and square."""
    print(f"worker: squaring {x}", flush=True)
    subprocess.run(["echo", "worker: a program that it started prints as well"], check=True)
    print("worker: this went to standard error", file=sys.stderr)
    return x * x


@evener.function
def mean(numbers):
    """Fail for an empty list, in a function below this one."""
    return divide(sum(numbers), len(numbers))


def divide(a, b):
    """Divide; travels along with the function that uses it."""
    print(f"worker: dividing {a} by {b}")
    return a / b


@evener.function
def die():
    """End the worker in the middle of a call."""
    os.kill(os.getpid(), signal.SIGKILL)


@evener.function
def who(x):
    """Say which process this is, and double."""
    return os.getpid(), 2 * x


def expect(what: str, found: object, expected: object) -> None:
    """Note what is not as it should be, and go on."""
    if found != expected:
        wrong.append(f"{what}: {found!r}, not {expected!r}")


def show_prints() -> None:
    """What the function prints on its worker is printed here, while it runs."""
    print("\nA call, with what it prints:")
    future = square.submit(12)
    result = future.result()
    print(f"  square(12) is {result}, computed by process {future.worker}; this script is process {os.getpid()}")
    expect("square(12)", result, 144)
    expect(
        "its standard output",
        future.stdout,
        "worker: squaring 12\nworker: a program that it started prints as well\n",
    )
    expect("its standard error", future.stderr, "worker: this went to standard error\n")
    expect("computed elsewhere", future.worker != os.getpid(), True)


def show_exception() -> None:
    """What the function raises is raised here, as its own type, with the traceback of the worker as its cause."""
    print("\nA call that raises:")
    expect("mean([1, 2, 6])", mean.run([1, 2, 6]), 3.0)
    try:
        mean.run([])
    except ZeroDivisionError as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        print("  " + text.rstrip().replace("\n", "\n  "))
        expect("the message", str(error), "division by zero")
        expect("the cause", type(error.__cause__).__name__, "RemoteTraceback")
        expect("the line that raised is shown", "return a / b" in text, True)
    else:
        wrong.append("mean([]) raised nothing")


def show_death() -> None:
    """A worker that dies costs one call, and is replaced."""
    print("\nA call that kills its worker:")
    try:
        die.run()
    except evener.WorkerDied as error:
        print(f"  WorkerDied: {error}")
        expect("the signal is named", "SIGKILL" in str(error), True)
    else:
        wrong.append("die() came back")
    expect("a call after the death", who.run(4)[1], 8)


def show_many() -> None:
    """Many small calls: results in order, work spread over all workers."""
    print(f"\n{MANY:,} calls:")
    began = time.monotonic()
    found = list(who.map(range(MANY)))
    print(f"  in {time.monotonic() - began:.2f} s")
    for worker, calls in collections.Counter(worker for worker, _ in found).most_common():
        print(f"  process {worker}: {calls:,} calls")
    expect("the results, in order", [result for _, result in found], [2 * x for x in range(MANY)])


def main() -> int:
    """Show all; 0 if everything came back as it should."""
    show_prints()
    show_exception()
    show_death()
    show_many()
    for each in wrong:
        print(f"WRONG  {each}")
    print("\nEverything came back as it should." if not wrong else f"\n{len(wrong)} things came back otherwise.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
