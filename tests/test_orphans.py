"""However a node ends, its workers and their children end with it."""

import os
import signal

import pytest

from harness import until

SERVICE = """
stages:
  work: {python: "app:work", workers: 2}
  spawn: {python: "app:spawn"}
routes:
  - {path: /work, pipeline: work}
  - {path: /spawn, pipeline: spawn}
"""

APP = """
    import os, subprocess, sys, time
    import marks

    def work(request):
        if "busy" in request.query:
            marks.note("busy")
            time.sleep(120)
        return os.getpid()

    def spawn(request):
        subprocess.Popen([sys.executable, "hide.py"])
        marks.wait_for("hidden")
        return "spawned"
"""


# A child that ignores all signals, and a grandchild of it in a session of its own.
HIDE = """
    import os, signal, time
    import marks

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            marks.note("hidden", os.getpid())
            time.sleep(120)
        os._exit(0)
    os.wait()
    time.sleep(120)
"""


@pytest.fixture
def started(node):
    return node(SERVICE, app=APP, hide=HIDE)


def family_with_grandchildren(started):
    assert started.get("/spawn").text == "spawned"
    started.begin("GET", "/work?busy=1")
    started.wait_notes("busy")
    hidden = int(started.wait_notes("hidden")[0])
    family = started.family()
    # The node, its warden, three workers, the child and the hidden grandchild.
    assert len(family) >= 7
    assert hidden in [process.pid for process in family]
    assert os.getsid(hidden) != os.getsid(started.worker("app:spawn").pid)
    return family


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGQUIT])
def test_a_node_that_is_killed_leaves_nobody_behind(started, number):
    family = family_with_grandchildren(started)
    started.send(number)
    started.wait_exit()
    until(lambda: not [process for process in family if process.is_alive], "the end of all", within=2)
    started.assert_nothing_survives()


def test_a_node_that_is_asked_to_stop_leaves_nobody_behind(node):
    started = node("drain: 100ms\n" + SERVICE.replace('"app:work"', '"app:work", grace: 100ms'), app=APP, hide=HIDE)
    family = family_with_grandchildren(started)
    started.stop()
    assert not [process for process in family if process.is_alive]


def test_a_stopped_warden_cannot_keep_workers_alive(started):
    """The kernel itself ends the workers of a warden that is killed together with its node."""
    workers = started.workers()
    warden = started.warden
    warden.send(signal.SIGSTOP)
    started.send(signal.SIGKILL)
    started.wait_exit()
    warden.kill()
    until(lambda: not [worker for worker in workers if worker.is_alive], "the end of all workers", within=2)


def test_the_service_recovers_from_the_loss_of_its_warden(started):
    warden, workers = started.warden, started.workers()
    assert len(workers) == 3
    busy = started.begin("GET", "/work")
    assert busy.answer().status == 200
    warden.kill()
    until(lambda: not [worker for worker in workers if worker.is_alive], "the end of its workers", within=3)
    # What comes meanwhile waits for new workers.
    assert started.get("/work").status == 200
    until(lambda: len(started.workers()) == 3, "as many workers as before")
    assert started.warden != warden
    assert not set(started.workers()) & set(workers)


def test_a_job_outlives_the_warden(node):
    started = node(
        """
        stages: {work: {python: "app:work"}}
        routes: [{path: /work, pipeline: work}]
        """,
        app="""
        import time
        import marks

        def work(request, ctx):
            marks.note("began")
            if ctx.tries == 1:
                time.sleep(60)
            return ctx.tries
        """,
    )
    connection = started.begin("GET", "/work")
    started.wait_notes("began")
    started.warden.kill()
    assert connection.answer().json == 2


def test_what_a_dead_worker_started_in_its_group_ends_with_it(started):
    assert started.get("/spawn").text == "spawned"
    worker = started.worker("app:spawn")
    in_group = [process for process in started.family() if os.getpgid(process.pid) == worker.pid]
    assert len(in_group) >= 2
    worker.kill()
    until(lambda: not [process for process in in_group if process.is_alive], "the end of its group", within=3)


def test_a_terminals_signal_reaches_the_workers_through_the_node_alone(started):
    """Ctrl-C goes to every process of the foreground group; workers leave it to the node."""
    group = os.getpgid(started.pid)
    for process in started.family():
        if process.pid != started.pid:
            assert os.getpgid(process.pid) != group
    for worker in started.workers():
        worker.send(signal.SIGINT)
    assert started.get("/work").status == 200
    assert started.metric("workers_lost_total", stage="work") == 0
