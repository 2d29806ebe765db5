"""The decorator `compute_this`: a call is first written down, and then run. python compute_this.py

This is the surface of the program that remote functions began with; `evener.function` is the one to learn.
"""

from __future__ import annotations

import asyncio

import evener


@evener.compute_this(depmodules=["time"])
def func(x):
    """Sleep and square. `time` is not imported in this file: depmodules imports it where the function runs."""
    time.sleep(x / 10)  # noqa: F821
    print("squared", x)
    return x * x


async def several():
    """Run three calls at a time."""
    return await asyncio.gather(*(func(x).async_run() for x in (1, 2, 3)))


def main():
    """Run a call, run some at a time, and look at who is there to run them."""
    assert func(2).run() == 4
    assert asyncio.run(several()) == [1, 4, 9]
    assert func.get_workers() > 0
    print("success")


if __name__ == "__main__":
    main()
