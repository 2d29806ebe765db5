"""A client that goes away, and a deadline that passes: nobody works for nobody."""

import time

import pytest

from harness import Process, assert_problem, until
from harness.client import request_bytes

SERVICE = """
drain: 1s
stages:
  watch: {python: "app:watch"}
  kill: {python: "app:stubborn", on_cancel: kill, grace: 200ms}
  last: {python: "app:echo"}
pipelines:
  path: [watch, last]
routes:
  - {path: /watch, pipeline: watch}
  - {path: /path, pipeline: path}
  - {path: /quick, pipeline: watch, timeout: 400ms}
  - {path: /kill, pipeline: kill}
  - {path: /kill/quick, pipeline: kill, timeout: 300ms}
"""

APP = """
    import os, time
    import marks

    def watch(request, ctx):
        name = request.query.get("name", "x")
        marks.note("began", name)
        if "wait" not in request.query:
            return name
        try:
            while not ctx.cancelled():
                time.sleep(0.005)
            marks.note("told", name)
            if "check" in request.query:
                ctx.check()
        except BaseException as error:
            marks.note("raised", type(error).__name__)
            raise
        return "nobody sees this"

    def echo(value):
        marks.note("last", value)
        return value

    def stubborn(request):
        marks.note("stubborn", os.getpid())
        if "wait" in request.query:
            time.sleep(60)
        return os.getpid()
"""


@pytest.fixture
def started(node):
    return node(SERVICE, app=APP)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("path", ["/watch", "/path"])
def test_a_running_function_is_told_that_its_client_is_gone(started, end, path):
    connection = started.begin("GET", f"{path}?wait=1&name=gone")
    started.wait_notes("began")
    assert started.notes("told") == []
    getattr(connection, end)()
    assert started.wait_notes("told", within=2) == ["gone"]
    # The worker is free for the next one, and what it returned went nowhere.
    assert started.get("/path?name=next").text == "next"
    assert started.notes("last") == ["next"]
    assert started.metric("requests_total", result="cancelled") == 1
    assert started.metric("workers_lost_total", stage="watch") == 0


def test_check_ends_a_cancelled_function(started):
    connection = started.begin("GET", "/watch?wait=1&check=1")
    started.wait_notes("began")
    connection.close()
    assert started.wait_notes("raised") == ["Cancelled"]
    assert started.get("/watch").status == 200
    # It is no error.
    assert "Traceback" not in started.log


def test_a_queued_job_of_a_client_that_left_never_runs(started):
    first = started.begin("GET", "/watch?wait=1&name=first")
    started.wait_notes("began")
    queued = [started.begin("GET", f"/watch?name=queued-{number}") for number in range(5)]
    until(lambda: started.metric("queue_depth", stage="watch") == 5, "five wait")
    for connection in queued[:3]:
        connection.close()
    until(lambda: started.metric("queue_depth", stage="watch") == 2, "two wait")
    first.close()
    assert [connection.answer().text for connection in queued[3:]] == ["queued-3", "queued-4"]
    assert started.notes("began") == ["first", "queued-3", "queued-4"]
    assert started.metric("jobs_started_total", stage="watch") == 3


def test_a_deadline_is_answered_in_time_and_the_function_told(started):
    began = time.monotonic()
    answer = started.get("/quick?wait=1&name=late")
    took = time.monotonic() - began
    assert_problem(answer, "deadline-exceeded", stage="watch", tries=1, saying="`watch` was at work")
    assert 0.4 <= took < 0.8
    assert started.wait_notes("told", within=2) == ["late"]
    assert started.get("/watch?name=next").text == "next"


def test_a_deadline_passes_for_a_queued_job_too(started):
    running = started.begin("GET", "/watch?wait=1&name=running")
    started.wait_notes("began")
    began = time.monotonic()
    answer = started.get("/quick?name=queued")
    took = time.monotonic() - began
    assert_problem(answer, "deadline-exceeded", stage="watch", saying="waited for stage `watch`")
    assert 0.4 <= took < 0.8
    running.close()
    assert started.get("/watch?name=next").text == "next"
    assert started.notes("began") == ["running", "next"]


def test_a_deadline_while_no_worker_is_up(node):
    started = node(
        """
        stages: {none: {python: "app:work", workers: 0}}
        routes: [{path: /none, pipeline: none, timeout: 200ms}]
        """,
        app="def work(value): return 1",
    )
    assert_problem(started.get("/none"), "deadline-exceeded", stage="none", saying="had no workers")


def test_on_cancel_tell_never_kills(started):
    worker = started.worker("app:watch")
    for _ in range(3):
        connection = started.begin("GET", "/watch?wait=1")
        count = len(started.notes("told"))
        started.wait_notes("began", count + 1)
        connection.close()
        started.wait_notes("told", count + 1)
    assert started.get("/watch").status == 200
    assert started.worker("app:watch") == worker


@pytest.mark.parametrize("how", ["the client leaves", "the deadline passes"])
def test_on_cancel_kill_ends_what_does_not_listen(started, how):
    if how == "the client leaves":
        connection = started.begin("GET", "/kill?wait=1")
        started.wait_notes("stubborn")
        connection.close()
    else:
        assert_problem(started.get("/kill/quick?wait=1"), "deadline-exceeded", stage="kill", tries=1)
    (pid,) = map(int, started.notes("stubborn"))
    until(lambda: Process.at(pid) is None, "the end of the worker", within=3)
    replaced = started.get("/kill").json
    assert replaced != pid
    # The job was not tried again for nobody.
    assert len(started.notes("stubborn")) == 2


def test_clients_that_leave_at_once_leave_nothing_behind(started):
    for number in range(200):
        connection = started.begin("GET", f"/path?name={number}")
        if number % 2:
            connection.reset()
        else:
            connection.close()

    def settled():
        metrics = started.metrics()
        idle = all(metrics[f'evener_workers_idle{{stage="{stage}"}}'] == 1 for stage in ("watch", "last"))
        waiting = sum(metrics[f'evener_queue_depth{{stage="{stage}"}}'] for stage in ("watch", "last"))
        return idle and not waiting and metrics["evener_payload_bytes"] == 0

    until(settled, "nothing waits and nobody works")
    results = {name: value for name, value in started.metrics().items() if name.startswith("evener_requests_total")}
    served, cancelled = (results[f'evener_requests_total{{result="{result}"}}'] for result in ("ok", "cancelled"))
    # Each was served, cancelled, or gone before its first byte was read.
    assert 0 < served + cancelled <= 200
    assert sum(results.values()) == served + cancelled
    with started.connect() as connection:
        for number in range(20):
            assert connection.get(f"/path?name={number}").text == str(number)


def test_a_pipelining_client_that_leaves_cancels_what_is_under_way(started):
    connection = started.connect()
    connection.send(request_bytes("GET", "/watch?wait=1&name=1") + request_bytes("GET", "/watch?name=2"))
    started.wait_notes("began")
    connection.close()
    assert started.wait_notes("told", within=2) == ["1"]
    assert started.get("/watch?name=3").text == "3"
    assert started.notes("began") == ["1", "3"]


def test_a_client_that_leaves_while_its_body_comes(started):
    connection = started.connect()
    connection.send(request_bytes("POST", "/path", headers={"Content-Length": "1000000"}) + b"x" * 500_000)
    until(lambda: started.metric("payload_bytes") > 0, "the body on its way")
    connection.reset()
    until(lambda: started.metric("payload_bytes") == 0, "its memory to be given back")
    assert started.notes("began") == []
