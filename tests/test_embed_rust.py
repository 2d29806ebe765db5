"""The example that embeds the node in a Rust program: its stages are functions of the program."""

import signal
import subprocess
import tempfile

import pytest

from harness import assert_problem, run_evener
from harness.client import Connection
from harness.node import REPOSITORY, binary, environment
from harness.processes import children_of


@pytest.fixture(scope="module")
def program():
    """The example, on a port of its own, and the address of its routes."""
    example = binary().parent / "embed-rust"
    assert example.exists(), "`make build` builds the example"
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        started = subprocess.Popen(
            [example, "127.0.0.1:0"], cwd=REPOSITORY, env=environment(runtime), stdout=subprocess.PIPE, text=True
        )
        try:
            address = None
            for line in started.stdout:
                if line.startswith("listening http http://"):
                    host, port = line.split("//")[1].strip().rsplit(":", 1)
                    address = (host, int(port))
                if line == "ready\n":
                    break
            assert address, "it says where it listens, and that it is ready"
            yield started, address
            started.send_signal(signal.SIGTERM)
            assert started.wait(20) == 0
        finally:
            started.kill()
            started.stdout.close()
            started.wait()


def ask(program, query, patience=20.0):
    _, address = program
    with Connection(address, patience=patience) as connection:
        return connection.get(f"/is_prime{query}")


@pytest.mark.parametrize(
    ("number", "factor"), [(7, 7), (91, 7), (1000003, 1000003), (99999989, 99999989), (3, 3), (9, 3)]
)
def test_both_stages_are_functions_of_the_program(program, number, factor):
    answer = ask(program, f"?possible_prime={number}")
    assert (answer.status, answer.json, answer.content_type) == (200, factor, "application/json")


def test_the_first_may_answer_or_refuse(program):
    answer = ask(program, "?possible_prime=1000000")
    assert (answer.status, answer.text) == (200, "2")
    for query in ["", "?possible_prime=x", "?possible_prime=1", "?possible_prime=100000001"]:
        assert_problem(ask(program, query), "aborted", status=400, stage="parse", tries=1, saying="possible_prime")


def test_there_is_no_other_process(program):
    started, _ = program
    ask(program, "?possible_prime=7")
    assert list(children_of(started.pid)) == []


def test_a_function_that_the_program_does_not_have_is_named(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text("service: s\nstages: {a: {rust: there_is_none}}\nroutes: [{path: /, pipeline: a}]\n")
    done = run_evener("check", file)
    assert done.returncode == 0, done.stderr
    done = run_evener("up", file)
    assert done.returncode in (1, 2)
    assert "there_is_none" in done.stderr
