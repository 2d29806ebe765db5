"""Changes of a service that fail: the workers of before go on, that shows, and the change can be tried again."""

import signal

import pytest

from harness import until

APP = """
import os

NUMBER = "1"

class Model:
    def __init__(self):
        with open("models/" + os.environ["MODEL"]) as file:
            self.model = file.read().strip()

    def __call__(self, request):
        return self.model

def only_one(request):
    return os.environ["V"]

if os.environ.get("V") == "2" and os.environ["INDEX"] == "1" and not os.path.exists("models/go"):
    raise RuntimeError("no room for the second")
"""

SERVICE = """
service: tested
listen: {http: "127.0.0.1:0"}
stages: {model: {python: "app:Model", env: {MODEL: VERSION}KEYS}}
routes: [{path: /, pipeline: model}]
"""

GOING_ON = "go on, since the new one did not come up"
TAKEN_OVER = r"the service file has taken over"


def file(version, keys=""):
    return SERVICE.replace("VERSION", version).replace("KEYS", keys)


@pytest.fixture
def start(node):
    def started(keys="", **options):
        served = node(file("v1", keys), app=APP, folders=["models"], wait="listening", **options)
        served.write("models/v1", "one")
        return served.wait_ready()

    return started


def ask_for_reload(served, text=None):
    """Write the service file anew, and wait until it was read."""
    before = len(logged(served, TAKEN_OVER)) + len(logged(served, "nothing has changed"))
    if text is not None:
        served.write("service.yaml", text)
    served.send(signal.SIGHUP)
    until(
        lambda: len(logged(served, TAKEN_OVER)) + len(logged(served, "nothing has changed")) > before,
        "the file was read",
    )


def logged(served, text):
    return [line for line in served.log.splitlines() if text in line]


def failed(served, stage="model"):
    """What is known of a failed change, which has to be the same everywhere."""

    def agreed():
        readiness = served.api("/readyz").json
        assert readiness["state"] == "ready"
        why = readiness.get("reload_failed", {}).get(stage)
        # It may have come or gone between the two.
        return (served.metric("stage_reload_failed", stage=stage) == (0 if why is None else 1), why)

    return until(lambda: (found := agreed())[0] and found, "the metric says what the readiness says")[1]


def wait_failed(served, times, stage="model"):
    until(lambda: len(logged(served, GOING_ON)) == times, f"{times} failed changes")
    return until(lambda: failed(served, stage), "the failed change is known")


def test_a_change_that_failed_is_tried_again(start):
    served = start()
    worker = served.worker()
    assert failed(served) is None
    ask_for_reload(served, file("v2"))
    assert "models/v2" in wait_failed(served, 1)
    # What an exception says is for those who have the token.
    public = {"state": "ready", "stages": {"model": "ready"}, "reload_failed": {"model": "FileNotFoundError"}}
    assert served.readiness() == public
    # And again, without a change of the file.
    ask_for_reload(served)
    wait_failed(served, 2)
    assert (served.get("/").text, served.worker()) == ("one", worker)
    served.write("models/v2", "two")
    ask_for_reload(served)
    until(lambda: served.get("/").text == "two", "the new version")
    until(lambda: failed(served) is None, "the change is made")
    ask_for_reload(served)
    assert logged(served, "nothing has changed")


def test_a_change_that_failed_is_taken_back(start):
    served = start()
    worker = served.worker()
    ask_for_reload(served, file("v2"))
    wait_failed(served, 1)
    ask_for_reload(served, file("v2"))
    wait_failed(served, 2)
    ready = len(logged(served, "worker ready"))
    ask_for_reload(served, file("v1"))
    until(lambda: failed(served) is None, "the change is taken back")
    served.wait_log("the change that had failed is not asked for any more")
    ask_for_reload(served)
    assert logged(served, "nothing has changed")
    assert (served.get("/").text, served.worker()) == ("one", worker)
    assert len(logged(served, "worker ready")) == ready


def test_watching_tries_again_when_something_changes(start):
    served = start(arguments=["--watch"])
    served.write("service.yaml", file("v2"))
    wait_failed(served, 1)
    served.write("models/v2", "two")
    # Nobody watches that folder; but the file may be written again, or one may be asked.
    served.write("service.yaml", file("v2") + "drain: 5s\n")
    until(lambda: served.get("/").text == "two", "the new version")
    until(lambda: failed(served) is None, "the change is made")
    # What has failed is not tried again and again by itself.
    assert len(logged(served, TAKEN_OVER)) == 2


@pytest.mark.parametrize("arguments", [[], ["--watch"]])
def test_code_that_failed_is_tried_again(start, arguments):
    served = start(arguments=arguments)
    worker = served.worker()
    served.write("app.py", APP.replace('NUMBER = "1"', 'NUMBER = open("models/number").read()'))
    if not arguments:
        ask_for_reload(served)
    assert "models/number" in wait_failed(served, 1)
    served.send(signal.SIGHUP)
    wait_failed(served, 2)
    assert served.worker() == worker
    # Mended, and neither the code nor the service file has changed.
    served.write("models/number", "2")
    ask_for_reload(served)
    until(lambda: failed(served) is None, "the change is made")
    until(lambda: served.workers() and worker not in served.workers(), "a new worker")
    assert served.get("/").text == "one"


SEVERAL = """
service: tested
listen: {http: "127.0.0.1:0"}
stages: {only_one: {python: "app:only_one", workers: 2, env: {V: "VERSION", INDEX: "{index}"}}}
routes: [{path: /, pipeline: only_one}]
functions: {default: {workers: 1}}
"""


@pytest.mark.parametrize("back", [False, True])
def test_the_second_of_several_fails(node, back):
    served = node(SEVERAL.replace("VERSION", "1"), app=APP, folders=["models"])

    def versions():
        return {one.environment["INDEX"]: (one.environment["V"], one.pid) for one in served.workers("app:only_one")}

    before = versions()
    (pool,) = [one for one in served.workers() if "INDEX" not in one.environment]
    ask_for_reload(served, SEVERAL.replace("VERSION", "2"))
    assert "no room for the second" in wait_failed(served, 1, "only_one")
    until(lambda: len(served.workers("app:only_one")) == 2, "only those that go on")
    half = versions()
    assert (half["0"][0], half["1"]) == ("2", before["1"])
    if back:
        # Only the one that had changed changes back.
        ask_for_reload(served, SEVERAL.replace("VERSION", "1"))
        until(lambda: versions().get("0", " ")[0] == "1" and len(served.workers("app:only_one")) == 2, "all are old")
        until(lambda: failed(served, "only_one") is None, "the change is taken back")
        assert versions()["1"] == before["1"]
    else:
        served.write("models/go", "")
        ask_for_reload(served)
        until(lambda: failed(served, "only_one") is None, "the change is made")
        until(lambda: len(served.workers("app:only_one")) == 2, "the old one is gone")
        assert (versions()["0"], versions()["1"][0]) == (half["0"], "2")
    assert pool in served.workers()


def test_a_pool_grows_by_workers_that_come_up(node):
    text = """
service: tested
listen: {http: "127.0.0.1:0"}
stages: {hold: {python: "holds:hold", workers: {min: 1, max: 2, wait: 20ms}, env: {V: "VERSION"}}}
routes: [{path: /, pipeline: hold}]
"""
    holds = """
import os, time
if os.environ["V"] == "2":
    raise RuntimeError("not this version")
def hold(request):
    while not os.path.exists("go"):
        time.sleep(0.005)
"""
    served = node(text.replace("VERSION", "1"), holds=holds)
    ask_for_reload(served, text.replace("VERSION", "2"))
    wait_failed(served, 1, "hold")
    connections = [served.begin("GET", "/") for _ in range(2)]
    until(lambda: served.metric("workers", stage="hold") == 2, "the pool has grown")
    served.open("go")
    assert {connection.answer().status for connection in connections} == {200}
    assert failed(served, "hold")


def test_a_worker_that_stopped_first_comes_back_as_it_was(start):
    keys = ", reload: stop-first"
    served = start(keys)
    worker = served.worker()
    ask_for_reload(served, file("v2", keys))
    served.wait_log("one like the old worker takes over, since the new one did not come up")
    until(lambda: served.get("/").text == "one", "the version of before")
    assert served.worker() != worker
    assert "models/v2" in until(lambda: failed(served), "the failed change is known")
    served.write("models/v2", "two")
    ask_for_reload(served)
    until(lambda: served.get("/").text == "two", "the new version")
    until(lambda: failed(served) is None, "the change is made")
