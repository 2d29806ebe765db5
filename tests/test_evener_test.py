"""`evener test`: what a service file says under `tests` is sent to a real node, judged, told and written down."""

import os
import pty
import re
import signal
import socket
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from contextlib import contextmanager

import pytest

from harness import run_evener, until
from harness.node import MARK, REPOSITORY, binary, environment
from harness.processes import marked

APP = r"""
import time
from pathlib import Path

import evener


def work(value):
    print("at work")
    return {"given": value or None, "list": [1, 2]}


def echo(value, ctx):
    request = ctx.request
    return {"body": value, "headers": dict(request.headers), "query": request.query.get("q"), "method": request.method}


def odd(value):
    return evener.Response(b"\x1b[31m\xc3\xa9" + b"x" * 5000, 203, {"X-Odd": "a", "Content-Type": "text/plain"})


def binary(value):
    return b"\xff\xfe"


def bad(value):
    raise ValueError("what went wrong")


def hang(value):
    Path("hangs").touch()
    time.sleep(60)


def half(value):
    for _ in range(100):
        yield "x" * 10_000
    raise ValueError("half-way")
"""

SERVICE = """
service: tested
listen: {http: "127.0.0.1:1", api: "127.0.0.1:2"}
stages:
  work: {python: "app:work"}
  echo: {python: "app:echo"}
  odd: {python: "app:odd"}
  binary: {python: "app:binary"}
  bad: {python: "app:bad"}
  hang: {python: "app:hang", grace: 100ms}
  half: {python: "app:half"}
  pid: {jq: "1"}
pipelines: {}
routes:
  - {path: /work, pipeline: work, input: body}
  - {path: /echo, pipeline: echo}
  - {path: /odd, pipeline: odd}
  - {path: /binary, pipeline: binary}
  - {path: /bad, pipeline: bad}
  - {path: /hang, pipeline: hang, timeout: 50s}
  - {path: /half, pipeline: half}
  - {path: /one, pipeline: pid}
tests:
"""


class Ran:
    """A run, and what it said of each test."""

    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        parts = re.split(r"^(ok    |FAIL  )(.*) \((?:[\d.]+ m?s)\)\n", self.out, flags=re.MULTILINE)
        self.passed = [name for word, name in zip(parts[1::3], parts[2::3], strict=True) if word == "ok    "]
        self.failed = {
            name: text for word, name, text in zip(*(parts[n::3] for n in (1, 2, 3)), strict=True) if word == "FAIL  "
        }
        self.summary = self.out.splitlines()[-1] if self.out else ""


@pytest.fixture
def tests(tmp_path):
    """Runs these tests, given as lines of the file's list, or a whole file."""
    (tmp_path / "app.py").write_text(APP)

    def run(*lines, arguments=(), **options):
        file = tmp_path / "service.yaml"
        file.write_text(SERVICE + "".join(f"  - {line}\n" for line in lines))
        return Ran(run_evener("test", file, *arguments, cwd=tmp_path, within=40, **options))

    return run


def test_what_is_expected_passes(tests):
    ran = tests(
        "{name: plain, request: {path: /work}, expect: {within: 20s}}",
        "{name: a value, request: {path: /work, json: [1]}, expect: {json: {list: [1.0, 2], given: [1]}}}",
        "{name: predicate, request: {path: /work, body: text}, expect: {json: '.given == \"text\"'}}",
        "{name: whole body, request: {path: /one}, expect: {headers: {content-type: application/json}, body: '1'}}",
        "{name: other status, request: {path: /bad}, expect: {status: 500, json: '.code == \"function-failed\"'}}",
        """{name: as it is sent, request: {path: "/echo?q=%C3%A9", method: PUT, headers: {X-A: b, Host: h}, body: é},
            expect: {json: '[.body, .headers["x-a"], .headers.host, .query, .method, .headers["content-length"]] ==
            ["é", "b", "h", "é", "PUT", "2"]'}}""",
    )
    assert (ran.code, ran.err, ran.failed) == (0, "", {})
    assert ran.passed == ["plain", "a value", "predicate", "whole body", "other status", "as it is sent"]
    assert re.fullmatch(r"6 tests: 6 passed \([\d.]+ m?s\)", ran.summary)
    # The log is for those that failed, and colours are for terminals.
    assert "at work" not in ran.out
    assert "\x1b" not in ran.out


def test_what_is_not_expected_fails_and_says_in_what(tests):
    ran = tests(
        """{name: all of it, request: {path: /work, json: 1},
            expect: {status: 201, headers: {X-A: b}, body: no, json: {list: [1, 3], given: 1}, at_least: 30s}}""",
        "{name: fine, request: {path: /one}}",
        "{name: predicate, request: {path: /work}, expect: {json: '.list[0] > 1'}}",
        "{name: no JSON, request: {path: /odd}, expect: {status: 203, json: true}}",
        "{name: binary, request: {path: /binary}, expect: {body: text}}",
        "{name: raises, request: {path: /bad}}",
        "{name: no route, request: {path: /nowhere}, expect: {within: 10s}}",
    )
    assert (ran.code, ran.err) == (1, "")
    assert ran.passed == ["fine"]
    assert re.fullmatch(r"7 tests: 1 passed, 6 failed \([\d.]+ m?s\)", ran.summary)
    lines = [line.strip() for line in ran.failed["all of it"].splitlines()]
    assert re.fullmatch(r".*service\.yaml:\d+", lines[0])
    assert lines[1:5] == [
        "status: expected 201, came 200",
        'header X-A: expected "b", came none',
        'body: expected "no", came "{\\"given\\":1,\\"list\\":[1,2]}"',
        "json: at .list[1]: expected 3, came 2",
    ]
    assert lines[5].startswith("time: expected at least 30 s, took ")
    assert lines[6:9] == ["the answer to POST /work:", "200 OK", "content-type: application/json"]
    assert '{"given":1,"list":[1,2]}' in lines
    assert "json: `.list[0] > 1` gave false" in ran.failed["predicate"]
    assert "json: the body is not JSON: expected value" in ran.failed["no JSON"]
    # Nothing that an answer holds is obeyed by a terminal, and it is not shown to its end.
    assert "\x1b" not in ran.out
    assert re.search(r"\\u\{1b\}\[31méx{1994}… \(3006 bytes more\)", ran.failed["no JSON"])
    assert "(2 bytes that are no text)" in ran.failed["binary"]
    # What the node has logged during a test is shown with it and with no other.
    assert [name for name, text in ran.failed.items() if "at work" in text] == ["all of it", "predicate"]
    assert 'raise ValueError("what went wrong")' in ran.failed["raises"]
    assert "status: expected 200, came 404" in ran.failed["no route"]


def test_answers_that_do_not_come(tests):
    ran = tests(
        "{name: late, request: {path: /hang}, expect: {within: 100ms}}",
        "{name: in half, request: {path: /half}}",
        "{name: fine, request: {path: /one}}",
    )
    assert (ran.code, ran.passed) == (1, ["fine"])
    assert "no whole answer came within 5.1 s, and the request was given up" in ran.failed["late"]
    assert re.search(r"the answer broke off after \d+ bytes|no answer came", ran.failed["in half"])
    assert "half-way" in ran.failed["in half"]


def test_tests_may_change_the_service(tests):
    ran = tests(
        "{name: first, request: {path: /one}, expect: {json: 1}}",
        "{name: changed, request: {path: /one}, expect: {json: 2}, with: {stages: {pid: {jq: '2'}}}}",
        "{name: second, request: {path: /one}, expect: {json: 1}}",
        "{name: broken, request: {path: /work}, with: {stages: {work: {python: 'nothing:here'}}}}",
        "{name: changed as well, request: {path: /one}, expect: {json: 2}, with: {stages: {pid: {jq: '2'}}}}",
        "{name: no start, request: {path: /work}, with: {stages: {work: {interpreter: no-such-python}}}}",
        arguments=["--log"],
    )
    assert ran.code == 1
    # One node for those that want the same.
    assert ran.passed == ["first", "second", "changed", "changed as well"]
    assert list(ran.failed) == ["broken", "no start"]
    assert "status: expected 200, came 503" in ran.failed["broken"]
    assert "the service did not start: no Python interpreter was found" in ran.failed["no start"]
    assert ran.err.count("worker ready") >= 2 * 7
    assert "No module named 'nothing'" in ran.err
    assert "the log meanwhile" not in ran.out


def test_why_a_service_does_not_start_is_in_the_log_of_its_tests(tests):
    ran = tests("{name: broken, request: {path: /work}, with: {stages: {work: {python: 'nothing:here'}}}}")
    assert ran.code == 1
    assert "No module named 'nothing'" in ran.failed["broken"]


def test_some_of_them(tests):
    lines = [f"{{name: test of {name}, request: {{path: /one}}}}" for name in ("this", "that", "those")]
    ran = tests(*lines, arguments=["--filter", "of th"])
    assert (ran.code, len(ran.passed)) == (0, 3)
    ran = tests(*lines, arguments=["--filter", "that"])
    assert (ran.code, ran.passed) == (0, ["test of that"])
    assert ran.summary.startswith("1 test: 1 passed")
    ran = tests(*lines, arguments=["--filter", "THAT"])
    assert (ran.code, ran.out) == (2, "")
    assert 'no name of its 3 tests contains "THAT"' in ran.err


def test_values_over_the_file(tests):
    lines = [
        "{name: plain, request: {path: /one}, expect: {json: 3}}",
        "{name: with, request: {path: /one}, expect: {json: 4}, with: {stages: {pid: {jq: '4'}}}}",
        "{name: other, request: {path: /one}, expect: {json: 3}, with: {drain: 1s}}",
    ]
    assert tests(*lines, arguments=["--set", "stages.pid.jq='3'"]).code == 0
    # Later ones win.
    ran = tests(*lines, arguments=["--set", "stages.pid.jq='3'", "--set=stages.pid.jq='5'"])
    assert (ran.code, ran.passed) == (1, ["with"])
    ran = tests(*lines, arguments=["--set", "stages.pid.jq=["])
    assert (ran.code, ran.out) == (2, "")
    ran = tests(*lines, arguments=["--set", "stages.pid.frob=1"])
    assert (ran.code, ran.out) == (2, "")
    assert "--set stages.pid.frob=1" in ran.err


def test_a_bad_file_and_one_without_tests(tests, tmp_path):
    ran = tests()
    assert (ran.code, ran.out) == (2, "")
    assert "tests" in ran.err
    ran = tests("{name: bad, request: {path: one}, with: {stages: {pid: {jq: '('}}}}")
    assert (ran.code, ran.out) == (2, "")
    assert f"service.yaml:{SERVICE.count(chr(10)) + 1}" in ran.err
    done = run_evener("test", tmp_path / "missing.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such file" in done.stderr


def test_results_for_ci_systems(tests, tmp_path):
    place = tmp_path / "a" / "folder" / "results.xml"
    ran = tests(
        "{name: 'it is <\"fine\"> & well', request: {path: /one}}",
        "{name: odd, request: {path: /odd}, expect: {json: 1}}",
        "{name: raises, request: {path: /bad}}",
        "{name: no start, request: {path: /work}, with: {stages: {work: {interpreter: no-such-python}}}}",
        arguments=["--junit", place],
    )
    assert ran.code == 1
    root = ET.parse(place).getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    counts = {"tests": "4", "failures": "2", "errors": "1", "skipped": "0"}
    for element in (root, suite):
        assert {name: element.get(name) for name in counts} == counts
        assert float(element.get("time")) > 0
    assert suite.get("name") == "tested"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", suite.get("timestamp"))
    fine, odd, raises, start = suite
    assert fine.attrib.keys() == {"name", "classname", "file", "line", "time"}
    assert (fine.get("name"), fine.get("classname")) == ('it is <"fine"> & well', "tested")
    assert fine.get("file").endswith("service.yaml")
    assert SERVICE.count("\n") + 1 == int(fine.get("line"))
    assert list(fine) == []
    assert [child.tag for child in odd] == ["failure"]
    assert odd[0].get("message") == "status: expected 200, came 203"
    assert "\\u{1b}[31mé" in odd[0].text
    assert [child.tag for child in raises] == ["failure", "system-err"]
    assert "ValueError: what went wrong" in raises[1].text
    assert [child.tag for child in start] == ["error"]
    assert "no Python interpreter" in start[0].get("message")


def test_results_that_cannot_be_written(tests, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "results.xml"):
        ran = tests("{name: fine, request: {path: /one}}", arguments=["--junit", place])
        assert (ran.code, ran.out) == (2, "")
        assert f"--junit: {place} cannot be written" in ran.err


def test_it_is_in_nobodys_way(tests):
    """The file's own addresses are not used."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = tests("{name: fine, request: {path: /one}}", arguments=["--set", f"listen.http=127.0.0.1:{port}"])
    assert (ran.code, ran.passed) == (0, ["fine"])


@contextmanager
def running(tmp_path, *arguments, **options):
    """A run of tests, of which the second never ends."""
    (tmp_path / "app.py").write_text(APP)
    file = tmp_path / "service.yaml"
    paths = {"fine": "/one", "hangs": "/hang", "later": "/one"}
    file.write_text(SERVICE + "".join(f"  - {{name: {name}, request: {{path: {at}}}}}\n" for name, at in paths.items()))
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        env = environment(runtime) | {MARK: runtime}
        command = [binary(), "test", file, *arguments]
        process = subprocess.Popen(command, cwd=tmp_path, env=env, text=True, **options)
        try:
            until((tmp_path / "hangs").exists, "the test that hangs")
            yield process
            until(lambda: not marked(MARK, runtime), "the end of every process")
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_half_way(tmp_path, number):
    with running(tmp_path, "--junit", "out.xml", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")
    assert out.startswith("ok    fine (")
    assert re.fullmatch(r"3 tests: 1 passed, 2 not run \([\d.]+ m?s\)", out.splitlines()[-1])
    cases = ET.parse(tmp_path / "out.xml").getroot()[0]
    assert [[child.tag for child in case] for case in cases] == [[], ["skipped"], ["skipped"]]


def test_colours_on_a_terminal(tmp_path):
    master, slave = pty.openpty()
    with running(tmp_path, stdout=slave) as process:
        os.close(slave)
        assert os.read(master, 1000).startswith(b"\x1b[32mok  \x1b[0m  fine (")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    os.close(master)


def test_nobody_who_reads(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    file = tmp_path / "service.yaml"
    file.write_text(SERVICE + "  - {name: fine, request: {path: /one}}\n")
    read, write = os.pipe()
    os.close(read)
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        options = {"stdout": write, "stderr": subprocess.PIPE, "env": environment(runtime), "timeout": 20}
        done = subprocess.run([binary(), "test", file], check=False, **options)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


WITH_TESTS = {"euler6", "iterative", "mixed", "primes"}


@pytest.mark.parametrize("name", sorted(WITH_TESTS))
def test_examples_pass_their_own_tests(name):
    ran = Ran(run_evener("test", REPOSITORY / "examples" / name / "service.yaml"))
    assert (ran.code, ran.err, ran.failed) == (0, "", {})
    assert len(ran.passed) >= 2


def test_a_new_service_passes_its_own_tests(tmp_path):
    assert run_evener("new", tmp_path).returncode == 0
    ran = Ran(run_evener("test", "service.yaml", cwd=tmp_path))
    assert (ran.code, ran.err, ran.failed) == (0, "", {})
    assert len(ran.passed) == 3


def test_every_example_with_tests_is_tested_here():
    examples = (REPOSITORY / "examples").glob("*/service.yaml")
    with_tests = {file.parent.name for file in examples if re.search("^tests:", file.read_text(), re.MULTILINE)}
    assert with_tests == WITH_TESTS
