"""A node that has enough to do refuses more, clearly and with an hour to come back."""

import pytest

from harness import assert_problem, until
from harness.client import request_bytes

SERVICE = """
limits: {memory: 10MiB}
stages:
  gate: {python: "app:gate", queue: 3, grace: 100ms}
  other: {python: "app:echo"}
  inner: {python: "app:gate", queue: 2}
pipelines:
  through: [other, inner]
routes:
  - {path: /gate, pipeline: gate}
  - {path: /other, pipeline: other}
  - {path: /through, pipeline: through}
  - {path: /spare, pipeline: gate, fallback: spare, fallback_on: [unavailable, timeout, error, lost]}
"""

APP = """
    import marks

    def gate(value):
        marks.note("began")
        marks.wait_for("go")
        return len(value)

    def echo(value):
        return value
"""


@pytest.fixture
def started(node):
    return node(SERVICE, app=APP)


def begin(started, path, body=b"x"):
    return started.begin("POST", path, body=body)


def fill(started, path="/gate", stage="gate", count=4):
    """One runs, the others wait."""
    first = begin(started, path)
    started.wait_notes("began")
    rest = [begin(started, path) for _ in range(count - 1)]
    until(lambda: started.metric("queue_depth", stage=stage) == count - 1, "a full queue")
    return [first, *rest]


def test_a_full_queue_refuses_with_the_time_to_come_back(started):
    full = fill(started)
    answer = started.post("/gate", b"one more")
    assert_problem(answer, "queue-full", stage="gate", saying="3 jobs wait for stage `gate`")
    assert int(answer.header("retry-after")) >= 1
    # Another stage has room.
    assert started.post("/other", b"x").body == b"x"
    started.open("go")
    assert [connection.answer().json for connection in full] == [1] * 4
    assert started.post("/gate", b"again").json == 5


def test_a_full_queue_further_on_refuses_at_the_door(started):
    full = fill(started, "/through", "inner", 3)
    answer = started.post("/through", b"one more")
    assert_problem(answer, "queue-full", stage="inner", saying="`inner`")
    # The first stage of that pipeline serves others.
    assert started.post("/other", b"x").body == b"x"
    started.open("go")
    assert [connection.answer().json for connection in full] == [1] * 3


def test_what_is_in_is_never_refused_further_on(node):
    started = node(
        """
        stages:
          fan: {python: "app:echo", workers: 2}
          narrow: {python: "app:slowly", queue: 1}
        pipelines: {path: [fan, narrow]}
        routes: [{path: /path, pipeline: path}]
        """,
        app="""
        import marks

        def echo(value):
            marks.note("in")
            marks.wait_for("go")
            return value

        def slowly(value):
            return value
        """,
    )
    connections = [started.begin("POST", "/path", body=b"%d" % number) for number in range(20)]
    # All of them are in before one of them gets to the narrow stage.
    until(lambda: started.metric("queue_depth", stage="fan") == 18, "all are in")
    started.open("go")
    assert [connection.answer().body for connection in connections] == [b"%d" % number for number in range(20)]


def test_the_time_to_come_back_follows_the_pace_of_the_queue(node):
    started = node(
        """
        stages: {slow: {python: "app:slow", queue: 12}}
        routes: [{path: /slow, pipeline: slow}]
        """,
        app="""
        import time

        def slow(value):
            time.sleep(0.25)
        """,
    )
    waiting = []

    def fill_up():
        waiting.append(begin(started, "/slow"))
        return started.metric("queue_depth", stage="slow") >= 12

    until(fill_up, "a full queue")
    # Once some have gone, the pace is known: a dozen at four a second.
    for _ in range(6):
        assert waiting.pop(0).answer().status == 200
    until(fill_up, "a full queue again")

    def refused():
        answer = started.post("/slow")
        return answer if answer.status == 429 else None

    answer = until(refused, "a refusal")
    assert 1 <= int(answer.header("retry-after")) <= 8


def test_a_full_memory_refuses_bodies(started):
    megabyte = b"x" * 1_000_000
    held = begin(started, "/gate", megabyte * 5)
    started.wait_notes("began")
    held_too = begin(started, "/gate", megabyte * 4)
    until(lambda: started.metric("payload_bytes") >= 9_000_000, "both bodies are held")
    answer = started.post("/other", megabyte * 2)
    assert_problem(answer, "memory-full", saying="10485760 is the most")
    assert int(answer.header("retry-after")) >= 1
    # What is small still fits.
    assert started.post("/other", b"x").body == b"x"
    started.open("go")
    assert held.answer().json == 5_000_000
    assert held_too.answer().json == 4_000_000
    until(lambda: started.metric("payload_bytes") == 0, "all memory is given back")
    assert started.post("/other", megabyte * 2).status == 200


def test_a_body_that_the_memory_cannot_hold_is_refused_before_it_is_read(started):
    begin(started, "/gate", b"x" * 5_000_000)
    started.wait_notes("began")
    connection = started.connect()
    connection.send(request_bytes("POST", "/other", headers={"Content-Length": str(9_000_000)}))
    assert_problem(connection.answer(), "memory-full")
