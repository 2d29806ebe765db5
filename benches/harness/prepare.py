"""What must be there before anything is measured: wrk, the peer in its virtual environment, the tools of floor/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .load import BENCHES
from .measure import say
from .systems import PYTHON

REQUIREMENTS = BENCHES / "requirements.txt"


class PreparationError(Exception):
    """Something is not there and could not be fetched."""


@dataclass(frozen=True)
class Tools:
    """The programs of floor/."""

    bare: Path
    openloop: Path
    primes: Path


def wrk() -> None:
    """See that wrk is there; install it where that is allowed."""
    if shutil.which("wrk"):
        return
    advice = "wrk, the load generator, is not installed: on Debian and Ubuntu, `apt-get install wrk`"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise PreparationError(advice)
    say("installing wrk")
    if _quietly(["apt-get", "install", "--yes", "--no-install-recommends", "wrk"]):
        _quietly(["apt-get", "update"])
        if error := _quietly(["apt-get", "install", "--yes", "--no-install-recommends", "wrk"]):
            raise PreparationError(f"{advice}\n{error}")


def peer(name: str) -> None:
    """See that the virtual environment holds a peer as it is pinned, installing it on first use."""
    wanted = _pinned(name)
    if installed(name) == wanted:
        return
    say(f"installing {name} into benches/.venv")
    _install(f"{name}=={wanted}")
    if installed(name) != wanted:
        raise PreparationError(f"{name} was installed but does not show up in benches/.venv")


def wheel(file: Path) -> None:
    """Put our own package into the virtual environment, in place of any that is there."""
    say(f"installing {file.name} into benches/.venv")
    _install(str(file))
    # A wheel of the same version as the one that is installed would not be looked at.
    _install("--force-reinstall", "--no-deps", str(file))


def environment() -> None:
    """See that there is a virtual environment, whose interpreter all workers run on."""
    if not PYTHON.exists() and (
        error := _quietly([sys.executable, "-m", "venv", "--clear", str(PYTHON.parent.parent)])
    ):
        raise PreparationError(f"could not make benches/.venv:\n{error}")


def _install(*what: str) -> None:
    steps = [[str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]]
    if not PYTHON.exists():
        steps.insert(0, [sys.executable, "-m", "venv", "--clear", str(PYTHON.parent.parent)])
    for step in steps:
        if error := _quietly(step):
            raise PreparationError(f"could not install {what[-1]}:\n{error}")


def floor_tools() -> Tools | None:
    """Build the open-loop generator and the bare servers; without cargo the run goes on without them."""
    folder = BENCHES / "floor"
    if not shutil.which("cargo"):
        say("no cargo: measuring without the open loop and the bare servers")
        return None
    target = folder / "target"
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(folder / "Cargo.toml")]
    if error := _quietly([*command, "--target-dir", str(target)]):
        raise PreparationError(f"could not build benches/floor:\n{error}")
    return Tools(*(target / "release" / name for name in ("bare", "openloop", "primes")))


def versions(evener: Path | None) -> dict[str, str]:
    """Say what is measured, with what."""
    found = {}
    if evener:
        found["Evener"] = _first_line([str(evener), "--version"]).removeprefix("evener ")
    found["Mosec"] = installed("mosec")
    found["Python"] = python_version()
    found["wrk"] = _first_line(["wrk", "--version"]).removeprefix("wrk ").split(" ")[0]
    return found


def floor_version(name: str) -> str:
    """Say which version of a crate the programs of floor/ are built with."""
    lock = (BENCHES / "floor" / "Cargo.lock").read_text()
    return lock.partition(f'name = "{name}"\nversion = "')[2].partition('"')[0]


def python_version() -> str:
    """Say which Python the virtual environment has."""
    return _first_line([str(PYTHON), "--version"]).removeprefix("Python ")


def installed(name: str) -> str:
    """Say which version of a package the virtual environment has; nothing if there is none that imports."""
    if not PYTHON.exists():
        return ""
    code = f"import importlib.metadata as m; import {name}; print(m.version('{name}'))"
    return _first_line([str(PYTHON), "-c", code])


def _pinned(name: str) -> str:
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line.partition("==")[2].strip() for line in lines if line.startswith(f"{name}=="))


def _first_line(command: list[str]) -> str:
    """Give the first line that a command writes, whatever its exit code: wrk's is 1 after --version."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0].strip()


def _quietly(command: list[str]) -> str:
    """Run a command; give the end of what it wrote if it failed, else nothing."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return "\n".join(done.stdout.splitlines()[-15:]) + " " if done.returncode else ""
