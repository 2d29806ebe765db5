"""How a request says whom it is for, and how its body travels: what HTTP forbids is refused."""

import pytest

from harness import assert_problem
from harness.http2 import Http2

SERVICE = """
stages:
  path: {jq: .path}
  query: {jq: .query}
  body: {jq: .}
  host: {jq: .headers.host}
routes:
  - {path: /x, pipeline: body, decode: text}
  - {path: /host, pipeline: host, methods: [GET]}
  - {path: /query, pipeline: query, methods: [GET]}
  - {path: "/caf%C3%A9", pipeline: path, methods: [GET], cors: {origins: ["http://page.example"]}}
  - {path: "/~user", pipeline: path, methods: [GET]}
  - {path: "/plus+", pipeline: path, methods: [GET]}
  - {path: "/item/{id}", pipeline: path, methods: [GET]}
"""


@pytest.fixture
def served(node):
    return node(SERVICE)


def say(served, head, body=b"", door="http"):
    with served.connect(door) as connection:
        connection.send(head.encode("latin-1").replace(b"\n", b"\r\n") + body)
        return connection.answer()


@pytest.mark.parametrize(
    ("head", "saying"),
    [
        ("GET /host HTTP/1.1\n\n", "no Host header"),
        ("GET /host HTTP/1.1\nHost: a\nHost: b\n\n", "2 Host headers"),
        ("GET /host HTTP/1.1\nHost: a\nHost: a\n\n", "2 Host headers"),
        ("GET /host HTTP/1.0\nHost: a\nHost: a\n\n", "2 Host headers"),
        ("GET /host HTTP/1.1\nHost: a b/\\@:x\n\n", "no host and port"),
        ("GET /host HTTP/1.1\nHost: user@a\n\n", "no host and port"),
        ("GET /host HTTP/1.1\nHost: a\xff\n\n", "no host and port"),
        ("GET http://b/host HTTP/1.1\nHost: a\n\n", "another than that of the request's target"),
        ("GET http://a:443/host HTTP/1.1\nHost: a\n\n", "another than that of the request's target"),
    ],
)
def test_a_host_that_is_none_is_refused(served, head, saying):
    assert_problem(say(served, head), "bad-request", saying=saying)
    refused = say(served, head.replace("/host", "/healthz"), door="api")
    assert refused.status in (400, 403)


@pytest.mark.parametrize(
    "head",
    [
        "GET /host HTTP/1.1\nHost: a\n\n",
        "GET /host HTTP/1.1\nHost: [::1]:80\n\n",
        "GET /host HTTP/1.1\nHost:\n\n",
        "GET /host HTTP/1.0\n\n",
        "GET http://a:8/host HTTP/1.1\nHost: A:8\n\n",
        "GET http://a:80/host HTTP/1.1\nHost: a\n\n",
        "GET http://a/host HTTP/1.1\nHost: a:80\n\n",
    ],
)
def test_a_host_as_it_may_be_is_taken(served, head):
    assert say(served, head).status == 200


def test_a_host_over_http2_is_that_of_the_request(served):
    with Http2(served.address()) as client:
        assert client.get("/host").json == "localhost"
        client.protocol.config.validate_outbound_headers = False
        assert client.get("/host", headers=[("host", "LOCALHOST")]).status == 200
        answer = client.get("/host", headers=[("host", "evil.example")])
        assert_problem(answer, "bad-request", saying="another than that of the request's target")


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "identity", "chunked, chunked"])
def test_a_coding_that_is_not_known_is_refused(served, coding):
    answer = say(served, f"POST /x HTTP/1.1\nHost: a\nTransfer-Encoding: {coding}\n\n", b"0\r\n\r\n")
    assert answer.status in (400, 501)


@pytest.mark.parametrize("length", ["18446744073709551615", "99999999999999999999999", "-1", "1e3"])
def test_a_length_that_is_none_is_refused(served, length):
    answer = say(served, f"POST /x HTTP/1.1\nHost: a\nContent-Length: {length}\n\n")
    assert (answer.status, answer.json["code"]) in [(400, "bad-request"), (413, "body-too-large")]


def test_a_length_beyond_any_is_one_of_a_body(served):
    beyond = "POST /x HTTP/1.1\nHost: a\nContent-Length: 18446744073709551615\n\n"
    with served.connect() as connection:
        for head in ["GET /host HTTP/1.1\nHost: a\n\n", beyond]:
            connection.send(head.encode().replace(b"\n", b"\r\n"))
            answer = connection.answer()
        assert_problem(answer, "body-too-large", saying="beyond any")
    # Only a length is one, and only of this request.
    large = "GET /host HTTP/1.1\nHost: a\nX: " + "x" * 200_000 + "\n\n"
    with served.connect() as connection:
        said = "GET /host HTTP/1.1\nHost: a\nX: 18446744073709551615\n\n"
        connection.send(said.encode().replace(b"\n", b"\r\n"))
        assert connection.answer().status == 200
        connection.send(large.encode().replace(b"\n", b"\r\n"))
        assert_problem(connection.answer(), "headers-too-large", saying="far over")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/caf%C3%A9", 200),
        ("/caf%c3%a9", 200),
        ("/%63af%c3%A9", 200),
        ("/~user", 200),
        ("/%7Euser", 200),
        ("/%7euser", 200),
        ("/plus+", 200),
        ("/plus%2B", 404),
        ("/item/%2e%2e", 200),
        ("/item/a%2Fb", 200),
        ("/item%2Fa", 404),
    ],
)
def test_equal_paths_are_one_route(served, target, status):
    assert served.get(target).status == status


def test_a_page_may_ask_for_a_path_in_any_form(served):
    headers = {"Origin": "http://page.example", "Access-Control-Request-Method": "GET"}
    for path in ("/caf%C3%A9", "/caf%c3%a9"):
        answer = served.request("OPTIONS", path, headers=headers)
        assert (answer.status, answer.header("access-control-allow-origin")) == (204, "http://page.example")


@pytest.mark.parametrize("query", ["a=%ff", "%ff=a", "a=1&b=%c3", "a=%ed%a0%80"])
def test_a_query_that_is_no_text_is_refused(served, query):
    assert_problem(served.get(f"/query?{query}"), "bad-request", saying="the query is not UTF-8")


def test_a_query_is_decoded(served):
    assert served.get("/query?a=%C3%A9+x&b=%zz").json == {"a": ["é x"], "b": ["%zz"]}
