"""Measuring: interleaved blocks of load on two systems, with the floor read in between."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .floor import Probe
from .load import Load, LoadError
from .stats import STEADY, Block, Pair, Series
from .systems import System

PROCESSORS = os.cpu_count() or 1

Drive = Callable[[System, int], Load]
"""Loads a system; the number is that of the pair."""

Warm = Callable[[System], object]
"""Loads a system for as long as the effort says that it shall warm up."""


@dataclass(frozen=True)
class Effort:
    """How long and how often, in seconds; those of blocks are whole, because wrk counts in such.

    `patience` is how long a run waits, all in all, for a machine that is busy with something else.
    """

    block: int = 4
    warm_up: int = 1
    pairs: int = 5
    floor: float = 0.2
    rest: float = 3.0
    patience: float = 300.0


FULL = Effort()
QUICK = Effort(block=1, warm_up=0, pairs=2, floor=0.1, rest=1.0, patience=0.0)


@dataclass(frozen=True)
class Resting:
    """A process of a system that has answered one request and then rested."""

    system: str
    role: str
    resident: int
    proportional: int
    cpu_share: float


def say(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


class Quiet:
    """Waits for moments in which nobody else uses the machine, as long as there is patience left."""

    SAMPLE = 0.5

    def __init__(self, patience: float) -> None:
        """Take the seconds that may be waited in all."""
        self._left = patience

    def wait(self) -> None:
        """Return when the machine is quiet, or when patience is at its end."""
        waited = 0.0
        while self._left > 0 and self._busy() > STEADY:
            if not waited:
                say("    waiting for the machine to be quiet")
            time.sleep(self.SAMPLE)
            waited += 2 * self.SAMPLE
            self._left -= 2 * self.SAMPLE

    def _busy(self) -> float:
        before = processes.machine_busy()
        time.sleep(self.SAMPLE)
        return (processes.machine_busy() - before) / self.SAMPLE / PROCESSORS


def block(system: System, drive: Drive, number: int) -> Block:
    """Load a system once and see what it cost."""
    before, busy, own = system.tree(), processes.machine_busy(), time.process_time()
    load = drive(system, number)
    after = system.tree()
    busy, own = processes.machine_busy() - busy, time.process_time() - own
    if before.keys() != after.keys() and not system.changing:
        raise LoadError(f"{system.name}: processes came or went under load")
    cost = sum(process.cpu - (before[pid].cpu if pid in before else 0.0) for pid, process in after.items())
    system.check()
    foreign = max(0.0, busy - own - cost - load.generator_cpu) / load.seconds / PROCESSORS
    return Block(system.name, load, cost, foreign)


@dataclass(frozen=True)
class Machine:
    """What is watched of the machine itself."""

    probe: Probe
    quiet: Quiet


def interleave(first: System, second: System, drive: Drive, machine: Machine, effort: Effort, warm: Warm) -> Series:
    """Measure A-B-B-A until enough pairs are kept, or twice as many were tried."""
    series = Series(first.name, second.name, effort.pairs)
    number = 0
    while not series.enough and number < 2 * effort.pairs:
        machine.quiet.wait()
        ordered = (first, second) if number % 2 == 0 else (second, first)
        blocks, floor = {}, [machine.probe.read(effort.floor)]
        for system in ordered:
            if effort.warm_up:
                warm(system)
            blocks[id(system)] = block(system, drive, number)
            floor.append(machine.probe.read(effort.floor))
        pair = Pair(blocks[id(first)], blocks[id(second)], (floor[0], floor[1], floor[2]))
        kept = series.add(pair)
        number += 1
        say(f"    {number}: " + _line(pair) + ("" if kept else _why(pair)))
    return series


def _why(pair: Pair) -> str:
    return f"  set aside: the floor moved {pair.moved:.0%}, others used {pair.foreign:.0%} of the machine"


def _line(pair: Pair) -> str:
    parts = []
    for each in (pair.first, pair.second):
        figures = f"{each.figure('requests/s'):8.0f}/s  p50 {each.figure('p50'):6.0f} us"
        parts.append(f"{figures}  {each.figure('CPU per request'):5.0f} us CPU")
    return "  |  ".join(parts)


def rest(system: System, seconds: float) -> list[Resting]:
    """See what a system that does nothing holds and uses. A system that was loaded before does not rest any more."""
    before = system.tree()
    time.sleep(seconds)
    root = before[system.pid]
    workers = {process.pid for process in system.workers()}
    found = []
    for pid, process in system.tree().items():
        if pid == system.pid:
            role = "node" if system.name == "Evener" else "controller"
        elif pid in workers:
            role = "worker"
        elif process.executable == root.executable and Path(process.executable).name.startswith("python"):
            role = "resource tracker"
        elif process.executable == root.executable:
            role = "warden"
        else:
            role = Path(process.executable).name
        held = processes.memory(pid)
        used = process.cpu - before[pid].cpu if pid in before else process.cpu
        found.append(Resting(system.name, role, held.resident, held.proportional, used / seconds))
    return found
