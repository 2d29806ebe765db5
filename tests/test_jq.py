"""Stages that are jq programs: what they see, what they give, and what becomes of one that fails or runs away."""

import time

import pytest

from harness import assert_problem

SERVICE = """
stages:
  total: {jq: "{sum: (.numbers | map(. * .) | add)}"}
  request: {jq: "{method, path, params, query, body, named: .headers[\\"x-name\\"]}"}
  echo: {jq: .}
  none: {jq: empty}
  two: {jq: ".[]"}
  endless: {jq: "def f: f; f", timeout: 500ms}
  swelling: {jq: "reduce range(64) as $i (\\"a\\"; . + .)", timeout: 5s}
  heavy: {jq: "[range(.)] | length"}
routes:
"""
NAMES = ["total", "echo", "none", "two", "endless", "swelling", "heavy"]


@pytest.fixture
def served(node):
    routes = "".join(f"  - {{path: /{name}, pipeline: {name}}}\n" for name in NAMES)
    return node(SERVICE + routes + '  - {path: "/request/{id}", pipeline: request, input: request}\n')


def test_values_in_and_out(served):
    def post(path, body, kind="application/json"):
        return served.post(path, body, kind)

    answer = post("/total", b'{"numbers": [1, 2, 3]}')
    assert (answer.status, answer.json, answer.content_type) == (200, {"sum": 14}, "application/json")
    assert post("/echo", b"caf\xc3\xa9", "text/plain").json == "caf\u00e9"
    assert post("/echo", b'{"b": 1.50, "a": [null, true, "x"]}').json == {"b": 1.5, "a": [None, True, "x"]}
    seen = served.post("/request/7?a=1&b=2&a=3", b'{"x": 1}', "application/json", headers=[("x-name", "n")]).json
    assert seen == {
        "method": "POST",
        "path": "/request/7",
        "params": {"id": "7"},
        "query": {"a": ["1", "3"], "b": ["2"]},
        "body": {"x": 1},
        "named": "n",
    }
    # Too much to be done at once.
    assert post("/heavy", b"300000").json == 300_000


def test_what_comes_to_no_value(served):
    def post(path, body, kind="application/json"):
        return served.post(path, body, kind)

    assert_problem(post("/total", b"[]"), "filter-failed", stage="total", tries=1, saying="stage `total`")
    assert_problem(post("/none", b"1"), "filter-failed", stage="none", tries=1, saying="no value")
    assert_problem(post("/two", b"[1, 2]"), "filter-failed", stage="two", tries=1, saying="more than one")
    assert_problem(post("/echo", b"{"), "bad-body", stage="echo", tries=1, saying="not JSON")
    assert_problem(
        post("/echo", b"\x00", "application/octet-stream"), "bad-body", stage="echo", tries=1, saying="these are bytes"
    )


def test_a_program_that_runs_away_is_stopped_and_holds_up_nobody(served):
    began = time.monotonic()
    running = served.begin("POST", "/endless", body=b"1", headers=[("content-type", "application/json")])
    assert served.post("/echo", b"1", "application/json").json == 1
    assert time.monotonic() - began < 0.4
    answer = running.answer()
    assert_problem(answer, "stage-timeout", stage="endless", tries=1)
    assert time.monotonic() - began < 3
    assert_problem(served.post("/swelling", b"1", "application/json"), "filter-failed", stage="swelling", tries=1)
    for _ in range(10):
        assert served.post("/echo", b"2", "application/json").json == 2
    assert served.metric("payload_bytes") == 0
