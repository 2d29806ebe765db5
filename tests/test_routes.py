"""The keys of a route: what the first stage sees, how bodies are decoded and bounded, what stands in for a failure."""

import pytest

from harness import assert_problem, until

SERVICE = """
stages:
  show: {python: "app:show"}
  wait: {python: "app:wait", workers: 4, timeout: 10s}
  limited: {python: "app:wait", timeout: 200ms, grace: 100ms, workers: 2}
  fail: {python: "app:fail"}
  die: {python: "app:die", retries: 0}
  broken: {python: "app:missing"}
routes:
  - {path: /auto, pipeline: show}
  - {path: /body, pipeline: show, input: body}
  - {path: /request, pipeline: show, input: request}
  - {path: /json, pipeline: show, decode: json}
  - {path: /text, pipeline: show, decode: text}
  - {path: /bytes, pipeline: show, decode: bytes}
  - {path: /small, pipeline: show, body: 10}
  - {path: /quick, pipeline: wait, timeout: 200ms}
  - {path: /fallback/default, pipeline: wait, timeout: 200ms, fallback: {success: false}}
  - {path: /fallback/stage, pipeline: limited, fallback: [1, "two", null]}
  - {path: /fallback/fail, pipeline: fail, fallback: spare, fallback_on: [error]}
  - {path: /fallback/fail/timeout, pipeline: fail, fallback: spare, fallback_on: [timeout, lost, unavailable]}
  - {path: /fallback/die, pipeline: die, fallback: null, fallback_on: [lost]}
  - {path: /fallback/die/error, pipeline: die, fallback: 1, fallback_on: [error, timeout, unavailable]}
  - {path: /fallback/broken, pipeline: broken, fallback: 3.5, fallback_on: [unavailable]}
  - {path: /fallback/broken/lost, pipeline: broken, fallback: 3.5, fallback_on: [lost, error, timeout]}
"""

APP = """
    import os, time

    def show(value):
        kind = type(value).__name__
        if kind == "Request":
            return {"kind": kind, "method": value.method, "body": value.body.decode()}
        return {"kind": kind, "value": value if kind != "bytes" else value.decode("latin-1")}

    def wait(value, ctx):
        while not ctx.cancelled():
            time.sleep(0.01)

    def fail(value):
        raise RuntimeError("no")

    def die(value):
        os._exit(3)
"""


@pytest.fixture(scope="module")
def served(shared_node):
    started = shared_node(SERVICE, wait="listening", app=APP)
    started.wait_log("the stage is broken", within=20)
    # The others are up.
    for path in ("/auto", "/fallback/default", "/fallback/stage", "/fallback/fail", "/fallback/die"):
        assert started.get(path).status == 200
    return started


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_without_input_these_methods_bring_the_request(served, method):
    answer = served.request(method, "/auto")
    assert answer.status == 200
    if method != "HEAD":
        assert answer.json == {"kind": "Request", "method": method, "body": ""}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "OPTIONS"])
def test_without_input_other_methods_bring_the_body(served, method):
    answer = served.request(method, "/auto", body=b"[1]", headers={"Content-Type": "application/json"})
    assert answer.json == {"kind": "list", "value": [1]}


def test_input_body_brings_the_body_of_any_method(served):
    assert served.get("/body", body=b"hi", headers={"Content-Type": "text/plain"}).json["value"] == "hi"
    assert served.get("/body").json == {"kind": "bytes", "value": ""}


def test_input_request_brings_the_request_of_any_method(served):
    answer = served.post("/request", "[1]", "application/json")
    assert answer.json == {"kind": "Request", "method": "POST", "body": "[1]"}


def test_a_delete_may_have_a_body(served):
    assert served.request("DELETE", "/auto", body=b"why").json == {"kind": "Request", "method": "DELETE", "body": "why"}


@pytest.mark.parametrize(
    ("content_type", "body", "kind", "value"),
    [
        ("application/json", '{"a": [1, 2.5, null, true]}', "dict", {"a": [1, 2.5, None, True]}),
        ("application/json; charset=utf-8", " 7 ", "int", 7),
        ("Application/JSON", '"é"', "str", "é"),
        ("application/vnd.api+json", "[]", "list", []),
        ("application/problem+JSON;x=y", "null", "NoneType", None),
        ("text/plain", "é", "str", "é"),
        ("text/html; charset=utf-8", "<p>", "str", "<p>"),
        ("TEXT/CSV", "a,b", "str", "a,b"),
        ("text/plain", "", "str", ""),
        ("application/octet-stream", "{}", "bytes", "{}"),
        ("application/x-www-form-urlencoded", "a=1", "bytes", "a=1"),
        ("jsonish", "{}", "bytes", "{}"),
        (None, "{}", "bytes", "{}"),
    ],
)
def test_a_body_is_decoded_by_its_content_type(served, content_type, body, kind, value):
    assert served.post("/auto", body, content_type).json == {"kind": kind, "value": value}


@pytest.mark.parametrize(
    ("path", "kind", "value"),
    [("/json", "list", [1]), ("/text", "str", "[1]"), ("/bytes", "bytes", "[1]")],
)
@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "image/png"])
def test_decode_overrides_the_content_type(served, path, kind, value, content_type):
    assert served.post(path, "[1]", content_type).json == {"kind": kind, "value": value}


@pytest.mark.parametrize(
    ("path", "content_type", "body", "saying"),
    [
        ("/auto", "application/json", b"{'a': 1}", "body is not JSON: Expecting property name"),
        ("/auto", "application/json", b"", "body is not JSON: it is empty"),
        ("/auto", "application/json", b"[1, 2", "body is not JSON"),
        ("/auto", "application/json", b"[1] 2", "body is not JSON: Extra data at line 1 column 5"),
        ("/auto", "application/json", b"NaN", "NaN is not a JSON value"),
        ("/auto", "application/json", b"[" * 100_000, "nested too deeply"),
        ("/auto", "application/json", b'"\xff"', "body is not UTF-8 text: invalid start byte at byte 1"),
        ("/auto", "text/plain", b"caf\xe9", "body is not UTF-8 text"),
        ("/json", "text/plain", b"hello", "body is not JSON"),
        ("/text", None, b"\xff", "body is not UTF-8 text"),
    ],
)
def test_a_body_that_is_not_what_its_content_type_says(served, path, content_type, body, saying):
    answer = served.post(path, body, content_type)
    assert_problem(answer, "bad-body", stage="show", tries=1, saying=saying)
    assert served.post("/auto", "[1]", "application/json").json["value"] == [1]


def test_a_route_has_its_own_limit_on_bodies(served):
    assert served.post("/small", b"x" * 10).json["value"] == "x" * 10
    assert_problem(served.post("/small", b"x" * 11), "body-too-large", saying="11 bytes, and 10 is the most")
    assert served.post("/auto", b"x" * 11).status == 200


def test_a_route_without_a_fallback_shows_the_timeout(served):
    assert_problem(served.get("/quick"), "deadline-exceeded", stage="wait", tries=1, saying="`wait` was at work")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/fallback/default", {"success": False}, "deadline-exceeded"),
        ("/fallback/stage", [1, "two", None], "stage-timeout"),
        ("/fallback/fail", "spare", "function-failed"),
        ("/fallback/die", None, "worker-died"),
        ("/fallback/broken", 3.5, "stage-broken"),
    ],
)
def test_a_fallback_stands_in_for_the_failures_it_covers(served, path, body, code):
    answer = served.get(path)
    assert (answer.status, answer.json) == (200, body)
    assert answer.content_type == "application/json"
    assert answer.header("evener-fallback") == code
    assert answer.header("evener-request-id")


@pytest.mark.parametrize(
    ("path", "code", "stage", "tries"),
    [
        ("/fallback/fail/timeout", "function-failed", "fail", 1),
        ("/fallback/die/error", "worker-died", "die", 1),
        ("/fallback/broken/lost", "stage-broken", "broken", None),
    ],
)
def test_a_fallback_does_not_stand_in_for_other_failures(served, path, code, stage, tries):
    answer = served.get(path)
    assert_problem(answer, code, stage=stage, tries=tries)
    assert answer.header("evener-fallback") is None


def test_no_fallback_stands_in_for_what_the_client_did_wrong(served):
    answer = served.post("/fallback/default", "{", "application/json")
    assert_problem(answer, "bad-body", stage="wait", tries=1)


def test_requests_of_a_higher_priority_go_first(node):
    service = """
        stages: {work: {python: "app:work"}}
        routes:
          - {path: /low, pipeline: work, priority: -1}
          - {path: /usual, pipeline: work}
          - {path: /high, pipeline: work, priority: 7}
    """
    app = """
        from marks import note, wait_for

        def work(request):
            note("began", request.path)
            wait_for("go")
    """
    started = node(service, app=app)
    connections = [started.begin("GET", "/usual?first")]
    started.wait_notes("began")
    for path in ("/low", "/usual", "/high", "/low", "/high"):
        connections.append(started.begin("GET", path))
        until(lambda: started.metric("queue_depth", stage="work") == len(connections) - 1, "it waits")
    started.open("go")
    assert [connection.answer().status for connection in connections] == [200] * 6
    assert started.notes("began") == ["/usual", "/high", "/high", "/usual", "/low", "/low"]
