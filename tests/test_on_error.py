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

def query(request):
    raise ValueError("no")
"""
SERVICE = """
stages:
  work: {python: "app:work"}
  query: {python: "app:query"}
  mend: {python: "app:mend"}
  brief: {jq: "{code: .problem.code, method: .value.method, query: .value.query}"}
routes:
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
    # If that fails as well, the first problem is told.
    answer = served.post("/work", b'"again"', "application/json")
    assert_problem(answer, "function-failed", stage="work", tries=1, saying="stage `work` raised ValueError")
    # What the client did wrong is told as it is.
    assert_problem(served.post("/work", b"{", "application/json"), "bad-body", stage="work", tries=1)
