"""Async functions: many jobs at the same time in one worker."""

import threading

import pytest

from harness import assert_problem, until

APP = """
import asyncio
import os

import marks

class Meet:
    def __init__(self):
        self.room = asyncio.Event()
        self.there = 0

    async def __call__(self, value):
        self.there += 1
        if self.there == value:
            self.room.set()
        await asyncio.wait_for(self.room.wait(), 20)
        return os.getpid()

async def wait(value):
    marks.note("begun", value)
    try:
        while not os.path.exists(f"go-{value}"):
            await asyncio.sleep(0.002)
    except asyncio.CancelledError:
        marks.note("cancelled", value)
        raise
    return value

async def rows(value):
    for number in range(3):
        await asyncio.sleep(0.01)
        yield [value, number]

async def endless(value):
    try:
        while True:
            yield "x" * 65536
    finally:
        marks.note("closed")

async def count(value, ctx):
    await asyncio.sleep(0.001)
    return ctx.state.add("count", value)

async def alone(value):
    marks.note("alone", "in")
    await asyncio.sleep(0.02)
    marks.note("alone", "out")
    return value

async def then(value):
    return [value, len(value)]
"""
MANY = ["wait", "rows", "endless", "count"]


@pytest.fixture
def served(node):
    return node(
        'stages:\n  meet: {python: "app:Meet", concurrency: 50}\n'
        + "".join(f'  {name}: {{python: "app:{name}", concurrency: 20, retries: 0}}\n' for name in MANY)
        + "".join(f'  {name}: {{python: "app:{name}"}}\n' for name in ("alone", "then"))
        + "pipelines:\n  both: [rows, then]\nroutes:\n"
        + "".join(
            f"  - {{path: /{name}, pipeline: {name}, methods: [POST], decode: json, timeout: 20s}}\n"
            for name in ["meet", *MANY, "alone", "both"]
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
    answers = at_once(served, "/meet", ["40"] * 40)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json for answer in answers}) == 1


def test_cancelled_raises_in_the_one_that_nobody_waits_for(served):
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


def test_async_generators_stream_and_are_lists_elsewhere(served):
    for number, answer in enumerate(at_once(served, "/rows", [str(number) for number in range(8)])):
        assert answer.text == "".join(f"[{number},{row}]\n" for row in range(3))
        assert answer.content_type == "application/x-ndjson"
    assert served.post("/both", "7").json == [[[7, 0], [7, 1], [7, 2]], 3]


def test_a_client_that_leaves_closes_the_generator_and_no_other_waits_for_a_slow_one(served):
    with served.connect(receive_buffer=4096) as connection:
        connection.send(b"POST /endless HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1")
        connection._until(b"x")
        assert served.post("/rows", "1").status == 200
        connection.reset()
    served.wait_notes("closed", 1)


def test_the_state_is_there(served):
    assert sorted(answer.json for answer in at_once(served, "/count", ["1"] * 20)) == list(range(1, 21))


def test_without_concurrency_one_job_comes_after_the_other(served):
    answers = at_once(served, "/alone", [str(number) for number in range(6)])
    assert [answer.json for answer in answers] == list(range(6))
    assert served.notes("alone") == ["in", "out"] * 6


@pytest.mark.parametrize(
    ("key", "source", "says"),
    [
        ("concurrency", "def work(value): return 1", "use `threads` in its place"),
        ("threads", "async def work(value): return 1", "use `concurrency` in their place"),
    ],
)
def test_the_key_for_the_other_kind_of_function_is_refused(node, key, source, says):
    started = node(
        f"""
        stages: {{work: {{python: "app:work", {key}: 4}}}}
        routes: [{{path: /, pipeline: work}}]
        """,
        wait="listening",
        app=source,
    )
    until(lambda: says in started.log, "the reason is in the log")
    assert_problem(started.get("/"), "stage-broken", stage="work")
