"""Pools that size themselves, keys that stay with a worker, and clients that take turns."""

import threading
import time

from harness import until

APP = """
import os
import time

def hold(request):
    while not os.path.exists("go"):
        time.sleep(0.005)
    return os.getpid()

def who(value):
    time.sleep(0.002)
    return os.getpid()

def note(request):
    with open("order", "a") as file:
        file.write(request.headers["x-client"] + "\\n")
    time.sleep(0.01)
"""


def test_a_pool_grows_while_jobs_wait_and_shrinks_when_idle(node):
    served = node(
        """
        stages: {hold: {python: "app:hold", workers: {min: 1, max: 3, wait: 50ms, idle: 1s}}}
        routes: [{path: /hold, pipeline: hold}]
        """,
        app=APP,
    )
    assert len(served.workers("app:hold")) == 1
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(served.get("/hold").json)) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: served.metric("workers", stage="hold") == 3, "three workers are up")
    served.open("go")
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == 3
    until(lambda: served.metric("workers", stage="hold") == 1, "one worker is left")
    until(lambda: len(served.workers("app:hold")) == 1, "the others have ended")
    assert served.metric("workers_lost_total", stage="hold") == 0
    assert served.get("/hold").status == 200


def test_equal_keys_go_to_the_same_worker(node):
    served = node(
        """
        stages: {who: {python: "app:who", workers: 4, affinity: .user}}
        routes: [{path: /who, pipeline: who}]
        """,
        app=APP,
    )

    def ask(user):
        return served.post("/who", f'{{"user": "{user}"}}'.encode(), "application/json").json

    homes = {user: ask(user) for user in range(40)}
    assert len(set(homes.values())) == 4
    for user, home in homes.items():
        assert ask(user) == home
    # Without a key any worker will do; and what is no JSON is the client's mistake.
    assert served.post("/who", b"{}", "application/json").status == 200
    assert served.post("/who", b"{", "application/json").json["code"] == "bad-body"
    assert served.post("/who", b"[1]", "application/json").json["code"] == "filter-failed"


def test_one_clients_flood_does_not_starve_another(node):
    served = node(
        """
        stages: {note: {python: "app:note"}}
        routes: [{path: /note, pipeline: note, fairness: '.headers["x-client"]'}]
        """,
        app=APP,
    )
    served.get("/note", headers=[("x-client", "first")])

    def ask(client):
        served.get("/note", headers=[("x-client", client)])

    flood = [threading.Thread(target=ask, args=("flood",)) for _ in range(40)]
    for thread in flood:
        thread.start()
    until(lambda: served.metric("queue_depth", stage="note") >= 20, "the flood waits")
    began = time.monotonic()
    ask("other")
    waited = time.monotonic() - began
    for thread in flood:
        thread.join()
    order = served.notes("order")
    behind = len(order) - order.index("other") - 1
    assert behind >= 10, f"it went before most of the flood, after {waited:.3f} s"
