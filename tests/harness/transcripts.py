"""Does what a page shows in its `console` blocks, and compares what comes with what the page shows."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.node import binary, environment
from harness.pages import read_page, read_yaml

# Where a service listens whose file does not say.
DEFAULT_ADDRESS = "127.0.0.1:8000"

# What is another at every run. It is not compared, though something of the kind has to be there.
VOLATILE = [
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\([\d.]+ m?s\)"), "(TIME)"),
]


def settled(text):
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return text


def assert_shown(shown, came):
    """What came is what is shown, where `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in settled(shown).split("..."))
    assert re.fullmatch(pattern, settled(came), re.DOTALL), f"the page shows:\n{shown}\nit comes:\n{came}"


class Transcript:
    """Runs commands in a folder as they are written, but for the address: services listen on a free port.

    `start_node` is the fixture `node` of the tests. `evener up` stays up until the next one.
    """

    def __init__(self, start_node, folder, runtime):
        self.start_node = start_node
        self.folder = folder
        self.runtime = runtime
        self.node = None
        self.documented = None
        self.done = []
        (runtime / "bin").mkdir()
        (runtime / "bin" / "evener").symlink_to(binary())

    def run(self, block):
        for command, shown in block.commands:
            self.done.append(command)
            if command.startswith("evener up "):
                self.up(shlex.split(command)[2:], shown)
            else:
                self.ask(command, shown)

    def up(self, arguments, shown):
        if self.node is not None:
            self.node.stop()
        file = self.folder / arguments[0]
        self.documented = read_yaml(file.read_text()).get("listen", {}).get("http", DEFAULT_ADDRESS)
        self.node = self.start_node(file, arguments=[*arguments[1:], "--http", "127.0.0.1:0"])
        if shown:
            self.compare(shown, "".join(f"{line}\n" for line in self.node.output))

    def ask(self, command, shown):
        if self.node is not None:
            command = command.replace(self.documented, self.address)
        env = environment(self.runtime)
        env["PATH"] = f"{self.runtime / 'bin'}{os.pathsep}{env['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        self.compare(shown, done.stdout)

    @property
    def address(self):
        host, port = self.node.address()
        return f"{host}:{port}"

    def compare(self, shown, came):
        if self.node is not None:
            came = came.replace(self.address, self.documented)
        # curl leaves the line open after an answer; a terminal shows what follows on the next one.
        assert_shown(shown.removesuffix("\n"), came.removesuffix("\n"))


def run_page(start_node, page, folder):
    """Everything in the consoles of a page, in that folder; returns the commands."""
    # A Unix socket's path has to be short, which those of pytest's own folders are not.
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        transcript = Transcript(start_node, folder, Path(runtime))
        for section in read_page(page):
            for block in section.blocks:
                if block.language == "console":
                    transcript.run(block)
    return transcript.done


def run_readme(start_node, example, folder):
    """Everything in the README of an example, on a copy of it; returns the commands."""
    shutil.copytree(example, folder / "examples" / example.name)
    return run_page(start_node, example / "README.md", folder)
