"""Routes that web pages of other origins may use."""

import pytest

from harness import assert_problem

SERVICE = """
cors: {origins: ["https://example.org", "http://localhost:3000"]}
stages:
  show: {python: "app:show"}
  fail: {python: "app:fail"}
  reply: {python: "app:reply"}
routes:
  - {path: /default, methods: [GET, PUT], pipeline: show}
  - {path: /default, methods: [DELETE], pipeline: show, cors: false}
  - {path: /any, pipeline: show}
  - {path: /fail, pipeline: fail}
  - {path: /late, pipeline: show, body: 10}
  - {path: /reply, pipeline: reply}
  - {path: /none, pipeline: reply, cors: false}
  - {path: /health, health: true}
  - path: /all
    pipeline: show
    cors: {origins: ["*"], headers: ["*"], expose: [], max_age: 0s}
  - path: /own
    pipeline: show
    cors:
      origins: ["https://own.example"]
      methods: [GET, PATCH]
      headers: [X-One, X-Two]
      expose: [X-Three]
      credentials: true
      max_age: 1h
"""

APP = """
    from evener import Response

    def show(request):
        return {"method": getattr(request, "method", None)}

    def fail(request):
        raise RuntimeError("no")

    def reply(request):
        headers = {"Vary": "Accept", "Access-Control-Allow-Origin": "https://code.example"}
        return Response("text", status=201, headers=headers)
"""

PAGE = "https://example.org"


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


def preflight(served, path, method, origin=PAGE, headers=None):
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers is not None:
        asked["Access-Control-Request-Headers"] = headers
    return served.request("OPTIONS", path, headers=asked)


def of_cors(answer):
    return {name: value for name, value in answer.headers if name.startswith("access-control-")}


def vary(answer):
    return {word.strip() for value in answer.header_values("vary") for word in value.split(",")}


def test_the_node_answers_what_a_browser_asks_beforehand(served):
    answer = preflight(served, "/default", "PUT", headers="content-type")
    assert (answer.status, answer.body) == (204, b"")
    assert of_cors(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "PUT",
        "access-control-allow-headers": "Content-Type",
        "access-control-max-age": "600",
    }
    assert vary(answer) == {"origin", "access-control-request-method", "access-control-request-headers"}
    assert answer.header("evener-request-id")


def test_each_route_has_its_own(served):
    answer = preflight(served, "/own", "PATCH", origin="https://own.example", headers="x-one")
    assert answer.status == 204
    assert of_cors(answer) == {
        "access-control-allow-origin": "https://own.example",
        "access-control-allow-methods": "GET, PATCH",
        "access-control-allow-headers": "X-One, X-Two",
        "access-control-allow-credentials": "true",
        "access-control-max-age": "3600",
    }
    answer = served.get("/own", headers={"Origin": "https://own.example"})
    assert of_cors(answer) == {
        "access-control-allow-origin": "https://own.example",
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "X-Three",
    }


def test_every_origin(served):
    answer = preflight(served, "/all", "POST", origin="https://anybody.example", headers="x-a, x-b")
    assert of_cors(answer) == {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "x-a, x-b",
        "access-control-max-age": "0",
    }
    # With or without an origin, so that a cache may give the answer to anybody.
    for headers in ({}, {"Origin": "https://anybody.example"}):
        answer = served.get("/all", headers=headers)
        assert (answer.status, of_cors(answer)) == (200, {"access-control-allow-origin": "*"})
        assert vary(answer) == set()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://example.org", "https://example.org.evil.example", "null", "*", ""]
)
def test_others_are_told_nothing(served, origin):
    answer = preflight(served, "/default", "PUT", origin=origin)
    assert (answer.status, of_cors(answer)) == (204, {})
    answer = served.get("/default", headers={"Origin": origin})
    assert (answer.status, of_cors(answer), vary(answer)) == (200, {}, {"origin"})


def test_a_request_that_comes_from_no_page_is_told_nothing(served):
    answer = served.get("/default")
    assert (answer.status, of_cors(answer), vary(answer)) == (200, {}, {"origin"})


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "stage", "tries"),
    [("GET", "/fail", b"", "function-failed", "fail", 1), ("POST", "/late", b"x" * 11, "body-too-large", None, None)],
)
def test_a_page_may_read_problems(served, method, path, body, code, stage, tries):
    answer = served.request(method, path, headers={"Origin": PAGE}, body=body)
    assert_problem(answer, code, stage=stage, tries=tries)
    assert of_cors(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-expose-headers": "Evener-Request-Id, Evener-Fallback, Retry-After",
    }


def test_what_the_code_says_of_origins_does_not_count_unless_the_route_leaves_it_to_the_code(served):
    answer = served.get("/reply", headers={"Origin": PAGE})
    assert (answer.status, answer.header_values("access-control-allow-origin")) == (201, [PAGE])
    assert vary(answer) == {"Accept", "origin"}
    answer = served.get("/none", headers={"Origin": PAGE})
    assert of_cors(answer) == {"access-control-allow-origin": "https://code.example"}
    assert vary(answer) == {"Accept"}


def test_health_may_be_read(served):
    assert served.get("/health", headers={"Origin": PAGE}).header("access-control-allow-origin") == PAGE


def test_only_routes_with_cors_answer_beforehand(served):
    # It goes where any OPTIONS goes.
    assert preflight(served, "/none", "GET").status == 201
    assert_problem(preflight(served, "/default", "DELETE"), "method-not-allowed")
    assert_problem(preflight(served, "/default", "POST"), "method-not-allowed")
    assert_problem(preflight(served, "/nothing", "GET"), "no-route")


def test_other_options_go_to_the_stage(served):
    assert served.request("OPTIONS", "/any").status == 200
    assert served.request("OPTIONS", "/any", headers={"Origin": PAGE}).header("access-control-allow-origin") == PAGE
    assert preflight(served, "/any", "not a method").status == 200
    assert preflight(served, "/any", "PURGE").header("access-control-allow-methods") == "PURGE"
