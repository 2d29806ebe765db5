"""Steps with branches: scatter and each, what is gathered, and what becomes of the rest when one fails."""

import pytest

from harness import assert_problem

SERVICE = """
stages:
  double: {python: "app:double"}
  shout: {python: "app:shout"}
  fail: {python: "app:fail", retries: 0}
  fail_late: {python: "app:fail_late", retries: 0}
  slow: {python: "app:slow"}
  raw: {python: "app:raw"}
  early: {python: "app:early"}
  loop: {python: "app:loop"}
  die: {python: "app:die", retries: 1}
  wrap: {jq: "{got: .}"}
pipelines:
  both: [{scatter: {two: double, text: shout}}, wrap]
  nested: [{scatter: {in: [double, {scatter: {a: double, b: [double, double]}}], out: shout}}]
  failing: [{scatter: {good: slow, bad: fail_late}}]
  collected: [{scatter: {good: double, bad: fail}, on_failure: collect}]
  late: [{scatter: {good: double, late: slow}, timeout: 300ms}]
  late_collected: [{scatter: {good: double, late: slow}, timeout: 300ms, on_failure: collect}]
  instead: [{scatter: {good: double, late: slow}, timeout: 300ms, fallback: {none: true}}, wrap]
  bytes: [{scatter: {x: raw, y: double}}]
  answered: [{scatter: {x: early, y: slow}}]
  looping: [{scatter: {x: loop}}]
  dying: [{scatter: {x: die, y: double}}]
  each: [{each: .items, do: double, max_in_flight: 2}]
  each_collected: [{each: .items, do: picky, on_failure: collect}]
  each_nested: [{each: ., do: [{each: ., do: double}]}]
  picky: [pick]
routes:
"""
STAGES = """  pick: {python: "app:pick", retries: 0}
"""
APP = """
import os
import time

import evener

def double(value):
    return value * 2

def shout(value):
    return f"{value}!"

def fail(value):
    raise ValueError("no")

def fail_late(value):
    while not os.path.exists("begun"):
        time.sleep(0.005)
    raise ValueError("no")

def slow(value, ctx):
    open("begun", "w").close()
    while not ctx.cancelled():
        time.sleep(0.005)
    open("cancelled", "a").write("slow\\n")

def raw(value):
    return b"bytes"

def early(value):
    return evener.Response({"early": value}, status=203)

def loop(value):
    return evener.Goto("looping", value)

def die(value):
    if not os.path.exists("died"):
        open("died", "w").close()
        os._exit(9)
    return "survived"

def pick(value):
    if value % 2:
        raise evener.Abort(422, f"{value} is odd")
    return value
"""
PIPELINES = [line.split(":")[0].strip() for line in SERVICE.split("pipelines:\n")[1].splitlines() if "[" in line]


@pytest.fixture
def served(node):
    routes = "".join(f"  - {{path: /{name}, pipeline: {name}}}\n" for name in PIPELINES)
    return node(SERVICE.replace("stages:\n", "stages:\n" + STAGES) + routes, app=APP)


def test_what_is_gathered(served):
    def post(path, body):
        return served.post(path, body, "application/json")

    assert post("/both", b"21").json == {"got": {"two": 42, "text": "21!"}}
    assert post("/nested", b"1").json == {"in": {"a": 4, "b": 8}, "out": "1!"}
    assert post("/each", b'{"items": [3, 1, 2, "x"]}').json == [6, 2, 4, "xx"]
    assert post("/each", b'{"items": []}').json == []
    assert post("/each_nested", b"[[1, 2], [], [3]]").json == [[2, 4], [], [6]]
    # Longer than what is on its way at a time, and longer than what is done at once.
    many = list(range(2000))
    assert post("/each", f'{{"items": {many}}}'.encode()).json == [2 * number for number in many]


def test_a_branch_that_fails_and_one_that_is_late(served):
    def post(path, body=b"1"):
        return served.post(path, body, "application/json")

    assert_problem(post("/failing"), "function-failed", stage="fail_late", tries=1, saying="raised ValueError")
    served.wait_notes("cancelled", 1)
    collected = post("/collected").json
    assert collected["good"] == 2
    error = collected["bad"]["error"]
    assert (error["code"], error["status"], error["stage"]) == ("function-failed", 500, "fail")
    assert_problem(post("/late"), "scatter-timeout", stage="slow", tries=1, saying="stage `slow`")
    served.wait_notes("cancelled", 2)
    late = post("/late_collected").json
    assert (late["good"], late["late"]["error"]["code"]) == (2, "scatter-timeout")
    assert post("/instead").json == {"got": {"none": True}}
    picked = post("/each_collected", b'{"items": [2, 3, 4]}').json
    assert (picked[0], picked[1]["error"]["status"], picked[2]) == (2, 422, 4)
    assert served.metric("payload_bytes") == 0


def test_ways_out_of_a_branch(served):
    def post(path, body=b"1"):
        return served.post(path, body, "application/json")

    answer = post("/bytes")
    assert_problem(answer, "result-not-encodable", saying="`x` came to bytes")
    answer = post("/answered")
    assert (answer.status, answer.json) == (203, {"early": 1})
    assert_problem(post("/looping"), "too-many-hops", stage="loop", tries=1)
    assert post("/dying").json == {"x": "survived", "y": 2}
    answer = post("/each", b'{"items": 7}')
    assert_problem(answer, "filter-failed", stage="each.each", tries=1, saying="a number and not a list")
    assert_problem(post("/each", b"{"), "bad-body", stage="each.each", tries=1)
    readiness = served.readiness()
    assert readiness["state"] == "ready"
    assert "each.each" not in readiness["stages"]
