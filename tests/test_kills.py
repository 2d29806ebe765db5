"""Workers killed at random under load: every request gets exactly one right answer, and none is lost."""

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import until

SERVICE = """
stages:
  double: {python: "app:double", workers: 3, retries: 50}
  label: {python: "app:label", workers: 2, retries: 50}
pipelines: {path: [double, label]}
routes: [{path: "/run/{name}", pipeline: path, timeout: 20s}]
"""

APP = """
    import time

    def double(request):
        time.sleep(0.004)
        return [request.params["name"], 2 * int(request.query["n"])]

    def label(value):
        time.sleep(0.002)
        return f"{value[0]} {value[1]}"
"""

CLIENTS = 12
REQUESTS = 600
KILLS = 25


class Killer(threading.Thread):
    """Kills a random worker that is up, again and again.

    Those that are just starting are left alone: three starts in a row that come to nothing break a stage. And it stops
    after some, as a place whose workers die again and again is refilled ever more slowly.
    """

    def __init__(self, node, seed):
        super().__init__()
        self.node = node
        self.random = random.Random(seed)
        self.done = threading.Event()
        self.kills = 0

    def run(self):
        while self.kills < KILLS and not self.done.wait(self.random.uniform(0.02, 0.08)):
            ready = set(re.findall(r"worker ready .* pid=(\d+)", self.node.log))
            workers = [worker for worker in self.node.workers() if str(worker.pid) in ready]
            if workers:
                self.random.choice(workers).kill()
                self.kills += 1


def ask(started, share):
    """Send a share of the requests over one connection; return what came back for each."""
    history = []
    with started.connect(patience=25) as connection:
        for number in share:
            answer = connection.get(f"/run/request-{number}?n={number}")
            history.append((number, answer.status, answer.text))
        # Nothing came twice.
        assert not connection.has_something()
    return history


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_while_workers_are_killed(node, seed):
    started = node(SERVICE, app=APP)
    killer = Killer(started, seed)
    killer.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            shares = [range(client, REQUESTS, CLIENTS) for client in range(CLIENTS)]
            histories = list(pool.map(lambda share: ask(started, share), shares))
    finally:
        killer.done.set()
        killer.join()
    got = sorted(line for history in histories for line in history)
    assert got == [(number, 200, f"request-{number} {2 * number}") for number in range(REQUESTS)]
    assert killer.kills >= 10
    metrics = started.metrics()
    assert metrics['evener_requests_total{result="ok"}'] == REQUESTS
    assert metrics['evener_jobs_done_total{stage="double"}'] == REQUESTS
    assert metrics['evener_jobs_done_total{stage="label"}'] == REQUESTS
    retried = sum(metrics[f'evener_jobs_retried_total{{stage="{stage}"}}'] for stage in ("double", "label"))
    assert retried > 0
    assert metrics["evener_payload_bytes"] == 0
    until(lambda: len(started.workers()) == 5, "every place is taken again", within=15)


def test_every_worker_killed_at_once(node):
    started = node(SERVICE, app=APP)
    connections = [started.begin("GET", f"/run/x?n={number}") for number in range(30)]
    for worker in started.workers():
        worker.kill()
    assert [connection.answer().text for connection in connections] == [f"x {2 * number}" for number in range(30)]


def test_a_retry_comes_within_a_second(node):
    started = node(
        """
        stages: {work: {python: "app:work", workers: 2}}
        routes: [{path: /work, pipeline: work}]
        """,
        app="""
        import os, time
        import marks

        def work(request, ctx):
            marks.note("began", f"{os.getpid()} {time.time()}")
            if ctx.tries == 1:
                time.sleep(60)
            return ctx.tries
        """,
    )
    for number in range(1, 6):
        connection = started.begin("GET", "/work")
        (pid, _) = started.wait_notes("began", 2 * number - 1)[-1].split()
        (victim,) = [worker for worker in started.workers() if worker.pid == int(pid)]
        died = time.time()
        victim.kill()
        assert connection.answer().json == 2
        (_, again) = started.notes("began")[-1].split()
        assert float(again) - died < 1


def test_a_worker_that_did_jobs_is_replaced_without_delay_each_time(node):
    started = node(
        """
        stages: {work: {python: "app:work"}}
        routes: [{path: /work, pipeline: work}]
        """,
        app="""
        import os

        def work(request, ctx):
            if ctx.tries == 1 and "die" in request.query:
                os._exit(3)
            return ctx.tries
        """,
    )
    slowest = 0
    for _ in range(9):
        for _ in range(3):
            assert started.get("/work").json == 1
        began = time.monotonic()
        assert started.get("/work?die=1").json == 2
        slowest = max(slowest, time.monotonic() - began)
    # What a start of Python takes on a busy machine is in it.
    assert slowest < 1.5
