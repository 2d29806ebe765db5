"""Another service file takes over: on SIGHUP, and with `--watch` as soon as it is written."""

import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from harness import assert_problem, binary, run_evener, until
from harness.node import environment

APP = """
import os
import time

def version(request):
    return "v1"

def versions(requests):
    return ["v1" for _ in requests]

def name(request):
    return os.environ.get("NAME", "nobody")

def first(request):
    open("began", "a").write("first\\n")
    while not os.path.exists("go"):
        time.sleep(0.005)
    return "first"

def second(value):
    return value + " and second"

def waits(request):
    yield "one "
    while not os.path.exists("go"):
        time.sleep(0.005)
    yield "two"

def fires(value):
    open(value, "a").write("fired\\n")
"""

VERSION = """
stages: {version: {python: "app:version", workers: WORKERS}}
routes: [{path: /, pipeline: version}]
"""


def service(text):
    return f'service: tested\nlisten: {{http: "127.0.0.1:0"}}\n{text}'


def taken_over(started):
    return started.log.count("the service file has taken over")


def reload(started, text=None):
    """Write the service file anew, and let it take over."""
    before = taken_over(started)
    if text is not None:
        started.write("service.yaml", service(text))
    started.send(signal.SIGHUP)
    until(lambda: taken_over(started) > before, "the service file has taken over")


def test_no_request_is_dropped_while_files_take_over(node):
    text = """
stages:
  name: {python: "app:name", workers: WORKERS, env: {NAME: "number NUMBER"}}
  shout: {jq: ". + MARK"}
pipelines: {loud: [name, shout]}
routes: [{path: /, pipeline: loud}]
"""

    def file(number):
        return (
            text.replace("WORKERS", str(number % 3 + 1))
            .replace("NUMBER", str(number))
            .replace("MARK", f'\\"{"!" * number}\\"')
        )

    started = node(file(0), app=APP)
    stop, answers = threading.Event(), [[], [], []]

    def ask(got):
        with started.connect(patience=30.0) as connection:
            while not stop.is_set():
                got.append(connection.request("GET", "/"))

    threads = [threading.Thread(target=ask, args=(got,)) for got in answers]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 5):
            reload(started, file(number))
            # Everybody gets what the new workers and the new program make.
            want = f"number {number}{'!' * number}"
            until(lambda want=want: all(got and got[-1].json == want for got in answers), f"everybody gets {want}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for got in answers:
        assert {answer.status for answer in got} == {200}
        # What is new is never followed by what is older: a request keeps to the plan that it came in under.
        marks = [answer.text.count("!") for answer in got]
        assert marks == sorted(marks)


def test_a_bad_file_is_refused_with_its_diagnostics(node):
    started = node(VERSION.replace("WORKERS", "1"), app=APP)
    worker = started.worker()
    started.write("service.yaml", service('stages: {version: {python: "app:version", wrokers: 2}}\n'))
    started.send(signal.SIGHUP)
    started.wait_log(r"the service file is refused, and the one before runs on")
    started.wait_log(r"service.yaml:3:\d+")
    started.wait_log("wrokers")
    assert started.get("/").text == "v1"
    assert started.worker() == worker
    assert taken_over(started) == 0
    # And the next good one is taken.
    reload(started, VERSION.replace("WORKERS", "2"))
    until(lambda: len(started.workers()) == 2, "two workers")


def test_a_file_that_is_gone_is_refused(node):
    started = node(VERSION.replace("WORKERS", "1"), app=APP)
    started.file.unlink()
    started.send(signal.SIGHUP)
    started.wait_log(r"the service file is refused, and the one before runs on")
    assert started.get("/").text == "v1"


def test_a_stream_goes_on_while_another_file_takes_over(node):
    text = """
stages:
  waits: {python: "app:waits", env: {NUMBER: "0"}}
routes: [{path: PATH, pipeline: waits}]
"""
    started = node(text.replace("PATH", "/old"), app=APP)
    old = started.worker()
    connection = started.begin("GET", "/old")
    until(connection.has_something, "the stream has begun")
    reload(started, text.replace("PATH", "/new").replace('"0"', '"1"'))
    until(lambda: any(worker != old for worker in started.workers()), "a new worker")
    assert_problem(started.get("/old"), "no-route")
    other = started.begin("GET", "/new")
    started.open("go")
    assert connection.answer().text == "one two"
    assert other.answer().text == "one two"
    until(lambda: old not in started.workers(), "the old worker is gone")


def test_what_is_on_its_way_goes_on_by_the_plan_it_came_in_under(node):
    text = """
stages:
  first: {python: "app:first"}
  second: {python: "app:second"}
pipelines: {both: [first, second]}
routes: [{path: /, pipeline: both}]
"""
    started = node(text, app=APP)
    connection = started.begin("GET", "/")
    started.wait_notes("began")
    reload(started, 'stages: {first: {python: "app:first"}}\nroutes: [{path: /, pipeline: first}]\n')
    started.open("go")
    # Its second stage is not in the file any more, and yet does its job.
    assert connection.answer().text == "first and second"
    assert started.get("/").text == "first"
    until(lambda: not started.workers("app:second"), "the workers of the stage that is gone are gone")
    assert started.readiness() == {"state": "ready", "stages": {"first": "ready"}}


def test_stages_come_and_change_their_kind(node):
    text = "stages: {version: STAGE}\nroutes: [{path: /, pipeline: version}]\n"
    started = node(text.replace("STAGE", '{python: "app:version"}'), app=APP)
    kinds = {
        "{jq: '\"jq\"'}": '"jq"',
        '{python: "app:version", threads: 4}': "v1",
        "{command: [echo, -n, command]}": "command",
        '{python: "app:versions", batch: {max: 4}}': "v1",
        '{python: "app:version", workers: {min: 1, max: 3}}': "v1",
    }
    for stage, answer in kinds.items():
        reload(started, text.replace("STAGE", stage))
        got = started.get("/")
        assert (got.status, got.text) == (200, answer), stage
    until(lambda: len(started.workers()) == 1, "one worker")


@pytest.mark.parametrize("number", [4, 1])
def test_a_pool_gets_another_size(node, number):
    started = node(VERSION.replace("WORKERS", "2"), app=APP)
    before = started.workers()
    reload(started, VERSION.replace("WORKERS", str(number)))
    until(lambda: len(started.workers()) == number, f"{number} workers")
    # Those that stay are the same.
    assert len(set(before) & set(started.workers())) == min(2, number)
    assert started.get("/").text == "v1"
    until(lambda: started.metric("workers_idle", stage="version") == number, "all are ready")


def test_a_pool_that_grows_again_waits_for_nobody(node):
    """A worker that was given up and still has a job is not counted among those that are wanted."""
    text = 'stages: {first: {python: "app:first", workers: WORKERS}}\nroutes: [{path: /, pipeline: first}]\n'
    started = node(text.replace("WORKERS", "2"), app=APP)
    connections = [started.begin("GET", "/") for _ in range(2)]
    started.wait_notes("began", 2)
    before = set(started.workers())
    reload(started, text.replace("WORKERS", "1"))
    reload(started, text.replace("WORKERS", "2"))
    until(lambda: len(started.workers()) == 3, "another worker")
    started.open("go")
    assert {connection.answer().text for connection in connections} == {"first"}
    until(lambda: len(started.workers()) == 2, "two workers")
    assert len(before & set(started.workers())) == 1


def test_changed_code_is_taken_up_one_worker_at_a_time(node):
    # Python may keep what it has compiled, and tells whether that is stale by the second and the size.
    env = {"PYTHONDONTWRITEBYTECODE": ""}
    started = node(VERSION.replace("WORKERS", "3"), app=APP, arguments=["--watch"], env=env)
    before = started.workers()
    seen = []

    def all_new():
        seen.append(len(started.workers()))
        assert started.get("/").status == 200
        return not set(before) & set(started.workers()) and len(started.workers()) == 3

    started.write("app.py", APP.replace('"v1"', '"v2"'))
    until(all_new, "new workers")
    assert min(seen) >= 3
    assert max(seen) <= 4
    assert {started.get("/").text for _ in range(20)} == {"v2"}
    # That was all: nobody sees a change where there is none.
    assert taken_over(started) == 1


def test_code_that_does_not_load_leaves_the_old_workers(node):
    started = node(VERSION.replace("WORKERS", "2"), app=APP, arguments=["--watch"])
    before = set(started.workers())
    started.write("app.py", "def version(:\n")
    started.wait_log("the old workers go on")
    until(lambda: set(started.workers()) == before, "only the old workers")
    assert {started.get("/").text for _ in range(20)} == {"v1"}
    assert started.readiness()["state"] == "ready"
    started.write("app.py", APP.replace('"v1"', '"v3"'))
    until(lambda: started.get("/").text == "v3" and not before & set(started.workers()), "the mended code")


def test_a_module_that_was_missing_is_seen_when_it_is_there(node):
    started = node(VERSION.replace("WORKERS", "1"), app=APP, arguments=["--watch"])
    started.write("app.py", APP.replace('"v1"', "helper.VERSION").replace("import time", "import time, helper"))
    started.wait_log("the old workers go on")
    assert started.get("/").text == "v1"
    started.write("helper.py", 'VERSION = "v2"')
    until(lambda: started.get("/").text == "v2", "the new code")
    started.wait_log("all workers of the stage are new")


def test_a_request_of_the_file_before_comes_through_a_stage_with_keys_that_is_gone(node):
    text = """
stages:
  first: {python: "app:first"}
  second: {python: "app:second", affinity: length}
pipelines: {both: [first, second]}
routes: [{path: /, pipeline: both}]
"""
    started = node(text, app=APP)
    connection = started.begin("GET", "/")
    started.wait_notes("began")
    reload(started, 'stages: {first: {python: "app:first"}}\nroutes: [{path: /, pipeline: first}]\n')
    started.open("go")
    assert connection.answer().text == "first and second"


def test_watching_sees_the_file_and_what_it_includes(node):
    started = node(VERSION.replace("WORKERS", "1"), app=APP, arguments=["--watch"])
    started.write("more.yaml", "limits: {queue: 10}\n")
    started.write("service.yaml", service("include: [more.yaml, others.yaml]\n" + VERSION.replace("WORKERS", "2")))
    started.wait_log("others.yaml")
    # A file that was not there when the node started is seen as well.
    started.write("others.yaml", "drain: 5s\n")
    until(lambda: taken_over(started) == 1, "the file has taken over")
    until(lambda: len(started.workers()) == 2, "two workers")
    started.write("more.yaml", "limits: {queue: 20}\n")
    until(lambda: taken_over(started) == 2, "the included file has taken over")
    assert started.get("/").text == "v1"


def test_arguments_stay_over_the_file(node):
    text = 'stages: {name: {python: "app:name", env: {NAME: "the file"}}}\nroutes: [{path: PATH, pipeline: name}]\n'
    started = node(text.replace("PATH", "/a"), app=APP, arguments=["--set", "stages.name.env.NAME=an argument"])
    assert started.get("/a").text == "an argument"
    reload(started, text.replace("PATH", "/b"))
    assert started.get("/b").text == "an argument"


def test_triggers_are_replaced_and_nothing_starts_twice(node):
    text = """
stages: {fires: {python: "app:fires"}}
triggers:
  - {on: startup, pipeline: fires, input: started}
  - {every: 50ms, pipeline: fires, input: NAME}
"""
    started = node(text.replace("NAME", "old"), app=APP)
    started.wait_notes("old")
    reload(started, text.replace("NAME", "new"))
    started.wait_notes("new")
    old = len(started.notes("old"))
    # One may have been on its way.
    started.wait_notes("new", count=5)
    assert len(started.notes("old")) <= old + 1
    assert len(started.notes("started")) == 1


def test_what_needs_a_start_is_named(node):
    started = node(VERSION.replace("WORKERS", "1"), app=APP)
    reload(started, VERSION.replace("WORKERS", "1") + "limits: {connections: 17}\ndebug: true\n")
    started.wait_log("`limits` has changed, which counts from the next start on")
    started.wait_log("`debug` has changed, which counts from the next start on")
    assert "`listen` has changed" not in started.log
    # As long as the file says what does not hold, that is said; and it is about what runs, not about the file before.
    started.write("service.yaml", service(VERSION.replace("WORKERS", "2") + "limits: {connections: 17}\n"))
    before = started.log.count("`limits` has changed")
    reload(started)
    until(lambda: started.log.count("`limits` has changed") == before + 1, "the warning again")
    reload(started, VERSION.replace("WORKERS", "2"))
    assert started.log.count("has changed, which counts") == before + 2


def test_a_node_without_a_file_stops_on_sighup(tmp_path):
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        command = [binary(), "up", "--workers", "1"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(runtime), stdout=subprocess.PIPE)
        with process:
            assert process.stdout.readline().startswith(b"listening api ")
            process.send_signal(signal.SIGHUP)
            assert process.wait(timeout=20) == 0


def test_watching_wants_a_file():
    done = run_evener("up", "--watch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--watch" in done.stderr


# Makes the terminal on standard input its own, and becomes the node.
IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_node_ends_with_its_terminal(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "service.yaml").write_text(service(VERSION.replace("WORKERS", "1")))
    master, terminal = pty.openpty()
    command = [sys.executable, "-c", IN_A_TERMINAL, binary(), "up", "service.yaml"]
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        log = tmp_path / "log"
        with log.open("w") as written:
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment(runtime),
                stdin=terminal,
                stdout=subprocess.PIPE,
                stderr=written,
                start_new_session=True,
            )
        with process:
            os.close(terminal)
            while process.stdout.readline() != b"ready\n":
                assert process.poll() is None, log.read_text()
            # Asked by somebody else, while the terminal is there.
            process.send_signal(signal.SIGHUP)
            until(lambda: "nothing has changed" in log.read_text(), "the file is read")
            os.close(master)
            assert process.wait(timeout=20) == 0, log.read_text()


def test_a_file_that_is_refused_late_leaves_nothing_behind(node):
    """That the node has no such Rust function shows only when the parts of the file are made."""
    text = "stages: {version: {jq: '\"old\"'}STAGES}\nroutes: [{path: /, pipeline: version}MORE]\n"
    started = node(text.replace("STAGES", "").replace("MORE", ""))
    bad = ", a: {rust: nope}, b: {jq: .}", ", {path: /a, pipeline: a}, {path: /b, pipeline: b}"
    started.write("service.yaml", service(text.replace("STAGES", bad[0]).replace("MORE", bad[1])))
    started.send(signal.SIGHUP)
    started.wait_log("is the Rust function `nope`")
    good = ", c: {jq: '\"c\"'}, d: {jq: '\"d\"'}", ", {path: /c, pipeline: c}, {path: /d, pipeline: d}"
    reload(started, text.replace("STAGES", good[0]).replace("MORE", good[1]))
    assert [started.get(path).json for path in ("/", "/c", "/d")] == ["old", "c", "d"]


def test_another_file_does_not_end_a_rollout(node):
    app = APP.replace(
        "import time", "import time\nwhile not os.path.exists('go' + os.environ['NAME']):\n    time.sleep(0.005)"
    )
    text = """
stages: {name: {python: "app:name", workers: 2, env: {NAME: "NUMBER"}}}
routes: [{path: PATH, pipeline: name}]
"""

    def file(number, path="/"):
        return text.replace("NUMBER", str(number)).replace("PATH", path)

    started = node(file(1), app=app, wait="listening")
    started.open("go1")
    started.wait_ready()
    before = started.workers()
    reload(started, file(2))
    until(lambda: len(started.workers()) == 3, "a worker of the new kind starts")
    # Meanwhile something else changes, and the worker has not come up.
    reload(started, file(2, "/other"))
    started.open("go2")
    until(lambda: not set(before) & set(started.workers()), "the old ones are gone")
    started.wait_log("all workers of the stage are new")
    assert {started.get("/other").text for _ in range(10)} == {"2"}
    until(lambda: len(started.workers()) == 2, "two workers")


def test_a_request_whose_body_is_still_coming_keeps_to_its_file(node):
    text = """
stages: {STAGE: {python: "app:echo"}}
routes: [{path: /, methods: [POST], pipeline: STAGE, timeout: 15s}]
"""
    started = node(text.replace("STAGE", "old"), app="def echo(value):\n    return value\n")
    old = started.worker()
    with started.connect() as connection:
        connection.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n12345")
        # The next on this connection would wait; another one shows that the first has been read that far.
        assert started.post("/", "x", "text/plain").text == "x"
        reload(started, text.replace("STAGE", "new"))
        assert started.post("/", "y", "text/plain").text == "y"
        assert old.is_alive
        connection.send(b"67890")
        assert connection.answer("POST").text == "1234567890"
    until(lambda: old not in started.workers(), "the old worker is gone")


def test_a_command_that_was_replaced_does_not_come_back(node):
    text = """
stages:
  say: {command: [sh, -c, "touch began; while [ ! -e go ]; do sleep 0.01; done; echo -n WORD"], workers: 1, retries: 3}
routes: [{path: /, pipeline: say}]
"""
    started = node(text.replace("WORD", "old"))
    connection = started.begin("GET", "/")
    until(lambda: (started.folder / "began").exists(), "the command runs")
    reload(started, text.replace("WORD", "new"))
    started.warden.send(signal.SIGKILL)
    started.open("go")
    assert connection.answer().text == "new"
    assert {started.get("/").text for _ in range(8)} == {"new"}


def test_a_request_of_a_trigger_counts_across_files(node):
    text = """
stages: {first: {python: "app:first", workers: 2}}
triggers: [{every: 50ms, pipeline: first, name: it, timeout: TIMEOUT}]
"""
    started = node(text.replace("TIMEOUT", "30s"), app=APP)
    started.wait_notes("began")
    reload(started, text.replace("TIMEOUT", "31s"))
    started.wait_log("did not fire", within=5)
    before = started.log.count("did not fire")
    until(lambda: started.log.count("did not fire") > before + 3, "it is skipped again and again")
    assert len(started.notes("began")) == 1
    started.open("go")
    started.wait_notes("began", 2)


def test_changed_code_waits_for_a_file_that_is_refused(node):
    started = node(VERSION.replace("WORKERS", "1"), app=APP, arguments=["--watch"])
    started.write("service.yaml", "service: [")
    started.wait_log("the service file is refused")
    started.write("app.py", APP.replace('"v1"', '"v2"'))
    # It is looked at more often than that while this waits, and refused no second time.
    started.write("service.yaml", service("nonsense: 1\n"))
    started.wait_log("nonsense")
    assert started.log.count("the service file is refused") == 2
    started.write("service.yaml", service(VERSION.replace("WORKERS", "1")))
    until(lambda: started.get("/").text == "v2", "the code that has changed meanwhile")


def test_code_that_changes_while_a_worker_starts_is_seen(node):
    app = APP.replace(
        "import time",
        "import time\nopen('loading', 'a').write('x\\n')\nwhile not os.path.exists('go'):\n    time.sleep(0.005)",
    )
    started = node(VERSION.replace("WORKERS", "1"), app=app, arguments=["--watch"], wait="listening")
    started.wait_notes("loading")
    started.write("app.py", app.replace('"v1"', '"v2"'))
    started.open("go")
    started.wait_ready()
    until(lambda: started.get("/").text == "v2", "the code that was written meanwhile")


def test_a_pool_that_sizes_itself_keeps_to_its_new_bounds(node):
    text = VERSION.replace("WORKERS", "{min: MIN, max: MAX, idle: 200ms}")

    def bounds(least, most):
        return text.replace("MIN", str(least)).replace("MAX", str(most))

    started = node(bounds(3, 4), app=APP)
    assert len(started.workers()) == 3
    reload(started, bounds(1, 2))
    until(lambda: len(started.workers()) == 1, "it shrinks to its least")
    reload(started, bounds(2, 4))
    until(lambda: len(started.workers()) == 2, "it grows to its least")
    reload(started, VERSION.replace("WORKERS", "1"))
    until(lambda: len(started.workers()) == 1, "one worker")
    reload(started, bounds(2, 3))
    until(lambda: len(started.workers()) == 2, "two workers")
    assert started.get("/").text == "v1"


def test_a_stage_that_comes_back_is_as_the_new_file_says(node):
    """Its workers of before are still up then, for a request that may come to them."""
    first = '  first: {python: "app:first"}\n'
    name = '  name: {python: "app:name", env: {NAME: "NUMBER"}}\n'
    routes = "routes:\n  - {path: /first, pipeline: first}\n"
    named = "  - {path: /name, pipeline: name}\n"
    started = node("stages:\n" + first + name.replace("NUMBER", "1") + routes + named, app=APP)
    connection = started.begin("GET", "/first")
    started.wait_notes("began")
    old = started.worker("app:name")
    reload(started, "stages:\n" + first + routes)
    assert old.is_alive
    reload(started, "stages:\n" + first + name.replace("NUMBER", "2") + routes + named)
    until(lambda: started.get("/name").text == "2" and old not in started.workers(), "the worker of the new file")
    started.open("go")
    assert connection.answer().text == "first"
