"""Lets a remote function and its test see each other, wherever the function runs: through files in one folder."""

import os
import time
from pathlib import Path

from harness.waiting import until


class Signs:
    """Travels along with a function, and means the same folder on both sides."""

    def __init__(self, folder):
        self.folder = str(folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    # In the worker.

    def note(self, name, text=""):
        """Add a line to a file; lines of several processes do not mix."""
        with open(self.path(name), "a") as file:
            file.write(f"{text}\n")

    def wait_for(self, name, patience=30.0):
        """Wait until a file of that name is there."""
        deadline = time.monotonic() + patience
        while not os.path.exists(self.path(name)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no file {name}")
            time.sleep(0.005)

    def take(self, name):
        """Whether a file of that name was there; only one asker gets it."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            return False
        return True

    # In the test.

    def open(self, name):
        """Let whoever waits for this name go on."""
        Path(self.path(name)).touch()

    def notes(self, name):
        """The lines that were noted under that name."""
        place = Path(self.path(name))
        return place.read_text().split("\n")[:-1] if place.exists() else []

    def wait_notes(self, name, count=1, within=20.0):
        until(lambda: len(self.notes(name)) >= count, f"{count} notes under {name!r}", within=within)
        return self.notes(name)
