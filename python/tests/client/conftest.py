"""Tests of the client without an engine: the compiled part is replaced by `fake`."""

from __future__ import annotations

import sys

import pytest

import evener
from client import fake
from evener import _client

URL = "unix:/fake"


@pytest.fixture(autouse=True)
def bridge(monkeypatch):
    """Put the fake in the place of the compiled part; no address leads anywhere yet."""
    monkeypatch.setitem(sys.modules, "evener._bridge", fake)
    monkeypatch.setattr(evener, "_bridge", fake, raising=False)
    for name in ("EVENER_URL", "EVENER_TOKEN_FILE", "EVENER_CA_FILE", "EVENER_BIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_client, "_shared", {})
    monkeypatch.setattr(fake, "nodes", {})
    fake.release.clear()
    yield fake
    fake.release.set()
    for client in list(_client._clients):
        client.close()
    for node in fake.made:
        node.stop()
    fake.made.clear()


@pytest.fixture
def engine(monkeypatch, bridge):
    """Have an engine run at the address that the environment names; returns what starts one with other properties."""

    def start(**properties):
        if URL in fake.nodes:
            fake.nodes[URL].stop()
        fake.nodes[URL] = fake.Node(**properties)
        return fake.nodes[URL]

    monkeypatch.setenv("EVENER_URL", URL)
    start()
    return start


@pytest.fixture
def node(engine):
    """The engine that runs."""
    return fake.nodes[URL]
