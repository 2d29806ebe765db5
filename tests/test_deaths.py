"""A worker that dies loses its place, not its job."""

import json
import signal
import time

import pytest

from harness import Process, assert_problem, until

SERVICE = """
stages:
  die: {python: "app:die", workers: 2, retries: 2}
  never: {python: "app:die", retries: 0}
  good: {python: "app:good"}
  hoard: {python: "app:hoard", memory: 300MiB, retries: 1}
  limited: {python: "app:limited", max_jobs_per_worker: 3, workers: 1}
routes:
  - {path: /die, pipeline: die, input: body, decode: json}
  - {path: /never, pipeline: never, input: body, decode: json}
  - {path: /good, pipeline: good}
  - {path: /hoard, pipeline: hoard}
  - {path: /limited, pipeline: limited}
"""

APP = """
    import ctypes, os, signal, socket, sys, threading, time
    import marks

    def die(how, ctx):
        marks.note("ran", f"{os.getpid()} {ctx.tries}")
        if how["times"] >= ctx.tries:
            exec(how["code"])
        return [ctx.tries, os.getpid()]

    def good(request):
        return os.getpid()

    def hoard(request):
        return len(bytearray(int(request.query["bytes"])))

    def limited(request):
        return os.getpid()
"""


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


@pytest.fixture
def started(node):
    return node(SERVICE, app=APP)


def how(code, times=99):
    """What a worker shall do in its first so many tries."""
    return json.dumps({"code": code, "times": times})


def wait_for_workers(started):
    """Wait until every place in every pool is taken again."""
    wanted = {"die": 2, "never": 1, "good": 1, "hoard": 1, "limited": 1}

    def full():
        metrics = started.metrics()
        return all(metrics[f'evener_workers_idle{{stage="{stage}"}}'] == count for stage, count in wanted.items())

    until(full, "all workers are back")


DEATHS = {
    "an exit": ("os._exit(3)", "exited with code 3"),
    "a quiet exit": ("os._exit(0)", "exited with code 0"),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM"),
    "a crash": ("ctypes.string_at(0)", "killed by SIGSEGV"),
    "an abort": ("os.abort()", "killed by SIGABRT"),
}


@pytest.mark.parametrize(("code", "_"), DEATHS.values(), ids=DEATHS.keys())
def test_a_job_outlives_its_worker(started, code, _):
    began = time.monotonic()
    answer = started.post("/die", how(code, times=1))
    assert answer.status == 200, answer
    assert time.monotonic() - began < 2
    (first, one), (second, two) = [line.split() for line in started.notes("ran")]
    assert first != second
    assert (one, two) == ("1", "2")
    assert answer.json == [2, int(second)]
    wait_for_workers(started)


@pytest.mark.parametrize(("code", "saying"), DEATHS.values(), ids=DEATHS.keys())
def test_a_job_that_kills_every_worker_is_given_up(started, code, saying):
    answer = started.post("/die", how(code))
    fields = assert_problem(answer, "worker-died", stage="die", tries=3, saying=saying)
    # Clients get the short of it.
    assert "cause" not in fields
    # Exactly so many executions as the stage allows.
    assert [line.split()[1] for line in started.notes("ran")] == ["1", "2", "3"]
    assert started.get("/good").status == 200
    wait_for_workers(started)


def test_without_retries_the_first_death_is_the_answer(started):
    answer = started.post("/never", how("os._exit(7)"))
    assert_problem(answer, "worker-died", stage="never", tries=1, saying="exited with code 7")
    assert len(started.notes("ran")) == 1


def test_with_debug_clients_get_the_certificate(node):
    started = node("debug: true\n" + SERVICE, app=APP)
    answer = started.post("/never", how("os._exit(7)"))
    fields = assert_problem(answer, "worker-died", stage="never", tries=1)
    assert "exited with code 7, after" in fields["cause"]["died"]
    assert "with a peak of" in fields["cause"]["died"]


def test_poison_among_good_jobs_hurts_nobody_else(node):
    started = node(
        """
        stages: {work: {python: "app:work", workers: 2, retries: 2}}
        routes: [{path: /work, pipeline: work}]
        """,
        app="""
        import os
        import marks

        def work(request, ctx):
            if "poison" in request.query:
                marks.note("poison")
                os._exit(3)
            return request.query["n"]
        """,
    )
    poison = [started.begin("GET", "/work?poison=1") for _ in range(2)]
    with started.connect() as connection:
        for number in range(300):
            assert connection.get(f"/work?n={number}").text == str(number)
    for one in poison:
        assert_problem(one.answer(), "worker-died", stage="work", tries=3, saying="exited with code 3")
    assert len(started.notes("poison")) == 6


def test_a_worker_killed_while_it_is_idle_is_replaced(started):
    before = started.worker("app:good")
    before.kill()
    until(lambda: not before.is_alive, "its death")
    assert started.get("/good").json != before.pid
    wait_for_workers(started)
    assert started.worker("app:good").pid != before.pid
    started.wait_log("killed by SIGKILL")


def test_a_request_while_no_worker_is_up_waits_for_one(started):
    for _ in range(5):
        started.worker("app:good").kill()
        assert started.get("/good").status == 200


FORKS = {
    "a child that holds the socket": "os.fork() or time.sleep(60)",
    "a grandchild in a session of its own": "os.fork() or (os.setsid(), os.fork() or time.sleep(60), time.sleep(60))",
    "a child with a copy of the socket": "os.dup2(3, 33), os.fork() or time.sleep(60)",
}


@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS.keys())
def test_a_forked_child_does_not_delay_the_retry(started, fork):
    began = time.monotonic()
    answer = started.post("/die", how(f"{fork}; os._exit(3)", times=1))
    assert answer.json[0] == 2
    assert time.monotonic() - began < 2


GARBAGE = {
    "zeros": "os.write(3, bytes(40))",
    "text": "os.write(3, b'hello, world! ' * 10)",
    "a length over the limit": "os.write(3, b'\\xff' * 40)",
    "a second READY": "os.write(3, bytes([0] * 4 + [1] + [0] * 35))",
    "an outcome of another job": "os.write(3, bytes([0] * 4 + [7, 0, 1, 1] + [9] * 8 + [1, 0, 0, 0] + [0] * 20))",
    "half a header": "os.write(3, bytes(7)); os.close(3)",
    "the socket closed": "os.close(3)",
    "the socket shut": "socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)",
}


@pytest.mark.parametrize("code", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_worker_that_breaks_the_protocol_is_replaced_and_its_job_tried_again(started, code):
    answer = started.post("/die", how(f"{code}; time.sleep(60)", times=1))
    assert answer.status == 200, answer
    assert answer.json[0] == 2
    first = int(started.notes("ran")[0].split()[0])
    until(lambda: Process.at(first) is None, "the end of the worker that broke the protocol", within=3)
    wait_for_workers(started)


def test_a_worker_that_always_breaks_the_protocol(started):
    answer = started.post("/never", how("os.write(3, bytes(40)); time.sleep(60)"))
    assert_problem(answer, "worker-died", stage="never", tries=1, saying="broke the worker protocol")


def test_memory_up_to_the_limit(served):
    assert served.get("/hoard?bytes=50000000").json == 50_000_000


def test_memory_over_the_limit_is_a_death(started):
    before = started.worker("app:hoard")
    answer = started.get("/hoard?bytes=400000000")
    assert_problem(answer, "worker-died", stage="hoard", tries=2, saying="memory")
    until(lambda: not before.is_alive, "the end of the worker")
    started.wait_log("out of memory")
    # Neighbours are unaffected, and the worker is replaced.
    assert started.get("/good").status == 200
    assert started.get("/hoard?bytes=1000").json == 1000
    assert started.metric("workers_lost_total", stage="good") == 0


def test_the_certificate_of_a_worker_without_memory(node):
    started = node("debug: true\n" + SERVICE, app=APP)
    fields = started.get("/hoard?bytes=400000000").json
    assert "out of memory" in fields["cause"]["died"]


def test_a_memory_error_that_the_function_handles_is_its_own_business(node):
    started = node(
        """
        stages: {work: {python: "app:work", memory: 300MiB}}
        routes: [{path: /work, pipeline: work}]
        """,
        app="""
        def work(request):
            try:
                return len(bytearray(400_000_000))
            except MemoryError:
                return "not that much"
        """,
    )
    before = started.worker()
    assert started.get("/work").text == "not that much"
    assert started.worker() == before


def test_after_so_many_jobs_a_worker_is_replaced(started):
    with started.connect() as connection:
        pids = [connection.get("/limited").json for _ in range(10)]
    # Three jobs each, and no job lost.
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3, 1]
    until(lambda: len(started.workers("app:limited")) == 1, "the old ones are gone")
    assert started.worker("app:limited").pid == pids[-1]
    # It was no death.
    assert started.metric("workers_lost_total", stage="limited") == 0


def test_deaths_are_counted(started):
    assert started.post("/die", how("os._exit(3)")).status == 502
    metrics = started.metrics()
    counts = {name: metrics[f'evener_{name}_total{{stage="die"}}'] for name in
              ("jobs_started", "jobs_done", "jobs_failed", "jobs_retried", "workers_lost")}  # fmt: skip
    assert counts == {
        "jobs_started": 3, "jobs_done": 0, "jobs_failed": 1, "jobs_retried": 2, "workers_lost": 3,
    }  # fmt: skip
    assert metrics['evener_requests_total{result="worker-died"}'] == 1


def test_a_worker_that_somebody_else_ends(started):
    connection = started.begin("POST", "/die", body=how("time.sleep(60)", times=1).encode())
    pid = int(started.wait_notes("ran")[0].split()[0])
    Process.at(pid).send(signal.SIGTERM)
    assert connection.answer().json[0] == 2


LEAVERS = {
    "the warden's group": "os.setpgid(0, os.getpgid(os.getppid()))",
    "a group of a sibling": "os.setpgid(0, os.getpgid(int(open('sibling').read())))",
}


@pytest.mark.parametrize("where", LEAVERS)
def test_a_worker_that_leaves_its_group_is_stopped_all_the_same(node, where):
    """It is as if it had stayed: its place is free again, and nobody else is hurt."""
    started = node(
        """
stages:
  stray: {python: "app:stray", timeout: 300ms, grace: 100ms, retries: 0}
  other: {python: "app:other"}
routes:
  - {path: /stray, pipeline: stray, decode: text}
  - {path: /other, pipeline: other, decode: text}
""",
        app=f"""
import os, time

def leave():
    {LEAVERS[where]}

def stray(text):
    if text == "stay":
        return "here"
    leave()
    open("stray", "w").write(str(os.getpid()))
    time.sleep(3600)

def other(text):
    open("sibling", "w").write(str(os.getpid()))
    return str(os.getpid())
""",
    )
    sibling = started.post("/other", "x", "text/plain").text
    warden = started.warden
    assert_problem(started.post("/stray", "go", "text/plain"), "stage-timeout", stage="stray", tries=1)
    stray = int((started.folder / "stray").read_text())
    until(lambda: Process.at(stray) is None, "the worker's end")
    assert started.post("/stray", "stay", "text/plain").text == "here"
    assert started.post("/other", "x", "text/plain").text == sibling
    assert warden.is_alive


def test_a_command_that_leaves_its_group_is_stopped_all_the_same(node):
    started = node(
        """
stages:
  stray: {command: [python3, stray.py], timeout: 400ms, grace: 100ms, retries: 0, workers: 1}
routes: [{path: /stray, pipeline: stray, decode: text}]
""",
        stray="""
import os, sys, time
if sys.stdin.read() != "stay":
    os.setpgid(0, os.getpgid(os.getppid()))
    open("pid", "w").write(str(os.getpid()))
    time.sleep(3600)
print("here", end="")
""",
    )
    assert_problem(started.post("/stray", "go", "text/plain"), "stage-timeout", stage="stray", tries=1)
    stray = int((started.folder / "pid").read_text())
    until(lambda: Process.at(stray) is None, "the process's end")
    assert started.post("/stray", "stay", "text/plain").text == "here"
