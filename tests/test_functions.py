"""What the code of a stage sees, and what it can say."""

import time

import pytest

from harness import is_uuid7

SERVICE = """
stages:
  read: {python: "app:read"}
  context: {python: "app:context", workers: 1}
  second: {python: "app:context"}
  counter: {python: "app:Counter"}
  method: {python: "app:holder.method"}
  lenient: {python: "app:lenient"}
  flaky: {python: "app:flaky", retries: 3, retry_on: [error], backoff: 10ms}
  environment: {python: "app:environment", workers: 2, env: {NUMBER: "worker {index}", OWN: "1"}, cwd: elsewhere}
pipelines:
  twice: [read_value, second]
routes:
  - {path: "/read/{name}", pipeline: read}
  - {path: "/context/{name}", pipeline: context, timeout: 7s}
  - {path: "/twice/{name}", pipeline: twice}
  - {path: /counter, pipeline: counter}
  - {path: /method, pipeline: method}
  - {path: /lenient, pipeline: lenient}
  - {path: /flaky, pipeline: flaky}
  - {path: /environment, pipeline: environment}
"""
SERVICE = SERVICE.replace("pipelines:", '  read_value: {python: "app:read_value"}\npipelines:')

APP = """
    import os, sys, time
    import evener
    import helper
    import marks

    def read(request):
        assert type(request) is evener.Request
        query = request.query
        return {
            "method": request.method, "params": request.params, "get": query.get("a"), "all": query.getlist("a"),
            "missing": query.get("none"), "default": query.get("none", "d"), "none": query.getlist("none"),
            "in": "a" in query, "header": request.headers["x-UPPER"], "body": request.body.decode(),
            "client": request.client, "repr": repr(request),
        }

    def read_value(request):
        return 1

    def context(value, ctx):
        now = time.monotonic()
        return {
            "job_id": ctx.job_id, "request_id": ctx.request_id, "tries": ctx.tries, "left": ctx.deadline - now,
            "remaining": ctx.remaining(), "cancelled": ctx.cancelled(), "check": ctx.check(),
            "path": ctx.request.path, "params": ctx.request.params, "query": ctx.request.query.pairs(),
            "agent": ctx.request.headers.get("user-agent"), "body": ctx.request.body.decode(),
            "traceparent": ctx.traceparent, "log": ctx.log.name,
        }

    class Counter:
        def __init__(self):
            self.warm = True
            self.calls = 0

        def __call__(self, request):
            self.calls += 1
            return [self.warm, self.calls]

    class Holder:
        def method(self, request):
            return "method"

    holder = Holder()

    def lenient(request, factor=3, *rest, **more):
        return factor

    def flaky(request, ctx):
        if ctx.tries < 3:
            raise OSError("not yet")
        return ctx.tries

    def environment(request):
        # So that both workers have one at hand.
        marks.note("../environment")
        marks.wait_for("../go")
        return {
            "number": os.environ["NUMBER"], "own": os.environ.get("OWN"), "cwd": os.path.basename(os.getcwd()),
            "passed": os.environ.get("PASSED_ON"), "helper": helper.NAME, "argv": sys.argv[1:],
            "stdin": sys.stdin.read() if sys.stdin else None,
        }
"""


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, env={"PASSED_ON": "yes"}, folders=["elsewhere"], app=APP, helper="NAME = 'helper'")


def test_a_request_as_the_first_stage_sees_it(served):
    answer = served.request("DELETE", "/read/a%20b?a=1&a=2&b", headers={"X-Upper": "Yes"}, body=b"body").json
    assert answer.pop("client").startswith("127.0.0.1:")
    assert answer == {
        "method": "DELETE", "params": {"name": "a b"}, "get": "1", "all": ["1", "2"], "missing": None, "default": "d",
        "none": [], "in": True, "header": "Yes", "body": "body", "repr": "<evener.Request DELETE /read/a%20b>",
    }  # fmt: skip


def test_the_context_of_a_job(served):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": trace, "User-Agent": "test"}
    answer = served.get("/context/x?q=1", headers=headers)
    context = answer.json
    assert is_uuid7(context["job_id"])
    assert context["request_id"] == answer.header("evener-request-id")
    assert context["job_id"] != context["request_id"]
    assert 6 < context["left"] <= 7
    assert 6 < context["remaining"] <= 7
    assert {key: context[key] for key in ("tries", "cancelled", "check", "path", "params", "query", "agent")} == {
        "tries": 1, "cancelled": False, "check": None, "path": "/context/x", "params": {"name": "x"},
        "query": [["q", "1"]], "agent": "test",
    }  # fmt: skip
    assert context["traceparent"] == trace
    assert context["body"] == ""


def test_without_a_trace_header_the_context_has_none(served):
    assert served.get("/context/x").json["traceparent"] == ""


def test_the_second_stage_has_the_same_request_and_a_job_of_its_own(served):
    first, second = served.get("/twice/a?q=2"), served.get("/twice/b")
    context = first.json
    assert context["request_id"] == first.header("evener-request-id")
    assert (context["path"], context["query"]) == ("/twice/a", [["q", "2"]])
    assert context["job_id"] != second.json["job_id"]
    # The default of a route's timeout.
    assert 28 < context["left"] <= 30


def test_a_body_does_not_travel_with_the_context(served):
    answer = served.post("/context/x", b"the body")
    assert answer.json["body"] == ""


def test_a_class_is_made_once_and_keeps_its_state(served):
    calls = [served.get("/counter").json for _ in range(3)]
    assert calls == [[True, 1], [True, 2], [True, 3]]


def test_a_method_of_an_object_can_be_a_target(served):
    assert served.get("/method").text == "method"


def test_a_second_argument_with_a_default_is_the_functions_own(served):
    assert served.get("/lenient").json == 3


def test_an_error_is_tried_again_where_the_stage_says_so(served):
    assert served.get("/flaky").json == 3


def test_where_stage_code_runs_and_with_which_environment(served):
    connections = [served.begin("GET", "/environment") for _ in range(2)]
    served.wait_notes("environment", 2)
    served.open("go")
    seen = [connection.answer().json for connection in connections]
    assert sorted(one.pop("number") for one in seen) == ["worker 0", "worker 1"]
    assert seen[0] == seen[1]
    assert seen[0] == {
        "own": "1", "cwd": "elsewhere", "passed": "yes", "helper": "helper", "argv": [], "stdin": "",
    }  # fmt: skip


def test_the_class_warms_up_before_the_service_is_ready(node):
    started = node(
        """
        stages: {model: {python: "app:Model"}}
        routes: [{path: /model, pipeline: model, timeout: 20s}]
        """,
        wait="listening",
        app="""
        import marks

        class Model:
            def __init__(self):
                marks.note("warming")
                marks.wait_for("go")

            def __call__(self, request):
                return "warm"
        """,
    )
    started.wait_notes("warming")
    assert started.readiness() == {"state": "starting", "stages": {"model": "starting"}}
    # A request that comes meanwhile waits for it.
    with started.begin("GET", "/model") as waiting:
        assert "ready" not in started.output
        assert not waiting.has_something()
        began = time.monotonic()
        started.open("go")
        assert waiting.answer().text == "warm"
        assert time.monotonic() - began < 2
    started.wait_ready()
    assert started.notes("warming") == [""]
    assert started.readiness() == {"state": "ready", "stages": {"model": "ready"}}
