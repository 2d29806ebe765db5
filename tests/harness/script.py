"""A script of a user, in a process of its own, as the tests of its end and of what it shows need it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import uuid
from pathlib import Path

from harness.node import MARK, binary, environment
from harness.processes import marked
from harness.waiting import until


class Script:
    """Runs a program's text with the Python of these tests, and knows every process that comes of it.

    What it writes goes into files, so that it can be read while it runs. The folder of the script is its working
    directory as well.
    """

    def __init__(self, folder, text, *, env=None, arguments=(), python=None, name="script.py"):
        self.folder = Path(folder)
        self.file = self.folder / name
        self.file.write_text(textwrap.dedent(text))
        # A Unix socket's path has to be short, which those of pytest's own folders are not.
        self.runtime = Path(tempfile.mkdtemp(prefix="evener-"))
        self.mark = uuid.uuid4().hex
        self.env = environment(self.runtime) | {"EVENER_BIN": str(binary()), MARK: self.mark} | (env or {})
        self.arguments = [str(python or sys.executable), str(self.file), *map(str, arguments)]
        self.process = None

    def start(self, *, stdin=subprocess.DEVNULL, **options):
        """Start it, and return at once."""
        with open(self.folder / "stdout", "w") as out, open(self.folder / "stderr", "w") as err:
            self.process = subprocess.Popen(
                self.arguments, cwd=self.folder, env=self.env, stdin=stdin, stdout=out, stderr=err, **options
            )
        return self

    @property
    def out(self):
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def err(self):
        return (self.folder / "stderr").read_text(errors="replace")

    def wait_out(self, text, within=20.0):
        """Wait until it has written this to its standard output."""

        def there():
            assert text in self.out or self.process.poll() is None, self.ended_early()
            return text in self.out

        until(there, f"{text!r} on the script's standard output", within=within)

    def ended_early(self):
        return f"the script ended with {self.process.returncode}:\n{self.out}\n{self.err}"

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, within=30.0):
        """Wait until it has ended by itself; return its exit code."""
        return self.process.wait(timeout=within)

    def succeed(self, within=30.0):
        """Wait for its end, which must be a good one; return what it wrote to standard output."""
        code = self.wait(within)
        assert code == 0, self.ended_early()
        return self.out

    def family(self):
        """Every living process that descends from the script, itself included."""
        return marked(MARK, self.mark)

    def engines(self):
        return [process for process in self.family() if process.name == "evener"]

    def workers(self):
        return [process for process in self.family() if any("/worker-" in word for word in process.arguments)]

    def assert_nothing_survives(self, within=1.0):
        until(lambda: not self.family(), "the end of every process of the script", within=within)

    def discard(self):
        """End what is left, however things stand; return what should not have been there."""
        left = []
        if self.process is not None:
            if self.process.poll() is None:
                self.send(signal.SIGKILL)
            self.process.wait(10)
            try:
                self.assert_nothing_survives(3.0)
            except AssertionError:
                left = self.family()
                for process in left:
                    process.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)
        return left


def interrupt_group(process):
    """Do what a terminal does at Ctrl-C: interrupt every process of the script's group."""
    os.killpg(process.pid, signal.SIGINT)
