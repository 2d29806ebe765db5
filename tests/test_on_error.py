"""Pipelines that requests take instead of failing."""

from harness import assert_problem

APP = """
import evener

def work(value):
    raise ValueError("no")

def mend(report):
    problem = report["problem"]
    if report["value"] == "again":
        raise KeyError("no again")
    return evener.Response({"code": problem["code"], "stage": problem["stage"], "value": report["value"]}, status=503)

def waits(value):
    import time
    time.sleep(20)

def keep(report):
    return "kept"

def query(request):
    raise ValueError("no")
"""
SERVICE = """
stages:
  work: {python: "app:work"}
  query: {python: "app:query"}
  mend: {python: "app:mend"}
  brief: {jq: "{code: .problem.code, method: .value.method, query: .value.query}"}
  waits: {python: "app:waits", timeout: 50ms, grace: 50ms, retries: 0}
  keep: {python: "app:keep"}
routes:
  - {path: /waits, pipeline: waits, on_error: keep}
  - {path: /keep, pipeline: work, on_error: keep}
  - {path: /work, pipeline: work, on_error: mend}
  - {path: /query, pipeline: query, on_error: brief}
"""


def test_the_problem_and_the_value_go_another_way(node):
    served = node(SERVICE, app=APP)
    answer = served.post("/work", b'{"a": [1]}', "application/json")
    assert answer.status == 503
    assert answer.json == {"code": "function-failed", "stage": "work", "value": {"a": [1]}}
    assert served.post("/work", b"text", "text/plain").json["value"] == "text"
    assert served.post("/work", b"\xff\x00", "application/octet-stream").json["value"] is None
    assert served.get("/query?a=1").json == {"code": "function-failed", "method": "GET", "query": {"a": ["1"]}}
    # The log has it all the same, with its traceback.
    served.wait_log("stage `work` raised ValueError; the request goes the way of its `on_error`")
    assert 'raise ValueError("no")' in served.log
    # If that fails as well, the first problem is told.
    answer = served.post("/work", b'"again"', "application/json")
    served.wait_log("stage `mend` raised KeyError; that was on the way of `on_error`")
    assert_problem(answer, "function-failed", stage="work", tries=1, saying="stage `work` raised ValueError")
    # What the client did wrong is told as it is.
    assert_problem(served.post("/work", b"{", "application/json"), "bad-body", stage="work", tries=1)


def test_what_the_client_had_sent_stays_as_it_is(node):
    """Numbers that Python or the node could not hold do no harm, and none loses a digit."""
    served = node(SERVICE, app=APP)
    whole = node(
        """
        stages: {work: {python: "app:work"}, cat: {command: [cat], output: bytes}}
        routes: [{path: /, pipeline: work, on_error: cat}]
        """,
        app=APP,
    )
    for number in (b"1e400", b"12345678901234567890123", b"1.10"):
        assert b'"value":[' + number + b"]" in whole.post("/", b"[" + number + b"]", "application/json").body
    for path in ("/keep", "/waits"):
        assert served.post(path, b'{"a":1e400}', "application/json").text == "kept"
    assert served.readiness()["state"] == "ready"
