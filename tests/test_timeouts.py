"""A worker that takes too long: the job goes on without it, and it does not come back to haunt anybody."""

import signal
import time

from harness import Process, assert_problem, until

SERVICE = """
stages:
  once: {python: "app:hang", timeout: 300ms, grace: 200ms}
  again: {python: "app:hang", timeout: 300ms, grace: 200ms, retry_on: [timeout], retries: 2, workers: 2}
  deaf: {python: "app:deaf", timeout: 300ms, grace: 200ms}
  polite: {python: "app:polite", timeout: 300ms, grace: 20s}
routes:
  - {path: /once, pipeline: once}
  - {path: /again, pipeline: again}
  - {path: /deaf, pipeline: deaf}
  - {path: /polite, pipeline: polite}
"""

APP = """
    import os, signal, time
    import marks

    def hang(request, ctx):
        marks.note("hang", os.getpid())
        if int(request.query.get("times", 99)) >= ctx.tries:
            time.sleep(60)
        return [ctx.tries, os.getpid()]

    def deaf(request):
        signal.signal(signal.SIGTERM, lambda *_: marks.note("heard", "SIGTERM"))
        marks.note("deaf", os.getpid())
        while True:
            time.sleep(60)

    def polite(request, ctx):
        marks.note("polite", os.getpid())
        if "quick" not in request.query:
            while not ctx.cancelled():
                time.sleep(0.01)
            marks.note("told")
        return os.getpid()
"""


def test_a_try_that_takes_too_long_is_answered_at_once_and_its_worker_replaced(node):
    started = node(SERVICE, app=APP)
    before = started.workers("app:hang")
    began = time.monotonic()
    answer = started.get("/once")
    took = time.monotonic() - began
    assert_problem(answer, "stage-timeout", stage="once", tries=1, saying="its timeout of 300ms")
    # The answer waits for nobody's grace.
    assert 0.3 <= took < 1.5
    (pid,) = map(int, started.notes("hang"))
    assert pid in [worker.pid for worker in before]
    until(lambda: Process.at(pid) is None, "the end of the worker that hung", within=3)
    answer = started.get("/once?times=0")
    assert answer.json[0] == 1
    assert answer.json[1] != pid


def test_a_timeout_can_be_worth_another_try(node):
    started = node(SERVICE, app=APP)
    answer = started.get("/again?times=1")
    tries, pid = answer.json
    assert tries == 2
    first, second = map(int, started.notes("hang"))
    assert first != second == pid


def test_timeouts_are_tried_only_so_often(node):
    started = node(SERVICE, app=APP)
    answer = started.get("/again")
    assert_problem(answer, "stage-timeout", stage="again", tries=3, saying="(try 3)")
    assert len(started.notes("hang")) == 3
    until(lambda: started.metric("workers_idle", stage="again") == 2, "both places are taken again")


def test_a_stopped_worker_is_passed_over_and_what_it_says_late_is_refused(node):
    started = node(
        """
        stages:
          work: {python: "app:work", timeout: 500ms, grace: 20s, retry_on: [timeout], workers: 2}
        routes: [{path: /work, pipeline: work}]
        """,
        app="""
        import os, time
        import marks

        def work(request, ctx):
            marks.note("began", os.getpid())
            while ctx.tries == 1 and not os.path.exists("go"):
                time.sleep(0.01)
            marks.note("finished", f"{os.getpid()} {ctx.tries}")
            return [request.query["name"], ctx.tries]
        """,
    )
    connection = started.begin("GET", "/work?name=first")
    (pid,) = map(int, started.wait_notes("began"))
    stopped = Process.at(pid)
    stopped.send(signal.SIGSTOP)
    assert connection.answer().json == ["first", 2]
    # Now its own outcome comes, late: nobody is answered with it.
    started.open("go")
    stopped.send(signal.SIGCONT)
    until(lambda: f"{pid} 1" in started.notes("finished"), "the late outcome")
    with started.connect() as other:
        for number in range(20):
            assert other.get(f"/work?name={number}").json == [str(number), 1]
    assert not connection.has_something()
    assert started.metric("jobs_done_total", stage="work") == 21
    # It came back within its grace, so it works on.
    assert stopped.is_alive
    assert str(pid) in started.notes("began")[2:]
    assert started.metric("workers_lost_total", stage="work") == 0


def test_a_stopped_worker_that_never_goes_on_is_killed_and_replaced(node):
    started = node(SERVICE, app=APP)
    connection = started.begin("GET", "/again?times=1")
    (pid,) = map(int, started.wait_notes("hang"))
    stopped = Process.at(pid)
    stopped.send(signal.SIGSTOP)
    assert connection.answer().json[0] == 2
    # SIGTERM cannot reach a process that stands still; SIGKILL can.
    until(lambda: not stopped.is_alive, "the end of the stopped worker", within=4)
    until(lambda: started.metric("workers_idle", stage="again") == 2, "its place is taken again")
    assert started.get("/again?times=0").json[0] == 1


def test_a_worker_that_ignores_sigterm_is_killed(node):
    started = node(SERVICE, app=APP)
    assert_problem(started.get("/deaf"), "stage-timeout", stage="deaf", tries=1)
    (pid,) = map(int, started.notes("deaf"))
    until(lambda: Process.at(pid) is None, "the end of the worker", within=5)
    # It was asked first.
    assert started.notes("heard") == ["SIGTERM"]
    started.wait_log("killed by SIGKILL")
    until(lambda: started.metric("workers_idle", stage="deaf") == 1, "its place is taken again")


def test_a_worker_that_stops_when_told_keeps_its_place(node):
    started = node(SERVICE, app=APP)
    answer = started.get("/polite")
    assert_problem(answer, "stage-timeout", stage="polite", tries=1)
    started.wait_notes("told")
    assert started.get("/polite?quick=1").json == int(started.notes("polite")[0])
    assert started.metric("workers_lost_total", stage="polite") == 0


def test_jobs_of_other_workers_are_not_hurt_by_one_that_hangs(node):
    started = node(SERVICE, app=APP)
    hanging = started.begin("GET", "/again")
    started.wait_notes("hang")
    with started.connect() as connection:
        for _ in range(50):
            assert connection.get("/again?times=0").json[0] == 1
    assert_problem(hanging.answer(), "stage-timeout", stage="again", tries=3)
