"""What a stage can answer besides a value: a response, a goto, a refusal, an exception."""

import pytest

from harness import assert_problem

SERVICE = """
limits: {max_hops: 5}
stages:
  first: {python: "app:first"}
  middle: {python: "app:middle"}
  last: {python: "app:last"}
  respond: {python: "app:respond"}
  raising: {python: "app:raising"}
  loop: {python: "app:loop"}
pipelines:
  path: [first, middle, last]
  elsewhere: [middle, last]
  back: [first, middle, last, first]
routes:
  - {path: /path, pipeline: path}
  - {path: /respond, pipeline: respond, input: body}
  - {path: /raise, pipeline: raising, input: body}
  - {path: /loop, pipeline: loop, input: body, decode: json}
"""

APP = """
    import json, sys
    import evener

    def act(request, stage, seen):
        # The query says what each stage does: first=goto:last and so on.
        verb, _, rest = request.get(stage, "next").partition(":")
        value = {"query": {**request, stage: "next"}, "seen": [*seen, stage]}
        if verb == "next":
            return value
        if verb == "goto":
            return evener.Goto(rest, value)
        if verb == "respond":
            return evener.Response({"from": stage, "seen": value["seen"]}, status=int(rest or 200))
        if verb == "abort":
            raise evener.Abort(int(rest), f"{stage} says no")
        raise LookupError(f"secret of {stage}")

    def first(value):
        if isinstance(value, evener.Request):
            return act(dict(value.query), "first", [])
        return act(value["query"], "first", value["seen"])

    def middle(value):
        return act(value["query"], "middle", value["seen"])

    def last(value):
        return act(value["query"], "last", value["seen"])

    def respond(body):
        return eval(body)

    class Own(Exception):
        pass

    def raising(body):
        exec(body)

    def loop(left):
        return evener.Goto("loop", left - 1) if left else "out"
"""


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


@pytest.fixture(scope="module")
def served_with_debug(shared_node):
    return shared_node("debug: true\n" + SERVICE, app=APP)


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("", ["first", "middle", "last"]),
        # A goto within the path moves along it, ahead or back.
        ("first=goto:last", ["first", "last"]),
        ("middle=goto:first", ["first", "middle", "first", "middle", "last"]),
        ("last=goto:middle", ["first", "middle", "last", "middle", "last"]),
        ("middle=goto:middle", ["first", "middle", "middle", "last"]),
        # A goto elsewhere: what that comes to is the answer.
        ("first=goto:elsewhere", ["first", "middle", "last"]),
        ("middle=goto:elsewhere", ["first", "middle", "middle", "last"]),
        ("first=goto:path", ["first", "first", "middle", "last"]),
        ("first=goto:middle&last=goto:back", ["first", "middle", "last", "first", "middle", "last", "first"]),
    ],
)
def test_a_goto_leads_where_it_says(served, query, seen):
    assert served.get(f"/path?{query}").json["seen"] == seen


@pytest.mark.parametrize(("stage", "seen"), [("first", 1), ("middle", 2), ("last", 3)])
@pytest.mark.parametrize("status", [200, 201, 404, 503])
def test_any_stage_may_answer(served, stage, seen, status):
    answer = served.get(f"/path?{stage}=respond:{status}")
    assert answer.status == status
    assert answer.json == {"from": stage, "seen": ["first", "middle", "last"][:seen]}
    assert answer.content_type == "application/json"


@pytest.mark.parametrize("status", [400, 404, 418, 451, 500, 599])
@pytest.mark.parametrize("stage", ["first", "last"])
def test_any_stage_may_refuse(served, stage, status):
    answer = served.get(f"/path?{stage}=abort:{status}")
    assert_problem(answer, "aborted", status=status, stage=stage, tries=1, saying=f"{stage} says no")


def test_a_goto_that_leads_nowhere(served):
    answer = served.get("/path?middle=goto:nowhere")
    assert_problem(answer, "unknown-target", stage="middle", tries=1, saying="`nowhere`")


def test_as_many_gotos_as_allowed(served):
    assert served.post("/loop", "5").text == "out"


def test_one_goto_too_many(served):
    answer = served.post("/loop", "6")
    assert_problem(answer, "too-many-hops", stage="loop", tries=1, saying="limits.max_hops allows 5")


def test_an_endless_loop_ends(served):
    assert_problem(served.post("/loop", "-1"), "too-many-hops", stage="loop", tries=1)
    assert served.post("/loop", "1").text == "out"


@pytest.mark.parametrize(
    ("expression", "status", "content_type", "body"),
    [
        ("evener.Response()", 200, None, b""),
        ('evener.Response("text", 202)', 202, "text/plain; charset=utf-8", b"text"),
        ('evener.Response(b"bytes")', 200, "application/octet-stream", b"bytes"),
        ("evener.Response([1])", 200, "application/json", b"[1]"),
        ("evener.Response(status=204)", 204, None, b""),
        ('evener.Response("<p>", headers={"Content-Type": "text/html"})', 200, "text/html", b"<p>"),
        ('evener.Response("a,b", headers=[("content-type", "text/csv")])', 200, "text/csv", b"a,b"),
        ('evener.Response("x" * 1_000_000)', 200, "text/plain; charset=utf-8", b"x" * 1_000_000),
    ],
)
def test_a_response_brings_its_status_and_content(served, expression, status, content_type, body):
    answer = served.post("/respond", expression)
    assert (answer.status, answer.content_type, answer.body) == (status, content_type, body)


def test_a_response_brings_its_headers(served):
    pairs = [("X-One", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Location", "/there")]
    answer = served.post("/respond", f"evener.Response('', 303, {pairs!r})")
    assert answer.status == 303
    assert answer.header("x-one") == "1"
    assert answer.header_values("set-cookie") == ["a=1", "b=2"]
    assert answer.header("location") == "/there"


def test_a_response_cannot_break_the_framing(served):
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked", "Connection": "close", "Evener-Request-Id": "me"}
    with served.connect() as connection:
        answer = connection.request("POST", "/respond", body=f"evener.Response('whole', headers={headers!r})".encode())
        assert answer.body == b"whole"
        assert answer.header_values("content-length") == ["5"]
        assert answer.header("transfer-encoding") is None
        assert "me" not in answer.header_values("evener-request-id")
        assert connection.request("POST", "/respond", body=b"1").json == 1


EXCEPTIONS = [
    ("raise ValueError('the secret')", "ValueError"),
    ("raise Own('the secret')", "app.Own"),
    ("1 / 0  # the secret", "ZeroDivisionError"),
    ("sys.exit('the secret')", "SystemExit"),
    ("raise KeyboardInterrupt('the secret')", "KeyboardInterrupt"),
    ("class Odd(BaseException): pass\nraise Odd('the secret')", "Odd"),
    ("(lambda f: f(f))(lambda f: f(f))  # the secret", "RecursionError"),
    ("syntax error: the secret", "SyntaxError"),
    ("raise evener.Abort(99, 'the secret')", "ValueError"),
    ("raise StopIteration('the secret')", "StopIteration"),
]


@pytest.mark.parametrize(("code", "name"), EXCEPTIONS)
def test_of_an_exception_clients_get_its_type_alone(served, code, name):
    answer = served.post("/raise", code)
    fields = assert_problem(answer, "function-failed", stage="raising", tries=1, saying=name)
    assert "cause" not in fields
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    # The worker lives on.
    assert served.post("/raise", "pass").json is None


@pytest.mark.parametrize(("code", "name"), EXCEPTIONS[:2])
def test_with_debug_clients_get_the_message_and_the_traceback(served_with_debug, code, name):
    answer = served_with_debug.post("/raise", code)
    fields = assert_problem(answer, "function-failed", stage="raising", tries=1, saying=name)
    raised = fields["cause"]["raised"]
    assert raised["message"] == "the secret"
    assert raised["type"] == name
    assert raised["traceback"].startswith("Traceback (most recent call last):")
    assert "app.py" in raised["traceback"]
    assert "in raising" in raised["traceback"]


def test_the_log_has_the_message_and_the_traceback(served):
    served.post("/raise", "raise ValueError('only for the log')")
    served.wait_log(r"Traceback \(most recent call last\):")
    served.wait_log(r"ValueError: only for the log")


def test_workers_outlive_what_their_code_raises(served):
    before = [worker.pid for worker in served.workers("app:raising")]
    for code, _ in EXCEPTIONS:
        assert served.post("/raise", code).status == 500
    assert [worker.pid for worker in served.workers("app:raising")] == before


def test_a_body_that_the_stage_finds_bad_is_the_clients_fault(node):
    served = node(
        """
        stages: {read: {python: "app:read"}}
        routes: [{path: /read, pipeline: read, input: request}]
        """,
        app="""
        def read(request):
            return [request.text(), request.json()]
        """,
    )
    assert served.post("/read", "[1]").json == ["[1]", [1]]
    assert_problem(served.post("/read", "{"), "aborted", status=400, stage="read", tries=1, saying="not JSON")
    assert_problem(served.post("/read", b"\xff"), "aborted", status=400, stage="read", tries=1, saying="not UTF-8")
