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


def peer() -> None:
    """See that the virtual environment holds the pinned peer, making it on first use."""
    if _peer_version() == _pinned():
        return
    say("installing Mosec into benches/.venv")
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(PYTHON.parent.parent)],
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)],
    ]
    for step in steps:
        if error := _quietly(step):
            raise PreparationError(f"could not install Mosec:\n{error}")
    if _peer_version() != _pinned():
        raise PreparationError("Mosec was installed but does not show up in benches/.venv")


def floor_tools() -> Tools | None:
    """Build the open-loop generator and the bare server; without cargo the run goes on without both."""
    folder = BENCHES / "floor"
    if not shutil.which("cargo"):
        say("no cargo: measuring without the open loop and the bare server")
        return None
    target = folder / "target"
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(folder / "Cargo.toml")]
    if error := _quietly([*command, "--target-dir", str(target)]):
        raise PreparationError(f"could not build benches/floor:\n{error}")
    return Tools(target / "release" / "bare", target / "release" / "openloop")


def versions(evener: Path | None) -> dict[str, str]:
    """Say what is measured, with what."""
    found = {}
    if evener:
        found["Evener"] = _first_line([str(evener), "--version"]).removeprefix("evener ")
    found["Mosec"] = _peer_version()
    found["Python"] = _first_line([str(PYTHON), "--version"]).removeprefix("Python ")
    found["wrk"] = _first_line(["wrk", "--version"]).removeprefix("wrk ").split(" ")[0]
    return found


def _pinned() -> str:
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line.removeprefix("mosec==").strip() for line in lines if line.startswith("mosec=="))


def _peer_version() -> str:
    if not PYTHON.exists():
        return ""
    return _first_line([str(PYTHON), "-c", "import importlib.metadata as m; import mosec; print(m.version('mosec'))"])


def _first_line(command: list[str]) -> str:
    """Give the first line that a command writes, whatever its exit code: wrk's is 1 after --version."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0].strip()


def _quietly(command: list[str]) -> str:
    """Run a command; give the end of what it wrote if it failed, else nothing."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return "\n".join(done.stdout.splitlines()[-15:]) + " " if done.returncode else ""
