"""Processes as the kernel shows them in /proc."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process at one moment; the start time tells it from a later one of the same number."""

    pid: int
    started: str
    parent: int = field(compare=False)
    state: str = field(compare=False)
    name: str = field(compare=False)

    @staticmethod
    def at(pid):
        """Return the process of that number, or None. One that is dead and not yet reaped counts as none."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The name stands in parentheses and may hold anything, parentheses included.
        name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
        fields = rest.split()
        if fields[0] in "ZX":
            return None
        return Process(pid, fields[19], int(fields[1]), fields[0], name)

    @property
    def is_alive(self):
        found = Process.at(self.pid)
        return found is not None and found.started == self.started

    @property
    def arguments(self):
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return []

    @property
    def environment(self):
        try:
            pairs = Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return {}
        return dict(pair.decode(errors="replace").partition("=")[::2] for pair in pairs if pair)

    @property
    def descriptors(self):
        """Each open descriptor and what it leads to."""
        folder = Path(f"/proc/{self.pid}/fd")
        return {int(entry): os.readlink(folder / entry) for entry in os.listdir(folder)}

    @property
    def resident(self):
        """Bytes of memory that are really in use."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak(self):
        """The most bytes of memory that were ever really in use; 0 once it is gone."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

    def send(self, number):
        """Send it a signal, if it is still itself."""
        if self.is_alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def kill(self):
        self.send(signal.SIGKILL)


def all_processes():
    found = (Process.at(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [process for process in found if process]


def children_of(pid):
    return [process for process in all_processes() if process.parent == pid]


def marked(variable, value):
    """Return every process that was born with this variable in its environment, however it was detached since."""
    return [process for process in all_processes() if process.environment.get(variable) == value]
