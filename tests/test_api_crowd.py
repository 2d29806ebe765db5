"""Strangers crowd the API: its health is answered, its clients get in, and the routes notice nothing."""

import os
import socket
import struct
import time
from pathlib import Path

import h2.config
import h2.connection

from harness import binary, until
from harness.client import Connection
from harness.http2 import Http2

SERVICE = """
listen: {http: "127.0.0.1:0", api: "127.0.0.1:0"}
stages: {echo: {jq: .}}
routes: [{path: /echo, pipeline: echo, decode: json}]
"""
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/grpc.health.v1.Health/Watch"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def watch(address, streams=1):
    """A connection without a token that watches the node's health."""
    raw = socket.create_connection(address, timeout=10)
    protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    protocol.initiate_connection()
    for _ in range(streams):
        stream = protocol.get_next_available_stream_id()
        protocol.send_headers(stream, HEADERS)
        protocol.send_data(stream, b"\0" + struct.pack(">I", 0), end_stream=True)
    raw.sendall(protocol.data_to_send())
    return raw


def close(connections):
    for connection in connections:
        connection.close()


def test_those_who_watch_keep_nobody_out(node):
    started = node(SERVICE)
    strangers = []
    try:
        for _ in range(1200):
            strangers.append(watch(started.address("api")))
        slowest = 0.0
        for _ in range(20):
            asked = time.monotonic()
            assert started.api("/healthz", token=False).status == 200
            assert started.api("/readyz", token=False).status == 200
            assert started.api("/metrics").status == 200
            assert started.post("/echo", b"1").json == 1
            slowest = max(slowest, time.monotonic() - asked)
        assert slowest < 2
    finally:
        close(strangers)


def test_a_client_with_the_token_is_not_the_one_to_leave(node):
    started = node(SERVICE)
    with Connection(started.address("api")) as known:
        headers = {"Authorization": f"Bearer {started.token}"}
        assert known.request("GET", "/metrics", headers=headers).status == 200
        strangers = [watch(started.address("api")) for _ in range(1100)]
        try:
            assert known.request("GET", "/metrics", headers=headers).status == 200
        finally:
            close(strangers)


def test_one_connection_watches_a_few_times(node):
    started = node(SERVICE)
    with Http2(started.address("api")) as client:
        frame = b"\0" + struct.pack(">I", 0)
        streams = [
            client.send(
                "POST",
                "/grpc.health.v1.Health/Watch",
                headers=[("content-type", "application/grpc"), ("te", "trailers")],
                body=frame,
            )
            for _ in range(40)
        ]
        until(lambda: client.receive() and len(client.answers) == len(streams), "an answer to each")
        refused = [answer for answer in client.answers.values() if answer.header("grpc-status") == "8"]
        assert len(refused) == 32
        # What watches is told of the health.
        until(lambda: any(answer.body for answer in client.answers.values()) or client.receive(), "the health")


def test_watching_costs_nothing_while_nothing_changes(node):
    started = node(SERVICE)
    strangers = [watch(started.address("api"), streams=8) for _ in range(100)]
    try:
        started.api("/healthz", token=False)

        def spent():
            fields = Path(f"/proc/{started.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        until(lambda: spent_is_flat(spent), "the node to be quiet", within=30)
    finally:
        close(strangers)


def spent_is_flat(spent, over=1.0):
    """Whether a node uses less than a tenth of a processor."""
    before, began = spent(), time.monotonic()
    while time.monotonic() - began < over:
        time.sleep(0.05)
    return spent() - before < 0.1 * over


def test_descriptors_are_shared_between_the_doors(node, tmp_path, monkeypatch):
    """With few of them, a crowd at the API leaves some to the routes."""
    few = tmp_path / "few"
    few.write_text(f'#!/bin/sh\nulimit -n 256\nexec "{binary()}" "$@"\n')
    few.chmod(0o755)
    monkeypatch.setenv("EVENER_BIN", str(few))
    started = node(SERVICE)
    crowd = []
    try:
        for _ in range(300):
            crowd.append(watch(started.address("api")))
        began = time.monotonic()
        assert started.post("/echo", b"1").json == 1
        assert started.api("/healthz", token=False).status == 200
        assert time.monotonic() - began < 5
        assert started.log.count("could not be accepted") < 10
    finally:
        close(crowd)


def test_a_stranger_has_few_requests_open(node):
    """Questions that do not come to an end take memory that nobody answers for."""
    started = node(SERVICE)
    check, headers = "/grpc.health.v1.Health/Check", [("content-type", "application/grpc"), ("te", "trailers")]
    with Http2(started.address("api")) as client:
        for _ in range(100):
            client.send("POST", check, headers=headers, end=False)
        until(lambda: client.receive() and len(client.answers) == 84, "the others to be refused")
        assert {answer.header("grpc-status") for answer in client.answers.values()} == {"8"}
    with Http2(started.address("api")) as client:
        # One that is too large is refused for its length, before it has come.
        stream = client.send("POST", check, headers=headers, body=b"\0" + struct.pack(">I", 4096), end=False)
        assert client.answer(stream).header("grpc-status") == "11"
        assert client.get("/healthz").status == 200
