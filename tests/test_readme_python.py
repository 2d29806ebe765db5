"""The Python section of the README does what it says: its scripts are taken from it, run, and print what it shows.

They run with the Python of these tests and the binary under test, or, if CLIENT_PYTHON names one, with that Python
alone: the one of a virtual environment that holds the wheel and nothing else.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.node import REPOSITORY, binary, environment
from harness.shared import shared_engine

SECTION = re.search(
    r"^## Call a function on the pool\n(.*?)^## ", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION[1], re.MULTILINE | re.DOTALL) if SECTION else []


def scripts():
    """The Python blocks by the name in their first line."""
    found = {}
    for language, text in BLOCKS:
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, f"this block does not begin with the name of its file:\n{text}"
            found[name[1]] = text
    return found


def transcripts():
    """What the README shows of running them: pairs of a script's name and its output."""
    shown = []
    for language, text in BLOCKS:
        if language == "console":
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                words = shlex.split(command)
                if words[0] == "python" and words[1] != "-m":
                    shown.append((words[1], output))
    return shown


class Installation:
    """The Python that the scripts run with, the engine that belongs to it, and a folder that holds all scripts."""

    def __init__(self, folder, runtime):
        chosen = os.environ.get("CLIENT_PYTHON")
        self.folder = folder
        self.python = Path(chosen or sys.executable)
        self.engine = self.python.with_name("evener") if chosen else binary()
        self.env = environment(runtime) | ({} if chosen else {"EVENER_BIN": str(self.engine)})
        for name, text in scripts().items():
            (folder / name).write_text(text)

    def run(self, name, **more):
        return subprocess.run(
            [self.python, name],
            cwd=self.folder,
            env=self.env | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    def shared(self):
        return shared_engine(self.engine, self.env | {"VIRTUAL_ENV": str(self.python.parent.parent)})


@pytest.fixture
def installed(tmp_path):
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        yield Installation(tmp_path, runtime)


def test_the_section_is_there_and_every_script_is_shown_running():
    assert SECTION
    assert len(scripts()) >= 2
    assert {name for name, _ in transcripts()} == set(scripts())


@pytest.mark.parametrize(("name", "output"), transcripts(), ids=lambda value: value if value.endswith(".py") else "")
def test_a_script_prints_what_the_readme_shows(installed, name, output):
    done = installed.run(name)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", output)


def test_the_scripts_run_on_a_shared_engine_as_well(installed):
    with installed.shared() as address:
        for name, output in transcripts():
            done = installed.run(name, EVENER_URL=address)
            assert (done.returncode, done.stderr, done.stdout) == (0, "", output)
