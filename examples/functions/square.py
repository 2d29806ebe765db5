"""A function that takes its time, called on a pool of workers: python square.py

Nothing has to be started before: without EVENER_URL the script gets an engine of its own, which ends with it.
"""

from __future__ import annotations

import asyncio
import time

import evener


@evener.function
def square(x, seconds=0.1):
    """Sleep, say so, and square."""
    print(f"sleeping {seconds} s before squaring {x!r}")
    time.sleep(seconds)
    return x * x


async def both():
    """Wait for two calls at a time, in an event loop."""
    return await asyncio.gather(square.submit(3), square.submit(4))


def main():
    """Call it in every way."""
    print("here:", square(2))

    # On a worker, waiting for the result. What it prints there is printed here.
    print("run:", square.run(2))

    # Many calls, the results in order, every worker busy. This time what they print is not wanted.
    quiet = square.options(output="discard")
    began = time.monotonic()
    print("map:", list(quiet.map(range(10))), f"in {time.monotonic() - began:.1f} s")

    # A future, as those of concurrent.futures; with "capture", what it printed is on the future alone.
    future = square.options(output="capture").submit(5)
    print("submit:", future.result(), f"by process {future.worker}, which printed {future.stdout!r}")

    # Futures can be awaited as well.
    print("await:", asyncio.run(both()))

    # What is raised there is raised here, as its own type.
    try:
        quiet.run("two")
    except TypeError as error:
        print("exception:", error)


if __name__ == "__main__":
    main()
