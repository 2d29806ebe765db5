"""The scripts of examples/functions, as a user starts them: alone, on an engine of their own or on a shared one."""

import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

import pytest

from harness.node import REPOSITORY, binary, environment
from harness.shared import shared_engine

EXAMPLES = REPOSITORY / "examples" / "functions"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def runtime():
    """A runtime folder of the test's own. A Unix socket's path has to be short, which those of pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="evener-") as folder:
        yield folder


@pytest.fixture
def run(runtime):
    """Runs a script with the Python of these tests and the binary under test."""

    def started(script, *arguments, env=None, within=50.0):
        return subprocess.run(
            [sys.executable, EXAMPLES / script, *map(str, arguments)],
            env=environment(runtime) | {"EVENER_BIN": str(binary())} | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    return started


def test_the_demo_finds_everything_as_it_should_be(run):
    done = run("demo.py")
    assert (done.returncode, "WRONG" in done.stdout) == (0, False), done.stdout + done.stderr
    # What the function printed is among what the demo printed, each on its own stream, and so is its exception.
    assert "worker: squaring 12\nworker: a program that it started prints as well\n" in done.stdout
    assert "worker: this went to standard error\n" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "WorkerDied" in done.stdout


def test_the_first_example_calls_in_every_way(run):
    done = run("square.py")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "sleeping 0.1 s before squaring 2",
        "here: 4",
        "sleeping 0.1 s before squaring 2",
        "run: 4",
    ]
    assert re.fullmatch(r"map: \[0, 1, 4, 9, 16, 25, 36, 49, 64, 81\] in \d+\.\d s", lines[4])
    assert re.fullmatch(r"submit: 25 by process \d+, which printed 'sleeping 0\.1 s before squaring 5\\n'", lines[5])
    # Two run at a time, so their prints come in either order.
    assert sorted(lines[6:8]) == [f"sleeping 0.1 s before squaring {x}" for x in (3, 4)]
    assert lines[8] == "await: [9, 16]"
    assert lines[9].startswith("exception: can't multiply sequence")
    assert len(lines) == 10


def test_the_decorator_that_writes_calls_down(run):
    done = run("compute_this.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["squared 1", "squared 2", "squared 2", "squared 3", "success"]


def test_the_load_test_tells_and_draws_what_happened(run, tmp_path):
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- load test: begin -->\nold\n<!-- load test: end -->\nafter\n")
    arguments = ["--workers", 4, "--calls-per-worker", "1,2", "--scale", 0.05, "--seed", 7]
    done = run(
        "load_test.py", *arguments, "--svg", tmp_path / "a.svg", "--json", tmp_path / "a.json", "--write", document
    )
    assert (done.returncode, done.stderr) == (0, "")

    runs = json.loads((tmp_path / "a.json").read_text())["runs"]
    assert [(found["workers"], found["calls"]) for found in runs] == [(4, 4), (4, 8)]
    for found in runs:
        assert 0 < found["ideal"] <= found["greedy"] <= found["real"]
        assert sum(found["served"].values()) == 4
        assert sum(int(calls) * workers for calls, workers in found["served"].items()) == found["calls"]

    blocks = done.stdout.split("-" * 80 + "\n")[1:]
    assert len(blocks) == 2
    for block, found in zip(blocks, runs, strict=True):
        lines = block.splitlines()
        assert lines[0] == "workers: 4"
        assert lines[1] == f"calls: {found['calls']}"
        assert lines[2] == f"ideal_execution_time: {found['ideal']:.6f}"
        assert lines[3] == f"greedy_execution_time: {found['greedy']:.6f}"
        assert lines[4] == f"real_execution_time: {found['real']:.6f}"
        assert lines[5] == f"effectiveness against ideal: {found['against_ideal']:.2%}"
        assert lines[6] == f"effectiveness against greedy: {found['against_greedy']:.2%}"
        assert lines[8] == "num of calls: served by num of workers"
        histogram = [tuple(map(int, line.split(":"))) for line in lines[9:]]
        assert histogram == [(int(calls), workers) for calls, workers in found["served"].items()]

    drawn = ET.parse(tmp_path / "a.svg").getroot()
    panels = drawn.findall(f"{SVG}g")
    # A faint rectangle for each worker, and one for each call.
    assert [len(panel.findall(f"{SVG}rect")) for panel in panels] == [4 + 4, 4 + 8]

    text = document.read_text()
    assert text.startswith("before\n<!-- load test: begin -->\nMeasured ")
    assert text.endswith("|\n\n![What each worker did](a.svg)\n<!-- load test: end -->\nafter\n")
    assert "| 4 | 8 |" in text
    assert "old" not in text


def test_the_load_test_takes_the_engine_that_is_there(run, runtime):
    with shared_engine(binary(), environment(runtime) | {"VIRTUAL_ENV": sys.prefix}) as address:
        done = run("load_test.py", "--calls-per-worker", "3", "--scale", 0.02, env={"EVENER_URL": address})
    assert (done.returncode, done.stderr) == (0, "")
    assert "workers: 2\ncalls: 6\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        ([], "--workers 20, or EVENER_URL"),
        (["--workers", "0"], "0 is less than 1"),
        (["--workers", "2", "--calls-per-worker", "1,x"], "--calls-per-worker"),
    ],
)
def test_the_load_test_says_what_is_wrong_with_its_arguments(run, arguments, saying):
    done = run("load_test.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert saying in done.stderr


def test_every_example_has_a_test():
    tested = re.findall(r'run\("(\w+\.py)"', (REPOSITORY / "tests" / "test_examples.py").read_text())
    scripts = {path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == set(tested)
