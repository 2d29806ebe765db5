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
from .load import Load, LoadError, closed
from .stats import Block, Pair, Series
from .systems import System

PROCESSORS = os.cpu_count() or 1

Drive = Callable[[System, int], Load]
"""Loads a system; the number is that of the pair."""


@dataclass(frozen=True)
class Effort:
    """How long and how often. Seconds are whole, because wrk counts in those."""

    block: int = 4
    warm_up: int = 1
    pairs: int = 5
    floor: float = 0.2
    rest: float = 3.0


FULL = Effort()
QUICK = Effort(block=1, warm_up=0, pairs=2, floor=0.1, rest=1.0)


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


def block(system: System, drive: Drive, number: int) -> Block:
    """Load a system once and see what it cost."""
    before, busy, own = system.tree(), processes.machine_busy(), time.process_time()
    load = drive(system, number)
    after = system.tree()
    busy, own = processes.machine_busy() - busy, time.process_time() - own
    if before.keys() != after.keys():
        raise LoadError(f"{system.name}: processes came or went under load")
    cost = sum(after[pid].cpu - before[pid].cpu for pid in after)
    system.check()
    foreign = max(0.0, busy - own - cost - load.generator_cpu) / load.seconds / PROCESSORS
    return Block(system.name, load, cost, foreign)


def interleave(first: System, second: System, drive: Drive, probe: Probe, effort: Effort, warm: int = 32) -> Series:
    """Measure A-B-B-A until enough pairs are kept, or twice as many were tried."""
    series = Series(first.name, second.name, effort.pairs)
    reading = probe.read(effort.floor)
    number = 0
    while not series.enough and number < 2 * effort.pairs:
        ordered = (first, second) if number % 2 == 0 else (second, first)
        blocks, floor = {}, [reading]
        for system in ordered:
            if effort.warm_up:
                closed(system.address, warm, effort.warm_up)
            blocks[id(system)] = block(system, drive, number)
            floor.append(probe.read(effort.floor))
        reading = floor[2]
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
