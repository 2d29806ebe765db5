"""Clients and workers that mean harm, or write without end: the others do not notice."""

from __future__ import annotations

import time

import pytest

from harness.client import Connection, request_bytes

STAGES = """
    limits: {memory: 40MiB, body: 10MiB, body_timeout: 20s}
    stages:
      echo: {python: "app:echo", workers: 2}
      look: {python: "app:look"}
      flood: {python: "app:flood", timeout: 1s, grace: 0s, retries: 0}
      refuse: {python: "app:refuse"}
    routes:
      - {path: /echo, pipeline: echo, decode: bytes, timeout: 10s}
      - {path: /slow, pipeline: echo, decode: bytes, timeout: 2s}
      - {path: "/look/{*rest}", pipeline: look}
      - {path: /flood, pipeline: flood}
      - {path: /refuse, pipeline: refuse}
    """

APP = """
    import subprocess
    import evener

    def echo(value):
        return value

    def look(request):
        return len(request.path)

    def flood(request):
        subprocess.run(["timeout", "20", "yes", "a line without end"])

    def refuse(request):
        raise evener.Abort(500, request.query["why"])
    """


@pytest.fixture
def served(node):
    return node(STAGES, app=APP)


@pytest.mark.parametrize("target", ["/look/x?" + "a&" * 30_000, "/look/" + "%01" * 20_000, "/look/" + "%22" * 20_000])
def test_a_head_that_grows_as_json_kills_no_worker(served, target):
    answer = served.get(target)
    assert answer.status in (200, 431)
    if answer.status == 431:
        assert answer.json["code"] == "headers-too-large"
    assert served.metric('workers_lost_total{stage="look"}') == 0


def test_a_worker_that_writes_without_end_stops_nobody_and_is_stopped(served):
    flood = served.begin("GET", "/flood")
    began = time.monotonic()
    slowest = 0.0
    while time.monotonic() - began < 1.5:
        asked = time.monotonic()
        assert served.post("/echo", b"x").body == b"x"
        slowest = max(slowest, time.monotonic() - asked)
    assert slowest < 0.5
    assert flood.answer().json["code"] == "stage-timeout"
    assert time.monotonic() - began < 3


def test_an_answer_that_looks_like_an_answer_arrives_as_it_is(served):
    body = b"xx" + b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n" * 60_000
    connection = Connection(served.address(), receive_buffer=4096)
    with connection:
        connection.send(request_bytes("POST", "/echo", body=body))
        received = bytearray()
        while len(received) < len(body) and (piece := connection.socket.recv(1 << 16)):
            received += piece
    head, _, answer = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body.startswith(answer)
    assert len(answer) > len(body) - 4096


def test_bodies_that_were_only_promised_take_no_memory(served):
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\nx"
    promising = [served.connect() for _ in range(20)]
    for connection in promising:
        connection.send(head)
    assert served.post("/echo", b"y" * 1_000_000).status == 200
    for connection in promising:
        connection.close()


def test_a_body_that_drips_ends_with_its_routes_timeout(served):
    with served.connect() as connection:
        connection.send(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        began = time.monotonic()
        while not connection.has_something():
            assert time.monotonic() - began < 5
            connection.send(b"x")
            # The pace of this client.
            time.sleep(0.1)
        assert connection.answer().json["code"] == "body-timeout"


def test_a_client_forges_no_lines_in_the_log(served):
    answer = served.get("/refuse?why=so%0A2026-01-01T00:00:00Z%20ERROR%20forged")
    assert answer.json["detail"] == "so\n2026-01-01T00:00:00Z ERROR forged"
    served.get("/look/after")
    assert not [line for line in served.log.splitlines() if line.startswith("2026-01-01T00:00:00Z")]
