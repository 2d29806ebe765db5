"""Stopping: what runs may finish, the rest is answered, and nothing survives."""

import os
import signal
import time

import pytest

from harness import ConnectionEnded, assert_problem, until
from harness.client import request_bytes

SERVICE = """
drain: {drain}
stages:
  work: {python: "app:work", grace: 200ms}
  next: {python: "app:echo", grace: 200ms}
pipelines: {path: [work, next]}
routes:
  - {path: /path, pipeline: path}
  - {path: /next, pipeline: next}
"""

APP = """
    import os, time
    import marks

    def work(request, ctx):
        name = request.query["name"]
        marks.note("began", name)
        if "wait" in request.query:
            while not os.path.exists("go") and not ctx.cancelled():
                time.sleep(0.005)
            marks.note("ended", f"{name} {ctx.cancelled()}")
        return name

    def echo(value):
        return value if isinstance(value, str) else "next"
"""


def start(node, drain="20s", **options):
    return node(SERVICE.replace("{drain}", drain), app=APP, **options)


def is_refused(started):
    """Whether the door does not take connections any more."""
    try:
        started.connect(patience=2).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_node_stops_at_once(node, number):
    started = start(node)
    began = time.monotonic()
    started.send(number)
    assert started.wait_exit() == 0
    assert time.monotonic() - began < 3
    started.assert_nothing_survives()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_request_finishes_with_its_answer(node, number):
    started = start(node)
    # Through both stages: what is in is carried to its end.
    connection = started.begin("GET", "/path?wait=1&name=running")
    queued = started.begin("GET", "/path?name=queued")
    started.wait_notes("began")
    until(lambda: started.metric("queue_depth", stage="work") == 1, "one waits")
    started.send(number)
    until(lambda: is_refused(started), "new connections are refused")
    assert started.process.poll() is None
    started.open("go")
    answer = connection.answer()
    assert (answer.status, answer.text) == (200, "running")
    # The connection ends with it, so the client does not send more in vain.
    assert answer.header("connection") == "close"
    assert connection.closed_within(5)
    assert queued.answer().text == "queued"
    assert started.wait_exit() == 0
    assert started.notes("ended") == ["running False"]
    started.assert_nothing_survives()


def test_a_request_that_takes_longer_than_the_drain_is_answered(node):
    started = start(node, "500ms")
    connections = [started.begin("GET", f"/path?wait=1&name={name}") for name in ("running", "queued")]
    started.wait_notes("began")
    until(lambda: started.metric("queue_depth", stage="work") == 1, "one waits")
    began = time.monotonic()
    started.send(signal.SIGTERM)
    # Each is told where it was: at work, or before it.
    for connection, tries in zip(connections, (1, None), strict=True):
        assert_problem(connection.answer(), "draining", stage="work", tries=tries, saying="shut down")
    took = time.monotonic() - began
    assert 0.5 <= took < 2
    assert started.wait_exit() == 0
    started.assert_nothing_survives()
    # The function was told.
    assert len(started.notes("began")) == 1


def test_the_api_tells_of_the_drain(node):
    started = start(node)
    started.begin("GET", "/path?wait=1&name=running")
    started.wait_notes("began")
    started.send(signal.SIGTERM)
    until(lambda: started.readiness()["state"] == "draining", "the API tells of the drain")
    assert started.api("/readyz", token=False).status == 503
    assert started.api("/healthz", token=False).status == 200
    started.open("go")
    assert started.wait_exit() == 0


def test_idle_connections_are_closed_and_do_not_hold_up_the_end(node):
    started = start(node)
    kept = started.connect()
    assert kept.get("/next").status == 200
    silent = started.connect()
    began = time.monotonic()
    started.send(signal.SIGTERM)
    assert kept.closed_within(3)
    assert started.wait_exit() == 0
    assert time.monotonic() - began < 4
    assert silent.closed_within(1)


def test_a_request_on_a_kept_connection_during_the_drain_is_refused_or_not_taken(node):
    started = start(node)
    kept = started.connect()
    assert kept.get("/next").status == 200
    running = started.begin("GET", "/path?wait=1&name=running")
    started.wait_notes("began")
    started.send(signal.SIGTERM)
    until(lambda: is_refused(started), "new connections are refused")
    try:
        kept.send(request_bytes("GET", "/next"))
        answer = kept.answer()
    except (ConnectionEnded, ConnectionError):
        answer = None
    if answer is not None:
        assert_problem(answer, "draining")
    started.open("go")
    assert running.answer().text == "running"
    assert started.wait_exit() == 0


def test_a_request_whose_body_still_comes_is_refused(node):
    started = start(node)
    slow = started.connect()
    slow.send(request_bytes("POST", "/next", headers={"Content-Length": "10"}) + b"12345")
    until(lambda: started.metric("payload_bytes") > 0, "the body on its way")
    running = started.begin("GET", "/path?wait=1&name=running")
    started.wait_notes("began")
    started.send(signal.SIGTERM)
    until(lambda: is_refused(started), "new connections are refused")
    slow.send(b"67890")
    assert_problem(slow.answer(), "draining")
    started.open("go")
    assert running.answer().text == "running"
    assert started.wait_exit() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(node, number):
    started = start(node, "60s")
    connection = started.begin("GET", "/path?wait=1&name=running")
    started.wait_notes("began")
    began = time.monotonic()
    started.send(number)
    until(lambda: is_refused(started), "new connections are refused")
    assert started.process.poll() is None
    started.send(number)
    assert started.wait_exit(within=5) in (0, 1)
    assert time.monotonic() - began < 5
    started.assert_nothing_survives()
    # Whoever still waits is not left hanging.
    try:
        answer = connection.answer()
    except (ConnectionEnded, ConnectionError):
        return
    assert_problem(answer, "draining", stage="work", tries=1)


def test_a_worker_that_does_not_listen_does_not_hold_up_the_end(node):
    started = node(
        """
        drain: 300ms
        stages: {deaf: {python: "app:deaf", grace: 300ms}}
        routes: [{path: /deaf, pipeline: deaf}]
        """,
        app="""
        import signal, time
        import marks

        def deaf(request):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            marks.note("deaf")
            while True:
                time.sleep(60)
        """,
    )
    connection = started.begin("GET", "/deaf")
    started.wait_notes("deaf")
    began = time.monotonic()
    started.send(signal.SIGTERM)
    assert_problem(connection.answer(), "draining", stage="deaf", tries=1)
    assert started.wait_exit() == 0
    assert time.monotonic() - began < 6
    started.assert_nothing_survives()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_warm_up(node, number):
    started = node(
        """
        drain: 500ms
        stages: {slow: {python: "app:work", grace: 300ms}}
        routes: [{path: /slow, pipeline: slow}]
        """,
        wait="listening",
        app="""
        import marks, time
        marks.note("warming")
        time.sleep(60)

        def work(value):
            return 1
        """,
    )
    started.wait_notes("warming")
    waiting = started.begin("GET", "/slow")
    until(lambda: started.metric("queue_depth", stage="slow") == 1, "one waits")
    began = time.monotonic()
    started.send(number)
    assert_problem(waiting.answer(), "draining", stage="slow", saying="shut down")
    assert started.wait_exit() == 0
    assert time.monotonic() - began < 4
    assert "ready" not in started.output
    started.assert_nothing_survives()


def test_a_stop_right_after_the_start(node):
    started = start(node, wait=None)
    # As soon as it catches signals at all.
    started.wait_listening()
    started.send(signal.SIGTERM)
    assert started.wait_exit() == 0
    started.assert_nothing_survives()


def test_a_stop_while_a_stage_is_broken(node):
    started = node(
        """
        stages: {bad: {python: "bad:work"}}
        routes: [{path: /bad, pipeline: bad}]
        """,
        wait="listening",
        bad="raise OSError",
    )
    started.wait_log("the stage is broken")
    began = time.monotonic()
    started.stop()
    assert time.monotonic() - began < 3


def test_the_unix_socket_is_gone_after_the_end(node):
    started = start(node)
    path = started.address("api")
    started.stop()
    assert not [entry for entry in (started.runtime / "evener").iterdir() if entry.name.endswith(".sock")], path


def test_nobody_is_left_waiting_under_load(node):
    started = start(node, "5s")
    kept = [started.connect() for _ in range(30)]
    for number, connection in enumerate(kept):
        connection.send(request_bytes("GET", f"/path?name={number}") * 3)
    started.wait_notes("began", 5)
    started.send(signal.SIGTERM)
    for number, connection in enumerate(kept):
        # Each got an answer, or the end of the connection before its request was taken.
        for _ in range(3):
            try:
                answer = connection.answer()
            except (ConnectionEnded, ConnectionError):
                break
            if answer.status == 200:
                assert answer.text == str(number)
            else:
                assert_problem(answer, "draining")
    assert started.wait_exit() == 0
    started.assert_nothing_survives()


def test_a_node_stops_while_it_reads_a_file_that_never_comes(node):
    """The service file is a pipe that nobody writes to: what runs goes on, and signals are heeded."""
    started = start(node)
    (started.folder / "service.yaml").unlink()
    os.mkfifo(started.folder / "service.yaml")
    started.send(signal.SIGHUP)
    # As soon as it is opened to be read, it can be opened to be written to.
    until(lambda: opens(started.folder / "service.yaml"), "the file to be read")
    assert started.get("/next").text == "next"
    started.stop(within=10)


def opens(pipe):
    """Whether somebody reads from a pipe. Nothing is written, and it stays open."""
    try:
        KEPT.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


KEPT = []


def test_a_file_may_come_by_a_pipe_once_it_is_whole(node):
    started = start(node)
    text = (started.folder / "service.yaml").read_text()
    (started.folder / "service.yaml").unlink()
    os.mkfifo(started.folder / "service.yaml")
    started.send(signal.SIGHUP)
    with (started.folder / "service.yaml").open("w") as pipe:
        pipe.write(text.replace("grace: 200ms}\nroutes", "grace: 100ms}\nroutes"))
    started.wait_log("nothing has changed|has taken over")
    assert started.get("/next").text == "next"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_stops_though_its_warden_does_not_answer(node, number):
    started = start(node)
    started.warden.send(signal.SIGSTOP)
    began = time.monotonic()
    started.send(number)
    assert started.wait_exit(within=20) == 0
    assert time.monotonic() - began < 15
    started.assert_nothing_survives()


def test_a_second_signal_ends_a_node_whose_warden_does_not_answer(node):
    started = start(node)
    began_job = started.begin("GET", "/path?name=a&wait")
    started.wait_notes("began")
    started.warden.send(signal.SIGSTOP)
    started.send(signal.SIGTERM)
    started.wait_log("draining")
    began = time.monotonic()
    started.send(signal.SIGTERM)
    assert started.wait_exit(within=20) == 0
    assert time.monotonic() - began < 8
    assert_problem(began_job.answer(), "draining", stage="work", tries=1)
    started.assert_nothing_survives()


def test_an_interpreter_that_hangs_does_not_hold_up_the_node_for_ever(node, tmp_path):
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o755)
    started = node(
        f"""
stages: {{ok: {{jq: .}}}}
routes: [{{path: /ok, pipeline: ok, decode: json}}]
functions: {{default: {{interpreter: "{hangs}", workers: 1}}}}
""",
        wait="listening",
    )
    assert started.post("/ok", b"1").json == 1
    started.stop(within=15)
