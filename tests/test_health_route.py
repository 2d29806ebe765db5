"""Routes that the node answers itself, for load balancers."""

import signal

from harness import assert_problem, until
from harness.http2 import Http2

ROUTES = """
routes:
  - {path: /up, methods: [GET], health: true}
  - {path: /work, pipeline: work}
"""
SERVICE = 'stages: {work: {python: "app:work"}}' + ROUTES
APP = """
    from marks import note, wait_for

    wait_for("go")

    def work(request):
        note("began")
        wait_for("end")
"""


def test_a_node_is_starting_then_ready_then_draining(node):
    started = node(SERVICE, wait="listening", app=APP)
    with started.connect() as kept:
        answer = kept.get("/up")
        assert (answer.status, answer.json) == (503, {"status": "starting"})
        assert answer.content_type == "application/json"
        assert answer.header("cache-control") == "no-store"
        assert answer.header("evener-request-id")
        started.open("go")
        until(lambda: kept.get("/up").status == 200, "the node is ready")
        assert kept.get("/up").json == {"status": "ready"}
        assert kept.request("HEAD", "/up").status == 200
        assert_problem(kept.request("POST", "/up"), "method-not-allowed", saying="takes GET, HEAD, not POST")
    with Http2(started.address()) as connection:
        running = connection.send("GET", "/work")
        started.wait_notes("began")
        started.send(signal.SIGTERM)
        until(lambda: started.readiness()["state"] == "draining", "the node drains")
        answer = connection.get("/up")
        assert (answer.status, answer.json) == (503, {"status": "draining"})
        started.open("end")
        assert connection.answer(running).status == 200
    assert started.wait_exit() == 0


def test_a_stage_that_is_broken_makes_it_fail(node):
    started = node(SERVICE, wait="listening", app="import nonsense")
    started.wait_log("the stage is broken", within=20)
    answer = started.get("/up")
    assert (answer.status, answer.json) == (503, {"status": "stage-broken"})


def test_it_needs_no_worker(node):
    """All workers are busy and the queue is full, which is no reason to be taken out of service."""
    service = 'stages: {work: {python: "app:work", queue: 1}}' + ROUTES
    started = node(service, app=APP.replace('wait_for("go")', ""))
    connections = [started.begin("GET", "/work")]
    started.wait_notes("began")
    connections.append(started.begin("GET", "/work"))
    until(lambda: started.metric("queue_depth", stage="work") == 1, "the second waits")
    assert_problem(started.get("/work"), "queue-full", stage="work")
    assert started.get("/up").json == {"status": "ready"}
    started.open("end")
    assert [connection.answer().status for connection in connections] == [200, 200]
