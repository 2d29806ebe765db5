"""Workers of quick functions hold jobs ahead; nobody outside can tell, whatever happens to the worker or to its job."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import assert_problem, until
from harness.client import request_bytes

SERVICE = """
stages: {quick: {python: "app:quick", workers: 2, retries: RETRIES}}
routes: [{path: "/quick/{name}", pipeline: quick}]
"""

APP = """
    import os
    import marks

    done = []

    def quick(request):
        name = request.params["name"]
        query = request.query
        if "gate" in query:
            marks.note("held", os.getpid())
            marks.wait_for(query["gate"])
        if "die" in query:
            os._exit(3)
        if "done" in query:
            return done
        done.append(name)
        return name
"""

CONNECTIONS = 32


def start(node, retries=2, workers=2):
    started = node(SERVICE.replace("RETRIES", str(retries)).replace("workers: 2", f"workers: {workers}"), app=APP)
    # So many runs in silence, and under load, that workers take jobs ahead from now on.
    assert load(started, 3000) == 3000
    return started


def ask(started, names):
    """Send a batch at once over one connection; return how many answers were right."""
    with started.connect(patience=25) as connection:
        connection.send(b"".join(request_bytes("GET", f"/quick/{name}") for name in names))
        answers = [connection.answer() for _ in names]
        assert [(answer.status, answer.text) for answer in answers] == [(200, name) for name in names]
        return len(answers)


def load(started, count, tag="x"):
    shares = [[f"{tag}{number}" for number in range(first, count, CONNECTIONS)] for first in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(lambda share: ask(started, share), shares))


def test_nobody_waits_behind_a_job_that_turns_out_slow(node):
    started = start(node)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        shares = [[f"{first}-{number}" for number in range(50)] for first in range(CONNECTIONS)]
        quick = [pool.submit(ask, started, share) for share in shares[:16]]
        # One worker is held amid the load, with whatever it has at hand.
        slow = started.begin("GET", "/quick/slow?gate=go")
        quick += [pool.submit(ask, started, share) for share in shares[16:]]
        # All others are answered while it still holds.
        assert sum(one.result() for one in quick) == 50 * CONNECTIONS
        started.wait_notes("held")
        assert not slow.has_something()
    started.open("go")
    assert slow.answer().text == "slow"


def test_a_death_costs_only_the_job_that_had_begun(node):
    started = start(node, retries=0)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        shares = [[f"{first}-{number}" for number in range(60)] for first in range(CONNECTIONS)]
        quick = [pool.submit(ask, started, share) for share in shares]
        poison = []
        for number in range(6):
            answer = started.get(f"/quick/poison-{number}?die=1")
            poison.append(answer)
        # Not one of the others is lost, although none of them may be tried twice.
        assert sum(one.result() for one in quick) == 60 * CONNECTIONS
    for answer in poison:
        assert_problem(answer, "worker-died", stage="quick", tries=1, saying="exited with code 3")
    assert started.metric("workers_lost_total", stage="quick") == 6
    assert started.metric("jobs_failed_total", stage="quick") == 6


def test_a_frozen_worker_holds_up_no_more_than_the_job_at_hand(node):
    started = start(node)
    frozen = started.workers()[0]
    connections = [started.connect(patience=25) for _ in range(CONNECTIONS)]
    for number, connection in enumerate(connections):
        connection.send(b"".join(request_bytes("GET", f"/quick/{number}-{place}") for place in range(20)))
        if number == CONNECTIONS // 2:
            frozen.send(signal.SIGSTOP)
    answered = [0] * CONNECTIONS

    def read():
        for number, connection in enumerate(connections):
            while answered[number] < 20 and connection.has_something():
                assert connection.answer().text == f"{number}-{answered[number]}"
                answered[number] += 1
        return sum(count < 20 for count in answered) <= 1

    until(read, "all connections but one are served", within=8)
    # A fresh load does not meet the frozen one.
    assert load(started, 500, "again") == 500
    frozen.send(signal.SIGCONT)
    until(lambda: read() and sum(answered) == 20 * CONNECTIONS, "the last one is served as well", within=8)
    # Nothing came twice.
    assert not [connection for connection in connections if connection.has_something()]
    assert load(started, 500, "after") == 500


def test_a_job_ahead_whose_client_left_never_runs(node):
    started = start(node, workers=1)
    held = started.begin("GET", "/quick/held?gate=go")
    started.wait_notes("held")
    leaving = [started.begin("GET", f"/quick/left-{number}") for number in range(10)]
    staying = [started.begin("GET", f"/quick/stays-{number}") for number in range(3)]
    before = started.metric("requests_total", result="cancelled")
    for connection in leaving:
        connection.close()
    until(lambda: started.metric("requests_total", result="cancelled") == before + 10, "ten have left")
    started.open("go")
    assert held.answer().text == "held"
    assert [connection.answer().text for connection in staying] == [f"stays-{number}" for number in range(3)]
    ran = started.get("/quick/x?done=1").json[3000:]
    assert ran == ["held", *(f"stays-{number}" for number in range(3))]


@pytest.mark.parametrize("round_", range(3))
def test_a_worker_killed_amid_quick_jobs_loses_nothing(node, round_):
    started = start(node, retries=5)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, started, 3000, f"round{round_}-")
        for _ in range(3):
            ready = started.metric("jobs_done_total", stage="quick")
            until(lambda ready=ready: started.metric("jobs_done_total", stage="quick") > ready + 200, "some progress")
            for worker in started.workers()[:1]:
                worker.kill()
        assert loading.result() == 3000
