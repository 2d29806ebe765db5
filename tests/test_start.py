"""Stages that do not start: the others work, the fault is named, and the stage mends by itself."""

import time

import pytest

from harness import assert_problem, until

SERVICE = """
stages:
  good: {python: "app:good"}
  bad: {python: "broken:work", workers: 2}
pipelines:
  both: [good, bad]
routes:
  - {path: /good, pipeline: good}
  - {path: /bad, pipeline: bad}
  - {path: /both, pipeline: both}
  - {path: /leads, pipeline: good, methods: [POST], input: body, decode: text}
"""

APP = """
    import evener
    import marks

    def good(value):
        marks.note("good")
        return evener.Goto("bad", 1) if value == "goto" else "good"
"""

WORKS = """
    def work(value):
        return "mended"
"""

BREAKS = {
    "it does not import": ("import no_such_module", "No module named 'no_such_module'"),
    "it is no Python": ("def work(:", "SyntaxError"),
    "it raises": ("raise RuntimeError('not today')", "RuntimeError: not today"),
    "it exits": ("import sys; sys.exit('enough')", "enough"),
    "it ends its process": ("import os; os._exit(9)", "exited with code 9"),
    "it kills itself": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "it lacks the function": ("def wrok(value): pass", "did you mean 'wrok'?"),
    "its target is no function": ("work = 7", "a target is a function or a class"),
    "its function takes nothing": ("def work(): pass", "takes no argument"),
    "its function takes too much": ("def work(a, b, c): pass", "needs 3 arguments"),
    "its async function takes nothing": ("async def work(): pass", "takes no argument"),
    "its class raises": (
        "class work:\n    __call__ = print\n    def __init__(self): raise OSError('gone')",
        "OSError: gone",
    ),
    "its class cannot be called": ("class work: pass", "__call__"),
    "its class needs arguments": ("class work:\n    def __init__(self, x): pass\n    __call__ = 1", "needs arguments"),
}


def wait_broken(started):
    until(lambda: started.readiness()["stages"]["bad"] == "broken", "the stage is broken", within=20)


@pytest.mark.parametrize(("source", "why"), BREAKS.values(), ids=BREAKS.keys())
def test_a_stage_that_does_not_start_is_named(node, source, why):
    started = node(SERVICE, wait="listening", app=APP, broken=source)
    # A request that is already in is answered once it is clear, not at its deadline.
    waiting = started.begin("GET", "/bad")
    assert started.get("/good").text == "good"
    assert_problem(waiting.answer(), "stage-broken", stage="bad", saying="the workers of stage `bad` do not start")
    wait_broken(started)
    ready = started.api("/readyz", token=False)
    assert ready.status == 503
    assert ready.json == {"state": "stage-broken", "stages": {"good": "ready", "bad": "broken"}}
    assert started.api("/healthz", token=False).status == 200
    assert "ready" not in started.output
    assert why in started.log, started.log
    assert started.get("/good").text == "good"


def test_routes_through_a_broken_stage_are_refused_at_the_door(node):
    started = node(SERVICE, wait="listening", app=APP, broken="import no_such_module")
    wait_broken(started)
    began = time.monotonic()
    assert_problem(started.get("/bad"), "stage-broken", stage="bad")
    # The first stage of the pipeline is not troubled in vain.
    assert_problem(started.get("/both"), "stage-broken", stage="bad")
    assert started.notes("good") == []
    # A goto that leads there ends as well.
    assert_problem(started.post("/leads", "goto"), "stage-broken", stage="bad")
    assert time.monotonic() - began < 2
    assert started.metric("stage_broken", stage="bad") == 1
    assert started.metric("stage_broken", stage="good") == 0


def test_a_broken_stage_mends_by_itself(node):
    started = node(SERVICE, wait="listening", app=APP, broken="import no_such_module")
    wait_broken(started)
    started.write("broken.py", WORKS)
    until(lambda: started.get("/bad").status == 200, "the stage mends", within=20)
    assert started.get("/both").text == "mended"
    started.wait_ready()
    assert started.readiness()["state"] == "ready"
    assert started.metric("stage_broken", stage="bad") == 0


def test_attempts_to_start_a_broken_stage_are_bounded(node):
    started = node(SERVICE, wait="listening", app=APP, broken="import marks; marks.note('try'); raise OSError")
    wait_broken(started)
    # Two places, each of which tried three times, and waits ever longer.
    tries = len(started.notes("try"))
    assert 3 <= tries <= 8
    began = time.monotonic()
    started.wait_notes("try", tries + 4, within=30)
    assert time.monotonic() - began > 0.5


def test_a_slow_start_is_no_broken_one(node):
    started = node(
        """
        stages: {slow: {python: "app:work", start_timeout: 10s}}
        routes: [{path: /slow, pipeline: slow}]
        """,
        wait="listening",
        app="""
        import time
        time.sleep(1.5)

        def work(value):
            return "at last"
        """,
    )
    assert started.get("/slow").text == "at last"
    assert "did not start" not in started.log


def test_a_start_that_takes_too_long_is_given_up(node):
    started = node(
        """
        stages: {slow: {python: "app:work", start_timeout: 1s}}
        routes: [{path: /slow, pipeline: slow}]
        """,
        wait="listening",
        app="""
        import os, time
        import marks
        marks.note("started", os.getpid())
        if not os.path.exists("quick"):
            time.sleep(60)

        def work(value):
            return "at last"
        """,
    )
    assert_problem(started.get("/slow"), "stage-broken", stage="slow")
    assert "was not ready within 1s" in started.log
    started.open("quick")
    until(lambda: started.get("/slow").status == 200, "the stage mends", within=20)
    # None of those given up is left.
    assert len(started.workers()) == 1


def test_one_place_that_does_not_start_does_not_break_its_stage(node):
    started = node(
        """
        stages: {work: {python: "app:work", workers: 2, env: {NUMBER: "{index}"}}}
        routes: [{path: /work, pipeline: work}]
        """,
        wait="listening",
        app="""
        import os
        import marks

        if os.environ["NUMBER"] == "1":
            marks.note("failed")
            raise OSError("not this one")

        def work(value):
            return os.environ["NUMBER"]
        """,
    )
    started.wait_notes("failed", 4, within=20)
    assert started.get("/work").text == "0"
    assert started.readiness()["stages"] == {"work": "ready"}


def test_a_stage_without_workers_is_idle_and_the_service_ready(node):
    started = node(
        """
        stages: {none: {python: "app:work", workers: 0}, some: {python: "app:work"}}
        routes: [{path: /none, pipeline: none}, {path: /some, pipeline: some}]
        """,
        app="def work(value): return 1",
    )
    assert started.readiness() == {"state": "ready", "stages": {"none": "idle", "some": "ready"}}


def test_a_working_folder_that_goes_away_is_named(node):
    started = node(
        """
        stages: {work: {python: "app:work", cwd: place}}
        routes: [{path: /work, pipeline: work}]
        """,
        folders=["place"],
        app="def work(value): return 1",
    )
    place = started.folder / "place"
    place.rmdir()
    started.worker().kill()
    until(lambda: started.readiness()["state"] == "stage-broken", "the stage is broken")
    assert_problem(started.get("/work"), "stage-broken", stage="work")
    started.wait_log(r"place: it does not exist")
    place.mkdir()
    until(lambda: started.get("/work").status == 200, "the stage mends", within=20)
