"""Answers that come in chunks: as they are, as lines of JSON and as server-sent events."""

import json

import pytest

from harness import assert_problem
from harness.client import ConnectionEnded

APP = """
import os
import time

import evener

def text(request):
    for word in ("one", "two", "three"):
        yield word

def numbers(request):
    for number in range(int(request.query.get("count", "3"))):
        yield {"n": number}

def raw(request):
    yield b"\\x00\\x01"
    yield b"\\x02" * 700000

def empty(request):
    return
    yield

def waits(request, ctx):
    yield "first"
    while not os.path.exists("go"):
        ctx.check()
        time.sleep(0.005)
    yield "second"

def breaks(request):
    yield {"n": 0}
    raise ValueError("half-way")

def breaks_raw(request):
    yield "half"
    raise ValueError("half-way")

def dies(request):
    yield "half"
    os._exit(9)

def endless(request):
    try:
        while True:
            yield "x" * 65536
    finally:
        open("closed", "a").write("closed\\n")

def sent(request):
    for number in range(1000):
        yield "x" * 65536
        with open("sent", "a") as file:
            file.write("65536\\n")

def first(request):
    yield from (1, 2, 3)

def second(value):
    return {"got": value}

def lines(request):
    yield "a\\nb"
    yield {"c": 1}
"""
NAMES = ["text", "numbers", "raw", "empty", "waits", "breaks", "breaks_raw", "dies", "endless", "sent", "lines"]
SERVICE = (
    "stages:\n"
    + "".join(f'  {name}: {{python: "app:{name}", retries: 2}}\n' for name in [*NAMES, "first", "second"])
    + "pipelines:\n  both: [first, second]\n  branch: [{scatter: {a: first, b: first}}]\nroutes:\n"
    + "".join(f"  - {{path: /{name}, pipeline: {name}, timeout: 60s}}\n" for name in [*NAMES, "both", "branch"])
)
EVENTS = [("accept", "text/event-stream")]


@pytest.fixture
def served(node):
    return node(SERVICE, app=APP)


def test_what_is_streamed_and_how(served):
    answer = served.get("/text")
    assert (answer.status, answer.text, answer.content_type) == (200, "onetwothree", "text/plain; charset=utf-8")
    assert answer.header("transfer-encoding") == "chunked"
    assert answer.header("evener-request-id")
    answer = served.get("/numbers")
    assert (answer.text, answer.content_type) == ('{"n":0}\n{"n":1}\n{"n":2}\n', "application/x-ndjson")
    answer = served.get("/raw")
    assert (answer.body, answer.content_type) == (b"\0\1" + b"\2" * 700_000, "application/octet-stream")
    answer = served.get("/empty")
    assert (answer.status, answer.body) == (200, b"")
    many = served.get("/numbers?count=20000").text.splitlines()
    assert [json.loads(line)["n"] for line in many] == list(range(20_000))
    assert served.metric("payload_bytes") == 0


def test_events_where_the_client_accepts_them(served):
    answer = served.get("/text", headers=EVENTS)
    assert answer.content_type == "text/event-stream"
    assert answer.text == "data: one\n\ndata: two\n\ndata: three\n\n"
    answer = served.get("/empty", headers=EVENTS)
    assert (answer.status, answer.content_type, answer.body) == (200, "text/event-stream", b"")
    assert served.get("/lines", headers=EVENTS).text == 'data: a\ndata: b\n\ndata: {"c":1}\n\n'


def test_elsewhere_a_generator_is_a_list(served):
    assert served.get("/both").json == {"got": [1, 2, 3]}
    assert served.get("/branch").json == {"a": [1, 2, 3], "b": [1, 2, 3]}


def test_a_chunk_comes_before_the_next_is_made(served):
    with served.connect() as connection:
        connection.send(b"GET /waits HTTP/1.1\r\nhost: localhost\r\n\r\n")
        head = connection._until(b"first\r\n")
        assert b"200 OK" in head
        served.open("go")
        assert b"second" in connection._until(b"0\r\n\r\n")


def test_a_generator_that_raises_half_way(served):
    lines = served.get("/breaks").text.splitlines()
    assert json.loads(lines[0]) == {"n": 0}
    assert json.loads(lines[1])["code"] == "function-failed"
    assert len(lines) == 2
    events = served.get("/breaks", headers=EVENTS).text
    assert events.startswith('data: {"n":0}\n\nevent: error\ndata: {')
    # Text has no place for a problem: the client sees that it is not whole.
    for path in ("/breaks_raw", "/dies"):
        with pytest.raises(ConnectionEnded):
            served.get(path)
    assert served.get("/text").text == "onetwothree"


def test_a_client_that_leaves_closes_the_generator(served):
    with served.connect() as connection:
        connection.send(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connection._until(b"x")
        connection.reset()
    served.wait_notes("closed", 1)
    assert served.get("/text").text == "onetwothree"


def test_a_slow_client_holds_the_generator_up(served):
    with served.connect(receive_buffer=4096) as connection:
        connection.send(b"GET /sent HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connection._until(b"x")
        # It comes to a stop: the same size, however often another stage is asked meanwhile.
        before, same = None, 0
        while same < 100 or not before:
            sent = served.notes("sent")
            same = same + 1 if sent == before else 0
            before = sent
            served.get("/text")
        assert 0 < len(served.notes("sent")) < 256, "it was held up before its 64 MB were out"
        assert served.metric("payload_bytes") < 4 << 20


def test_no_stream_takes_the_place_of_a_problem_at_the_start(served):
    answer = served.get("/numbers?count=x")
    assert_problem(answer, "function-failed", stage="numbers", tries=1)
