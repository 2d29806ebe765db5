"""Everything at once for a while: stages that fail, hang and die, clients that leave, service files that take over.

`EVENER_SOAK` is how many seconds it lasts; `make test-long` lets it last ten minutes. Every answer is one that its
request may get, and in the end nothing is left of the load: no memory, no descriptor, no thread, no process.
"""

import json
import os
import random
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from harness import until
from harness.client import Connection, request_bytes
from harness.http2 import Http2

SECONDS = float(os.environ.get("EVENER_SOAK", "30"))
CLIENTS = 8
# Between two reloads.
RELOAD = 0.15
MIB = 1 << 20

SERVICE = """
service: soak
listen: {http: "127.0.0.1:PORT"}
limits: {memory: 64MiB, queue: 200, body_timeout: 5s}
stages:
  echo: {python: "app:echo", workers: 2}
  fails: {python: "app:fails", workers: 1}
  hangs: {python: "app:hangs", workers: 2, timeout: 150ms, grace: 50ms}
  dies: {python: "app:dies", workers: 2, retries: 1}
  batch: {python: "app:batch", workers: 1, batch: {max: 8, wait: 2ms}}
  stream: {python: "app:stream", workers: 1}
  total: {jq: "{sum: add, version: VERSION}"}
  find: {jq: 'test("^(a?){30}b")', timeout: 2s}
  upper: {command: [tr, a-z, A-Z], workers: 2, timeout: 5s}
pipelines:
  both:
    - scatter: {echo: echo, total: total}
routes:
  - {path: /echo, pipeline: echo, decode: json}
  - {path: /fails, pipeline: fails, input: body}
  - {path: /hangs, pipeline: hangs, input: body}
  - {path: /dies, pipeline: dies, input: body}
  - {path: /batch, pipeline: batch, decode: json}
  - {path: /stream, pipeline: stream, input: body, compression: true}
  - {path: /total, pipeline: total, decode: json}
  - {path: /find, pipeline: find, decode: json}
  - {path: /upper, pipeline: upper, decode: text}
  - {path: /both, pipeline: both, decode: json}
"""

APP = """
import os
import time

def echo(value): return value
def fails(body): raise ValueError("as it should")
def hangs(body): time.sleep(30)
def dies(body):
    if os.urandom(1)[0] < 64:
        os._exit(3)
    return "lived"
def batch(values): return values
def stream(body):
    for number in range(20):
        yield "chunk " * 200
"""

BAD = ["stages: {", "service: soak\nstages: {x: {python: 1}}\n", "service: soak\nstages: {echo: {jq: '('}}\n"]

# Of each route: what is sent, and which statuses may come. A stage whose workers die again and again may count as
# broken for a moment.
REQUESTS = {
    "/echo": (b"[1, 2, 3]", {200}),
    "/fails": (b"x", {500}),
    "/hangs": (b"x", {504, 503}),
    "/dies": (b"x", {200, 502, 503, 504}),
    "/batch": (b'"item"', {200}),
    "/stream": (b"x", {200}),
    "/total": (b"[1, 2, 3]", {200}),
    "/find": (json.dumps("a" * 30).encode(), {200}),
    "/upper": (b"text", {200}),
    "/both": (b"[1, 2]", {200}),
    "/nowhere": (b"", {404}),
}
# What any request may get while so much goes on.
BUSY = {429}


class Load:
    """Clients that ask for all of it in any order, some of which leave before their answer."""

    def __init__(self, node, seed):
        self.address, self.over, self.wrong, self.seen = node.address(), threading.Event(), [], Counter()
        run = (self._http1, self._http1, self._leaver, self._http2)
        self.threads = [
            threading.Thread(target=self._repeat, args=(run[number % len(run)], random.Random(seed + number)))
            for number in range(CLIENTS)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        print(f"{sum(self.seen.values())} requests")
        assert not any(thread.is_alive() for thread in self.threads), "a client has no answer"

    def _repeat(self, run, chance):
        while not self.over.is_set():
            try:
                run(chance)
            except Exception as error:
                self.wrong.append(f"{run.__name__}: {error!r}")

    def _judge(self, path, answer):
        self.seen[path, answer.status] += 1
        if answer.status not in REQUESTS[path][1] | BUSY:
            self.wrong.append(f"{path}: {answer.status} {answer.body[:300]!r}")
        elif path == "/echo" and answer.status == 200 and answer.json != [1, 2, 3]:
            self.wrong.append(f"{path}: {answer.body[:300]!r}")

    def _http1(self, chance):
        with Connection(self.address, patience=40) as connection:
            for path in chance.choices(list(REQUESTS), k=10):
                connection.send(request_bytes("POST", path, body=REQUESTS[path][0]))
                self._judge(path, connection.answer("POST"))

    def _leaver(self, chance):
        with Connection(self.address, patience=40) as connection:
            path = chance.choice(list(REQUESTS))
            whole = request_bytes("POST", path, body=REQUESTS[path][0])
            connection.send(whole[: chance.randrange(1, len(whole) + 1)])
            if chance.random() < 0.5:
                connection.reset()
        self.seen["left"] += 1

    def _http2(self, chance):
        with Http2(self.address, patience=40) as client:
            streams = {}
            for path in chance.choices(list(REQUESTS), k=10):
                streams[client.send("POST", path, body=REQUESTS[path][0])] = path
            left = set(chance.sample(list(streams), 2))
            for stream in left:
                client.cancel(stream)
            for stream, path in streams.items():
                if stream not in left:
                    self._judge(path, client.answer(stream))


def reload_again_and_again(node, text, over, told):
    """Let other files take over, some of them bad."""
    for number in range(1, 1 << 30):
        if over.wait(RELOAD):
            break
        bad = number % 5 == 0
        node.write("service.yaml", BAD[number // 5 % len(BAD)] if bad else text.replace("VERSION", str(number)))
        node.send(signal.SIGHUP)
        told["bad" if bad else "good"] += 1
    node.write("service.yaml", text.replace("VERSION", "0"))
    node.send(signal.SIGHUP)


def held(node):
    """What the node and its family have of what must not add up."""
    warden = node.warden
    threads = len(list(Path(f"/proc/{node.pid}/task").iterdir()))
    return {
        "descriptors": len(node.itself.descriptors),
        "descriptors of the warden": len(warden.descriptors),
        "threads": threads,
        "processes": len(node.family()),
    }


@pytest.mark.timeout(SECONDS * 1.5 + 180)
def test_nothing_is_left_of_a_mixed_load(node):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = SERVICE.replace("PORT", str(port))
    served = node(text.replace("VERSION", "0"), app=APP)

    def quiet():
        return served.metric("payload_bytes") == 0 and served.readiness()["state"] == "ready"

    before = held(served)
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    with Load(served, seed) as warming:
        warming.over.wait(3)
    memory = served.itself.resident

    over, told = threading.Event(), Counter()
    reloading = threading.Thread(target=reload_again_and_again, args=(served, text, over, told))
    with Load(served, seed + 1000) as load:
        reloading.start()
        over.wait(SECONDS)
        over.set()
        reloading.join()
    assert not load.wrong, f"{len(load.wrong)} wrong, the first: " + "\n".join(load.wrong[:5])
    assert told["good"] + told["bad"] > SECONDS / RELOAD / 4
    for path, (_, statuses) in REQUESTS.items():
        assert any(load.seen[path, status] for status in statuses), f"nothing came of {path}: {load.seen}"

    until(quiet, "the node to be quiet", within=60)
    last = {}

    def back():
        last.update(held(served))
        return all(last[name] <= before[name] for name in before)

    try:
        until(back, "all to be as before", within=60, every=0.2)
    except AssertionError:
        raise AssertionError(f"before {before}, after {last}") from None
    until(lambda: served.itself.resident - memory < 24 * MIB, "the memory to be given back", within=60, every=0.5)
    assert served.post("/total", b"[4, 5]", "application/json").json == {"sum": 9, "version": 0}
