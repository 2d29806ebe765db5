"""Clients that ask for much and read nothing: what the node holds for them is bounded, and given back."""

import socket
import threading
import time

import h2.settings
import pytest

from harness import until
from harness.client import request_bytes
from harness.http2 import Http2

MIB = 1 << 20
LIMIT = 64 * MIB
# What the node may take beside the payloads that it counts.
SLACK = 64 * MIB

SERVICE = """
limits: {memory: 64MiB, body: 4MiB, body_timeout: 3s, connections: 1000}
stages:
  large: {python: "app:large", workers: 2}
  small: {python: "app:small", workers: 2}
  text: {python: "app:text", workers: 2}
  stream: {python: "app:stream", workers: 2}
  filter: {jq: '"x" * 1000000 + (. | tostring)'}
  wide: {jq: '"x" * 15000000 + (. | tostring)'}
  echo: {jq: .}
  command: {command: [head, -c, 4000000, /dev/zero], workers: 2}
routes:
  - {path: /large, methods: [GET, POST], pipeline: large, input: body, timeout: 20s}
  - {path: /small, pipeline: small, input: body, timeout: 20s}
  - {path: /text, pipeline: text, input: body, timeout: 20s, compression: true}
  - {path: /stream, pipeline: stream, input: body, timeout: 20s}
  - {path: /filter, pipeline: filter, decode: json, input: body, timeout: 20s}
  - {path: /wide, pipeline: wide, decode: json, input: body, timeout: 20s}
  - {path: /seen, pipeline: echo, input: request, timeout: 20s}
  - {path: /command, pipeline: command, input: body, timeout: 20s}
  - {path: /echo, pipeline: echo, decode: json}
  - {path: /health, health: true}
"""

APP = """
import os

LARGE = os.urandom(4 << 20)
SMALL = b"s" * (16 << 10)
TEXT = os.urandom(1 << 20).hex()

def large(body): return LARGE
def small(body): return SMALL
def text(body): return TEXT
def stream(body):
    for _ in range(1000):
        yield LARGE[: 64 << 10]
"""


@pytest.fixture
def served(node):
    return node(SERVICE, app=APP)


class Watch:
    """How much memory a process took at most beyond what it took at first."""

    def __init__(self, process):
        self.process, self.first, self.most = process, process.resident, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def _look(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, self.process.resident - self.first)

    def end(self):
        self.over.set()
        self.thread.join()
        return self.most


def greedy(served, count, path, body=b""):
    """Connections that each send one request, and read nothing."""
    sockets = []
    for _ in range(count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(20)
        one.connect(served.address())
        one.sendall(request_bytes("POST" if body else "GET", path, body=body))
        sockets.append(one)
    return sockets


def greedy_streams(served, connections, streams, path, *, window, headers=()):
    """HTTP/2 connections that each send many requests, and take no more than `window` bytes of each answer."""
    opened = []
    for _ in range(connections):
        client = Http2(served.address(), greet=False)
        client.protocol.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        if window > 65535:
            client.protocol.increment_flow_control_window((1 << 31) - 1 - 65535)
        pairs = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path), *headers]
        for _ in range(streams):
            client.protocol.send_headers(client.protocol.get_next_available_stream_id(), pairs, end_stream=True)
        client.flush()
        opened.append(client)
    return opened


ATTACKS = {
    "without a body": lambda served: greedy(served, 200, "/large"),
    "with a body": lambda served: greedy(served, 200, "/large", b"b" * 10_000),
    "large bodies": lambda served: greedy(served, 60, "/echo", b'"' + b"b" * 3_000_000 + b'"'),
    "of jq": lambda served: greedy(served, 300, "/filter", b"1"),
    "large and of jq": lambda served: greedy(served, 60, "/wide", b"1"),
    "requests as JSON": lambda served: greedy(served, 4, "/seen", b"[" + b"0," * 1_500_000 + b"0]"),
    "of commands": lambda served: greedy(served, 60, "/command"),
    "chunks": lambda served: greedy(served, 200, "/stream"),
    "no window": lambda served: greedy_streams(served, 60, 256, "/small", window=0),
    "large and no window": lambda served: greedy_streams(served, 4, 100, "/large", window=0),
    "wide windows": lambda served: greedy_streams(served, 4, 100, "/large", window=(1 << 31) - 1),
    "compressed": lambda served: greedy_streams(
        served, 4, 100, "/text", window=(1 << 31) - 1, headers=[("accept-encoding", "gzip")]
    ),
    "compressed and no window": lambda served: greedy_streams(
        served, 4, 100, "/text", window=0, headers=[("accept-encoding", "gzip")]
    ),
    "chunks and no window": lambda served: greedy_streams(served, 4, 100, "/stream", window=0),
    "no such route": lambda served: greedy_streams(served, 60, 256, "/nowhere", window=0),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_answers_that_nobody_reads_are_bounded(served, attack):
    # What warms up on the first request is not the attack's.
    for path in ("/large", "/small", "/text"):
        assert served.get(path).status == 200
    watch = Watch(served.itself)
    clients = ATTACKS[attack](served)
    began = time.monotonic()
    try:
        # As long as they stay, the node says that it is well, and refuses or answers; it does not hang.
        while time.monotonic() - began < 2.5:
            assert served.get("/health").status == 200
            assert served.post("/echo", b"1", "application/json").status in (200, 429)
            time.sleep(0.1)
        # Then they are cut off, and what was held for them is free again.
        until(lambda: served.metric("payload_bytes") == 0, "the memory to be free", within=25)
    finally:
        for client in clients:
            client.close()
        most = watch.end()
    assert most < LIMIT + SLACK, f"{most / MIB:.0f} MiB"
    assert served.get("/large").status == 200


def test_a_full_node_says_when_to_come_again(served):
    clients = greedy(served, 60, "/large")
    try:
        until(lambda: served.post("/echo", b"1", "application/json").status == 429, "the node to be full")
        refused = served.post("/echo", b"1", "application/json")
        assert (refused.json["code"], refused.header("retry-after")) == ("memory-full", "1")
        assert refused.json["retryable"] is True
        with Http2(served.address()) as client:
            answer = client.get("/large")
            assert (answer.status, answer.header("retry-after")) == (429, "1")
    finally:
        for client in clients:
            client.close()
    until(lambda: served.post("/echo", b"1", "application/json").status == 200, "room again")


def test_what_was_used_is_given_back_to_the_system(served):
    first = served.itself.resident
    clients = greedy(served, 40, "/large")
    until(lambda: served.itself.resident - first > 40 * MIB, "memory to be used")
    for client in clients:
        client.close()
    until(lambda: served.metric("payload_bytes") == 0, "the memory to be free", within=25)
    until(lambda: served.itself.resident - first < 32 * MIB, "it to be given back", within=60)


def test_a_result_is_counted_once(node):
    command = "{command: [head, -c, 40000000, /dev/zero], max_output: 48MiB}"
    served = node(
        "limits: {memory: 64MiB, body: 48MiB}\n"
        f"stages: {{command: {command}}}\nroutes: [{{path: /, pipeline: command}}]"
    )
    for _ in range(3):
        assert len(served.get("/").body) == 40_000_000
    assert served.metric("payload_bytes") == 0


def test_what_commands_print_finds_room_or_is_refused(node):
    command = "{command: [head, -c, 40000000, /dev/zero], max_output: 48MiB, workers: 8}"
    served = node(
        "limits: {memory: 64MiB, body: 48MiB, body_timeout: 2s}\n"
        f"stages: {{command: {command}}}\nroutes: [{{path: /, pipeline: command}}]"
    )
    assert served.get("/").status == 200
    watch = Watch(served.itself)
    clients = greedy(served, 8, "/")
    try:
        until(lambda: served.metric("requests_total", result="memory-full"), "one to be refused")
        until(lambda: served.metric("payload_bytes") == 0, "the memory to be free", within=25)
    finally:
        for client in clients:
            client.close()
        most = watch.end()
    assert most < LIMIT + SLACK, f"{most / MIB:.0f} MiB"
