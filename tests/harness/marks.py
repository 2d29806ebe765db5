"""Lets stage code and its test see each other through files in the service's folder.

A copy of this file stands beside every service file, so stage code can import it. The working directory of a worker is
that folder.
"""

import os
import time


def note(name, text=""):
    """Add a line to a file; lines of several processes do not mix."""
    with open(name, "a") as file:
        file.write(f"{text}\n")


def wait_for(name, patience=30.0):
    """Wait until a file of that name is there."""
    deadline = time.monotonic() + patience
    while not os.path.exists(name):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no file {name}")
        time.sleep(0.005)


def take(name):
    """Whether a file of that name was there; only one asker gets it."""
    try:
        os.unlink(name)
    except FileNotFoundError:
        return False
    return True
