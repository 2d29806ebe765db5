"""Stages that start a program for each job."""

import json
import random
import signal
import sys
import time

import pytest

from harness import assert_problem, run_evener, until

# The stages write their process numbers down, so that tests can look for what is left of them.
SERVICE = """
limits: {body: 8MiB}
stages:
  upper: {command: [tr, a-z, A-Z]}
  same: {command: [cat], output: bytes, workers: 4}
  json: {command: [cat], output: json}
  args: {command: [printf, "<%s>", fixed, "{{ .text }}", "n={{ .n }}", "{{ .yes }}{{ .n }}"]}
  code: {command: [sh, -c, 'echo first >&2; echo last words >&2; exit 3']}
  flaky: {command: [./flaky], retries: 2, retry_on: [error], backoff: 10ms}
  missing: {command: [no-such-program-anywhere, x]}
  deaf: {command: [sh, -c, 'sleep 0; echo fine']}
  talks: {command: [sh, -c, 'echo "<4>take care" >&2; echo done']}
  finds: {command: [./finds], env: {PLACE: "at {index}"}, memory: 512MiB}
  killed: {command: [sh, -c, 'kill -9 $$$$']}
  raw: {command: [printf, '\\377']}
  slow: {command: [sh, -c, 'echo $$$$ >> pids; sleep 0.3; cat'], workers: 2, queue: 100}
routes:
"""
NAMES = [
    "upper", "same", "json", "args", "code", "flaky", "missing", "deaf", "talks", "finds", "killed", "raw", "slow",
]  # fmt: skip

FLAKY = """\
#!/bin/sh
echo try >> tries
test "$(wc -l < tries)" -ge 3 && echo third
"""

FINDS = f"""\
#!{sys.executable}
import json, os, sys
open_ones = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name))
import resource
print(json.dumps({{
    "place": os.environ["PLACE"], "cwd": os.getcwd(), "open": open_ones,
    "memory": resource.getrlimit(resource.RLIMIT_AS)[0], "leads": os.getpgid(0) == os.getpid(),
    "secrets": [name for name in os.environ if name.startswith("EVENER_")],
}}))
"""


def routes(names):
    return "".join(f"  - {{path: /{name}, pipeline: {name}}}\n" for name in names)


@pytest.fixture(scope="module")
def served(shared_node):
    started = shared_node(SERVICE + routes(NAMES))
    started.write("flaky", FLAKY).chmod(0o755)
    started.write("finds", FINDS).chmod(0o755)
    return started


def post(started, path, body=b"", kind="text/plain"):
    return started.post(path, body, kind)


def alive(started, name="pids"):
    """Those of the processes that wrote themselves down which still are."""
    noted = {int(pid) for pid in started.notes(name)}
    return [process for process in started.family() if process.pid in noted]


def test_a_value_goes_in_and_the_result_comes_out(served):
    answer = post(served, "/upper", "größer\n")
    assert (answer.status, answer.text, answer.content_type) == (200, "GRößER\n", "text/plain; charset=utf-8")
    answer = post(served, "/same", b"\x00\xff", "application/octet-stream")
    assert (answer.body, answer.content_type) == (b"\x00\xff", "application/octet-stream")
    answer = post(served, "/json", b' {"a": [1]} \n', "application/json")
    assert (answer.json, answer.content_type) == ({"a": [1]}, "application/json")
    # The request itself, behind a GET.
    assert served.get("/json?x=1").json["query"] == {"x": ["1"]}
    assert post(served, "/upper").text == ""


def test_what_is_printed_has_to_be_what_it_should(served):
    answer = post(served, "/json", "no json")
    assert_problem(answer, "result-not-encodable", stage="json", tries=1, saying="printed no JSON")
    answer = post(served, "/raw")
    assert_problem(answer, "result-not-encodable", stage="raw", tries=1, saying="printed no UTF-8")


def test_large_values_both_ways(served):
    body = bytes(range(256)) * (20 << 10)
    assert post(served, "/same", body, "application/octet-stream").body == body
    # One that reads nothing of it.
    assert post(served, "/deaf", body, "application/octet-stream").text == "fine\n"


def test_arguments_out_of_the_value(served):
    def args(**value):
        return post(served, "/args", json.dumps(value), "application/json")

    assert args(text="a b; $(rm *) 'q' *", n=1.5, yes=True).text == "<fixed><a b; $(rm *) 'q' *><n=1.5><true1.5>"
    answer = args(text="-rf", n=1, yes=True)
    assert_problem(answer, "bad-body", stage="args", tries=1, saying="argument 3 of the command: it begins with `-`")
    assert_problem(args(text="x", n=-1, yes=""), "bad-body", stage="args", tries=1, saying="argument 5")
    assert args(text="x", n=-1, yes=False).status == 200
    assert_problem(args(text="\0", n=1, yes=1), "bad-body", stage="args", tries=1, saying="NUL")
    assert_problem(args(text=[1], n=1, yes=1), "filter-failed", stage="args", tries=1, saying="gave a list")
    assert_problem(args(n=1, yes=1), "filter-failed", stage="args", tries=1, saying="gave null")
    assert_problem(args(text="x" * 200_000, n=1, yes=1), "bad-body", stage="args", tries=1, saying="too many")
    answer = post(served, "/args", b"{", "application/json")
    assert_problem(answer, "bad-body", stage="args", tries=1, saying="not JSON")


def test_an_exit_code_is_a_failure(served):
    fields = assert_problem(post(served, "/code"), "command-failed", stage="code", tries=1, saying="exited with code 3")
    assert "cause" not in fields
    assert "last words" not in json.dumps(fields)
    served.wait_log("the command of stage `code` exited with code 3.*\n +first\n +last words")
    answer = post(served, "/killed")
    assert_problem(answer, "command-failed", stage="killed", tries=1, saying="was killed by SIGKILL")


def test_debug_shows_what_it_said(node):
    started = node("debug: true\n" + SERVICE + routes(NAMES))
    answer = post(started, "/code")
    assert assert_problem(answer, "command-failed", stage="code", tries=1)["cause"] == {"said": "first\nlast words"}
    answer = post(started, "/missing")
    said = assert_problem(answer, "command-failed", stage="missing", tries=1)["cause"]["said"]
    assert said.startswith("cannot start `no-such-program-anywhere`: no such program on the PATH")


def test_a_failure_may_be_tried_again(served):
    assert post(served, "/flaky").text == "third\n"
    assert len(served.notes("tries")) == 3


def test_a_program_that_is_not_there(served):
    answer = post(served, "/missing")
    fields = assert_problem(answer, "command-failed", stage="missing", tries=1, saying="could not be started")
    assert "PATH" not in fields["detail"]
    served.wait_log("no such program on the PATH")
    # The stage goes on: it may be there the next time.
    assert served.api("/readyz", token=False).status == 200


def test_check_warns_of_a_program_that_is_not_there(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text(
        "service: s\nstages:\n  a: {command: [no-such-program-anywhere]}\n"
        "  b: {command: [./nor-this], protocol: frames}\n  c: {command: [cat]}\n"
        "  d: {command: [./service.yaml]}\npipelines: {p: [a, b, c, d]}\n"
    )
    done = run_evener("check", file)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "there is no program `no-such-program-anywhere` on the PATH" in said
    assert "there is no program `./nor-this`" in said
    assert "`./service.yaml` is not executable" in said
    assert "`cat`" not in said


def test_what_it_says_is_in_the_log(served):
    assert post(served, "/talks").text == "done\n"
    served.wait_log(r"WARN.*take care")


def test_what_a_process_finds(served):
    found = json.loads(post(served, "/finds").text)
    # The folder that it looks into is one that it has opened itself.
    assert found == {
        "place": "at 0", "cwd": str(served.folder), "open": [0, 1, 2], "memory": 512 << 20, "leads": True,
        "secrets": [],
    }  # fmt: skip


def test_so_many_at_a_time(served):
    connections = [served.begin("POST", "/slow", headers={"Content-Type": "text/plain"}, body=b"x") for _ in range(6)]
    most = 0
    for connection in connections:
        most = max(most, len(alive(served)))
        assert connection.answer("POST").text == "x"
    assert most <= 2
    assert len(served.notes("pids")) == 6


# What hangs, writes without end, and ignores what it is asked.

BAD = """
limits: {body: 1MiB}
stages:
  hangs: {command: [./hangs], timeout: 300ms, grace: 30s}
  ignores: {command: [./ignores], timeout: 300ms, grace: 300ms}
  endless: {command: [sh, -c, 'echo $$$$ >> pids; yes']}
  bounded: {command: [cat], max_output: 3KiB}
  mutters: {command: [sh, -c, 'echo $$$$ >> pids; yes >&2'], timeout: 500ms, grace: 0s}
  told: {command: [sh, -c, 'echo $$$$ >> pids; sleep 0.7; echo end >> ended'], timeout: 30s}
  late: {command: [sh, -c, 'echo $$$$ >> pids; sleep 60'], timeout: 1s, grace: 200ms}
  kills: {command: [./hangs], timeout: 60s, on_cancel: kill}
  stubborn: {command: [./ignores], timeout: 60s, grace: 300ms, on_cancel: kill}
  leaves: {command: [sh, -c, 'sleep 60 & echo $! >> pids; echo gone']}
routes:
"""
BAD_NAMES = [
    "hangs", "ignores", "endless", "bounded", "mutters", "told", "late", "kills", "stubborn", "leaves",
]  # fmt: skip

HANGS = """\
#!/bin/sh
trap 'echo told >> told; exit 0' TERM
echo $$ >> pids
while :; do sleep 0.05; done
"""

IGNORES = f"""\
#!{sys.executable}
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "60"])
with open("pids", "a") as file:
    file.write(f"{{os.getpid()}}\\n{{child.pid}}\\n")
time.sleep(60)
"""


def start(node, more=""):
    started = node(more + BAD + routes(BAD_NAMES))
    started.write("hangs", HANGS).chmod(0o755)
    started.write("ignores", IGNORES).chmod(0o755)
    return started


@pytest.fixture
def trouble(node):
    return start(node)


def test_one_that_hangs_is_told(trouble):
    began = time.monotonic()
    assert_problem(post(trouble, "/hangs"), "stage-timeout", stage="hangs", tries=1)
    assert time.monotonic() - began < 5
    trouble.wait_notes("told")
    until(lambda: not alive(trouble), "its end")
    # Its place is free again.
    assert_problem(post(trouble, "/hangs"), "stage-timeout", stage="hangs", tries=1)


def test_one_that_ignores_what_it_is_told_is_killed_with_its_children(trouble):
    assert_problem(post(trouble, "/ignores"), "stage-timeout", stage="ignores", tries=1)
    trouble.wait_notes("pids", 2)
    until(lambda: not alive(trouble), "the end of both")
    assert_problem(post(trouble, "/ignores"), "stage-timeout", stage="ignores", tries=1)


def test_one_that_prints_without_end_is_killed(trouble):
    answer = post(trouble, "/endless")
    assert_problem(answer, "result-too-large", stage="endless", tries=1, saying=f"more than {1 << 20} bytes")
    until(lambda: not alive(trouble), "its end")
    assert post(trouble, "/bounded", "x" * 3072).text == "x" * 3072
    answer = post(trouble, "/bounded", "x" * 3073)
    assert_problem(answer, "result-too-large", stage="bounded", tries=1, saying="more than 3072 bytes")


def test_one_that_mutters_without_end_blocks_nobody(trouble):
    muttering = trouble.begin("POST", "/mutters", headers={"Content-Type": "text/plain"}, body=b"x")
    trouble.wait_notes("pids")
    assert post(trouble, "/bounded", "x").text == "x"
    assert_problem(muttering.answer("POST"), "stage-timeout", stage="mutters", tries=1)
    until(lambda: not alive(trouble), "its end")


def test_what_it_left_in_its_group_ends_with_it(trouble):
    assert post(trouble, "/leaves").text == "gone\n"
    assert len(trouble.notes("pids")) == 1
    until(lambda: not alive(trouble), "the end of what was left")


def begin_and_leave(started, path, notes=1):
    connection = started.begin("POST", path, headers={"Content-Type": "text/plain"}, body=b"x")
    started.wait_notes("pids", notes)
    connection.close()


def test_a_client_that_goes_away_kills_nothing(trouble):
    begin_and_leave(trouble, "/told")
    trouble.wait_notes("ended")


def test_one_that_nobody_waits_for_ends_at_its_timeout(trouble):
    begin_and_leave(trouble, "/late")
    assert alive(trouble)
    until(lambda: not alive(trouble), "its end at the timeout", within=5)


def test_a_client_that_goes_away_kills_if_the_stage_says_so(trouble):
    begin_and_leave(trouble, "/kills")
    trouble.wait_notes("told")
    begin_and_leave(trouble, "/stubborn", 3)
    until(lambda: not alive(trouble), "the end of all", within=5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_that_ends_leaves_no_process(node, number):
    started = start(node, "drain: 100ms\n")
    for path in ("/stubborn", "/told", "/kills"):
        started.begin("POST", path, headers={"Content-Type": "text/plain"}, body=b"x")
    started.wait_notes("pids", 4)
    assert len(alive(started)) == 4
    started.send(number)
    started.wait_exit()
    started.assert_nothing_survives()


def test_a_warden_that_is_killed_takes_a_job_with_it_and_no_more(node):
    """Nobody saw how the process ended: the job is lost, and may be tried again."""
    started = node(
        """
        stages: {wait: {command: [sh, -c, 'echo $$$$ >> pids; while ! test -e go; do sleep 0.02; done; echo went']}}
        routes: [{path: /, pipeline: wait}]
        """
    )
    waiting = started.begin("POST", "/", headers={"Content-Type": "text/plain"}, body=b"x")
    started.wait_notes("pids")
    started.warden.kill()
    started.wait_notes("pids", 2)
    started.open("go")
    assert waiting.answer("POST").text == "went\n"


def test_whatever_happens_each_gets_its_answer_and_nothing_is_left(node):
    """Many at once, which hang, print too much or are left by their clients: in the end all places are free."""
    chance = random.Random(7)
    started = start(node)
    expected = {
        "/bounded": "x", "/leaves": "gone\n", "/endless": "result-too-large", "/hangs": "stage-timeout",
        "/ignores": "stage-timeout", "/late": "stage-timeout",
    }  # fmt: skip

    def round_trips(count):
        begun = []
        for _ in range(count):
            path = chance.choice(list(expected))
            connection = started.begin("POST", path, headers={"Content-Type": "text/plain"}, body=b"x")
            begun.append((path, connection))
        chance.shuffle(begun)
        for path, connection in begun:
            if chance.random() < 0.6:
                answer = connection.answer("POST")
                found = answer.text if answer.status == 200 else answer.json["code"]
                assert found == expected[path], path
            connection.close()

    round_trips(10)
    until(lambda: not alive(started), "the end of all processes")
    before = len(started.itself.descriptors)
    round_trips(40)
    until(lambda: not alive(started), "the end of all processes", within=30)
    for path in ("/bounded", "/leaves"):
        assert post(started, path, "x").text == expected[path]
    until(lambda: len(started.itself.descriptors) <= before + 2, "all pipes to be closed")
    until(lambda: started.metric("payload_bytes") == 0, "all bytes to be given back")
    assert len(started.warden.descriptors) < 20
