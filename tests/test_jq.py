"""Stages that are jq programs: what they see, what they give, and what becomes of one that fails or runs away."""

import json
import time

import pytest

from harness import assert_problem, until

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


# A pattern over which a regular expression takes minutes, if the text is long.
SLOW_PATTERN = "(a?){50}" * 50 + "$"
HOSTILE = r"""
stages:
  find: {jq: 'test(.; "g")', timeout: 500ms}
  pattern: {jq: '. as $p | ("a" * 2400) | test($p)', timeout: 500ms}
  swap: {jq: 'gsub("\\s+"; " ") | length', timeout: 10s}
  double: {jq: 'reduce range(1000000) as $i (""; . + ("a", empty))', timeout: 10s}
  fork: {jq: 'def f: f, f; f', timeout: 10s}
  scan: {jq: '[scan("\\w+")] | length', timeout: 10s}
  echo: {jq: .}
routes:
"""
HOSTILE_NAMES = ["find", "pattern", "swap", "double", "fork", "scan", "echo"]


@pytest.fixture
def hostile(node):
    return node(HOSTILE + "".join(f"  - {{path: /{name}, pipeline: {name}, decode: json}}\n" for name in HOSTILE_NAMES))


def jq_workers(node):
    """The processes in which this node runs jq programs."""
    return [process for process in node.family() if process.arguments[1:] == ["jq-worker"]]


def test_a_regular_expression_ends_with_its_timeout_and_holds_up_nobody(hostile):
    began = time.monotonic()
    running = [hostile.begin("POST", "/pattern", body=json.dumps(SLOW_PATTERN).encode()) for _ in range(8)]
    slowest = 0.0
    for _ in range(50):
        asked = time.monotonic()
        assert hostile.post("/echo", b"1").json == 1
        slowest = max(slowest, time.monotonic() - asked)
    for one in running:
        assert_problem(one.answer(), "stage-timeout", stage="pattern", tries=1)
    # Two places, half a second each: those that come later are not kept waiting for one that hangs.
    assert time.monotonic() - began < 20
    assert slowest < 0.4
    # The places are free again.
    assert hostile.post("/pattern", b'"b"').json is False
    until(lambda: len(jq_workers(hostile)) <= 2, "the stopped workers to be gone")


def test_memory_of_a_program_is_bounded_whatever_it_calls(hostile):
    for path, body in [
        ("/double", b"1"),
        ("/fork", b"1"),
        ("/scan", json.dumps("ab " * 1_500_000).encode()),
        ("/swap", json.dumps(" a" * 4_000_000).encode()),
    ]:
        before = hostile.itself.peak
        answer = hostile.post(path, body, patience=60)
        if path == "/swap":
            assert answer.status in (200, 500)
        elif answer.status != 504:
            assert_problem(answer, "filter-failed", stage=path[1:], tries=1, saying="memory")
        assert hostile.itself.peak - before < 64 << 20, path
        assert all(process.peak < 400 << 20 for process in jq_workers(hostile)), path
    # A text of an ordinary size is no trouble.
    assert hostile.post("/swap", json.dumps(" a" * 5_000).encode(), patience=60).json == 10_000


def test_a_worker_that_dies_is_replaced_and_its_job_tried_again(node):
    served = node("""
stages:
  slow: {jq: 'last(range(. * 1000000))', timeout: 60s}
routes: [{path: /slow, pipeline: slow, decode: json}]
""")
    running = served.begin("POST", "/slow", body=b"3")
    until(lambda: jq_workers(served), "the program's worker")
    first = jq_workers(served)[0]
    first.kill()
    until(lambda: [one for one in jq_workers(served) if one.pid != first.pid], "another worker")
    answer = running.answer()
    assert answer.json == 2_999_999


def test_a_node_stops_while_a_regular_expression_runs(hostile):
    for _ in range(4):
        hostile.begin("POST", "/pattern", body=json.dumps(SLOW_PATTERN).encode())
    until(lambda: jq_workers(hostile), "a worker")
    began = time.monotonic()
    hostile.stop(within=15)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("body", [b'"\xff\xfe"', b'{"a": "\xc3"}', b'"\xed\xa0\x80"', b'["x", {"\x80": 1}]'])
def test_json_that_is_no_utf8_is_refused_wherever_it_is_decoded(node, body):
    served = node(
        """
stages:
  small: {jq: .}
  worker: {jq: 'if test("x")? then . else . end'}
  python: {python: "app:same"}
  argument: {command: [printf, "%s", "{{ tojson }}"]}
pipelines:
  both: [small, python]
routes:
  - {path: /small, pipeline: small, decode: json}
  - {path: /worker, pipeline: worker, decode: json}
  - {path: /both, pipeline: both, decode: json}
  - {path: /python, pipeline: python, decode: json}
  - {path: /argument, pipeline: argument, decode: json}
""",
        app="def same(value): return value",
    )
    for path in ["/small", "/worker", "/both", "/python", "/argument"]:
        answer = served.post(path, body)
        assert (answer.status, answer.json["code"]) == (400, "bad-body"), path


def test_keys_weights_turns_and_arguments_keep_to_the_same_bounds(node):
    slow = '"a" * 2400 | test($p)'
    served = node(
        f"""
stages:
  keyed: {{python: "app:same", affinity: '.p as $p | {slow}'}}
  weighed: {{python: "app:all", batch: {{max: 4, weight: '.p as $p | {slow} | 1'}}}}
  said: {{command: [printf, "%s", '{{{{ .p as $p | {slow} }}}}'], timeout: 1s}}
  plain: {{jq: .}}
routes:
  - {{path: /keyed, pipeline: keyed, decode: json}}
  - {{path: /weighed, pipeline: weighed, decode: json}}
  - {{path: /said, pipeline: said, decode: json}}
  - {{path: /fair, pipeline: plain, decode: json, fairness: '.headers["x-p"] as $p | {slow}'}}
  - {{path: /plain, pipeline: plain, decode: json}}
""",
        app="def same(value): return value\ndef all(values): return values",
    )

    def body(pattern):
        return json.dumps({"p": pattern}).encode()

    for path in ["/keyed", "/weighed", "/said"]:
        assert served.post(path, body("a+b")).status == 200, path
    assert served.post("/fair", b"1", headers=[("x-p", "a+b")]).json == 1
    # It counts as a request without a key, once its program has taken too long.
    running = [served.begin("POST", path, body=body(SLOW_PATTERN)) for path in ["/keyed", "/weighed", "/said"]]
    running.append(served.begin("POST", "/fair", body=b"7", headers=[("x-p", SLOW_PATTERN)]))
    slowest = 0.0
    for _ in range(50):
        asked = time.monotonic()
        assert served.post("/plain", b"1").json == 1
        slowest = max(slowest, time.monotonic() - asked)
    assert slowest < 0.4
    keyed, weighed, said, fair = [one.answer() for one in running]
    assert_problem(keyed, "filter-failed", stage="keyed", saying="out of time")
    assert_problem(weighed, "filter-failed", stage="weighed", saying="out of time")
    assert said.status in (500, 504)
    assert fair.json == 7


def test_those_whose_turn_is_slow_to_find_do_not_hold_up_others(node):
    """What a request counts by is looked for at the door: a crowd there costs others little."""
    served = node("""
stages: {plain: {jq: .}}
routes:
  - path: /
    pipeline: plain
    decode: json
    timeout: 20s
    fairness: '.headers["x-p"] as $p | "a" * 2400 | test($p)'
""")
    assert served.post("/", b"1", headers=[("x-p", "a+b")]).json == 1
    crowd = [served.begin("POST", "/", body=b"7", headers=[("x-p", SLOW_PATTERN)]) for _ in range(60)]
    asked = time.monotonic()
    assert served.post("/", b"1", headers=[("x-p", "a+b")]).json == 1
    assert time.monotonic() - asked < 2
    assert {one.answer().json for one in crowd} == {7}
    assert served.log.count("`fairness` gave no key") < 5


def test_runs_before_it_do_not_give_a_program_more_memory(node):
    served = node("""
stages: {letters: {jq: '"x" * . | explode | length'}}
routes: [{path: /, pipeline: letters, decode: json}]
""")

    def ask(millions):
        return served.post("/", str(millions * 1_000_000).encode()).status

    assert ask(24) == 500
    assert [ask(millions) for millions in (4, 6, 8)] == [200, 200, 200]
    # What is too much stays so, however near to it others have come.
    ask(10)
    assert ask(24) == 500
    assert all(worker.peak < (256 + 64 + 32) << 20 for worker in jq_workers(served))


def test_what_a_program_means_does_not_depend_on_where_it_runs(node):
    """The same work on a value that is done in the node, and on a large one that is not."""
    served = node("""
stages:
  work: {jq: '{sum: (.n | add), sorted: (.n | sort | .[0:3]), keys: keys, length: (.n | length)}'}
  each: {jq: ". * 2"}
pipelines:
  doubled:
    - each: .n
      do: each
routes:
  - {path: /work, pipeline: work, decode: json}
  - {path: /doubled, pipeline: doubled, decode: json}
""")
    for count in (10, 20_000):
        numbers = list(range(count, 0, -1))
        body = json.dumps({"n": numbers}).encode()
        wanted = {"sum": sum(numbers), "sorted": [1, 2, 3], "keys": ["n"], "length": count}
        assert served.post("/work", body).json == wanted
    assert served.post("/doubled", json.dumps({"n": list(range(9000))}).encode(), patience=60).json == [
        2 * number for number in range(9000)
    ]
    assert jq_workers(served)
