"""Threads: several jobs at the same time in one worker."""

import threading

import pytest

from harness import assert_problem, until

APP = """
import os
import threading
import time

import evener
import marks

barrier = threading.Barrier(4, timeout=20)

def meet(value):
    barrier.wait()
    return [os.getpid(), threading.current_thread().name]

def wait(value, ctx):
    marks.note("begun", value)
    try:
        while not os.path.exists(f"go-{value}"):
            ctx.check()
            time.sleep(0.002)
    except evener.Cancelled:
        marks.note("cancelled", value)
        raise
    return value

def rows(value):
    for number in range(3):
        barrier.wait()
        yield [value, number]

def count(value, ctx):
    return ctx.state.add("count", value)

def dies(value, ctx):
    marks.note("begun", value)
    if value == 0 and ctx.tries == 1:
        marks.wait_for("die")
        os._exit(9)
    if ctx.tries == 1 and marks.take("wait"):
        time.sleep(60)
    return [value, ctx.tries]
"""


@pytest.fixture
def served(node):
    names = ["meet", "wait", "rows", "count", "dies"]
    return node(
        "stages:\n"
        + "".join(f'  {name}: {{python: "app:{name}", threads: 4, retries: 2}}\n' for name in names)
        + "routes:\n"
        + "".join(
            f"  - {{path: /{name}, pipeline: {name}, methods: [POST], decode: json, timeout: 20s}}\n" for name in names
        )
        + "  - {path: /short, pipeline: wait, methods: [POST], decode: json, timeout: 300ms}\n",
        app=APP,
    )


def at_once(served, path, bodies):
    answers = [None] * len(bodies)

    def post(number, body):
        answers[number] = served.post(path, body)

    threads = [threading.Thread(target=post, args=pair) for pair in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_jobs_run_at_the_same_time_in_one_process(served):
    for _ in range(3):
        answers = at_once(served, "/meet", ["1"] * 4)
        assert len({answer.json[0] for answer in answers}) == 1
        assert len({answer.json[1] for answer in answers}) == 4
    # More than there are threads for wait their turn.
    assert all(answer.status == 200 for answer in at_once(served, "/meet", ["1"] * 20))


def test_one_that_is_cancelled_leaves_the_others_alone(served):
    waiting = [served.begin("POST", "/wait", body=b"%d" % number) for number in (1, 2)]
    served.wait_notes("begun", 2)
    assert_problem(served.post("/short", "3"), "deadline-exceeded", stage="wait", tries=1)
    assert served.wait_notes("cancelled", 1) == ["3"]
    with served.connect() as connection:
        connection.send(b"POST /wait HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n4")
        served.wait_notes("begun", 4)
        connection.reset()
    assert served.wait_notes("cancelled", 2) == ["3", "4"]
    for number in (2, 1):
        served.open(f"go-{number}")
        assert waiting[number - 1].answer().json == number


def test_generators_stream_at_the_same_time(served):
    answers = at_once(served, "/rows", ["1", "2", "3", "4"])
    for number, answer in enumerate(answers, 1):
        assert answer.text == "".join(f"[{number},{row}]\n" for row in range(3))


def test_threads_share_the_state_too(served):
    assert sorted(answer.json for answer in at_once(served, "/count", ["1"] * 12)) == list(range(1, 13))


def test_a_worker_that_dies_takes_all_its_jobs_along_and_they_are_tried_again(served):
    served.open("wait")
    long = served.begin("POST", "/dies", body=b"1")
    served.wait_notes("begun", 1)
    deadly = served.begin("POST", "/dies", body=b"0")
    served.wait_notes("begun", 2)
    served.open("die")
    assert deadly.answer().json == [0, 2]
    answer = long.answer().json
    assert answer[0] == 1
    assert served.post("/dies", "5").json == [5, 1]


def test_one_that_hangs_costs_its_neighbours_nothing(node):
    served = node(
        """
        stages: {work: {python: "app:work", threads: 4, retries: 0, timeout: 400ms, grace: 300ms}}
        routes: [{path: /, pipeline: work, methods: [POST], decode: json}]
        """,
        app="""
        import os, time
        import marks

        def work(value):
            marks.note("begun", value)
            time.sleep(value)
            return os.getpid()
        """,
    )
    first = served.worker().pid
    hangs = served.begin("POST", "/", body=b"60")
    served.wait_notes("begun", 1)
    # They go on in the same process until it is replaced, and then in the next.
    pids = [served.post("/", "0.01").json]
    until(lambda: pids.append(served.post("/", "0.01").json) or pids[-1] != first, "the worker is replaced")
    assert set(pids) == {first, pids[-1]}
    assert_problem(hangs.answer(), "stage-timeout", stage="work", tries=1)
