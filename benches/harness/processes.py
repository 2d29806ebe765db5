"""Whole process trees, read from /proc: who belongs, what they cost, and how all of them are ended.

A tree is known by a mark in its environment and not by parenthood alone, so that a child whose parent has died is
still counted, and ended. Marks of one run share a beginning, and whatever the harness starts carries that at least,
so that a run can make sure of leaving nothing. Linux only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

MARK = "BENCH_TREE"
RUN = uuid.uuid4().hex
TICK = 1 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")

_numbers = itertools.count(1)
os.environ[MARK] = RUN


def new_mark() -> str:
    """Give a mark for one more tree of this run."""
    return f"{RUN}-{next(_numbers)}"


@dataclass(frozen=True)
class Process:
    """One process at one moment; `cpu` is the seconds it has used so far, user and system together."""

    pid: int
    parent: int
    executable: str
    arguments: tuple[str, ...]
    cpu: float


@dataclass(frozen=True)
class Memory:
    """What a process holds, in bytes: resident, and resident with shared pages divided among their holders."""

    resident: int
    proportional: int


def _read(pid: int) -> Process | None:
    """Read one process, or None if it is gone or somebody else's."""
    folder = PROC / str(pid)
    try:
        # The name, in parentheses, may itself hold spaces and parentheses.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        arguments = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        executable = str((folder / "exe").readlink())
    except OSError:
        return None
    if fields[0] == "Z":
        return None
    return Process(pid, int(fields[1]), executable, tuple(arguments), (int(fields[11]) + int(fields[12])) * TICK)


def _marked(pid: int, mark: str) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    value = f"{MARK}={mark}".encode()
    return any(entry == value or entry.startswith(value + b"-") for entry in environment.split(b"\0"))


def tree(root: int, mark: str) -> dict[int, Process]:
    """All living processes that carry the mark (or one that it begins), the root, and whatever descends from these."""
    everyone = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (process := _read(int(entry.name))) is not None:
            everyone[process.pid] = process
    members = {pid for pid in everyone if pid == root or (pid != os.getpid() and _marked(pid, mark))}
    grown = True
    while grown:
        more = {pid for pid, process in everyone.items() if process.parent in members} - members
        members |= more
        grown = bool(more)
    return {pid: everyone[pid] for pid in sorted(members)}


def memory(pid: int) -> Memory:
    """Tell what one process holds now."""
    kibibytes = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        kibibytes[name] = int(rest.split()[0])
    return Memory(kibibytes["Rss"] * 1024, kibibytes["Pss"] * 1024)


def forget_peak(pid: int) -> None:
    """Have the kernel count the peak of what a process holds from now on."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The most that a process held at a time, in bytes, since its peak was forgotten or since it began."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def machine_busy() -> float:
    """CPU seconds that all processors together have spent on anything, stolen time included, since boot."""
    fields = [int(field) for field in (PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = fields
    return (user + nice + system + interrupts + soft_interrupts + stolen) * TICK


def kill_marked(mark: str) -> list[Process]:
    """Kill every process that carries the mark, by its id, and say which there were."""
    killed = []
    for process in tree(-1, mark).values():
        with contextlib.suppress(ProcessLookupError):
            # The handle holds on to this very process, should the number be given to another meanwhile.
            handle = os.pidfd_open(process.pid)
            try:
                if _marked(process.pid, mark):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    killed.append(process)
            finally:
                os.close(handle)
    return killed


def wait_until_gone(mark: str, patience: float) -> bool:
    """Wait for every marked process to end; False if some outlive the patience (in seconds)."""
    end = time.monotonic() + patience
    while tree(-1, mark):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
