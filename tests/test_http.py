"""HTTP/1.1 as clients meet it: connections, methods, paths, ids."""

import pytest

from harness import assert_problem, is_uuid7
from harness.client import ConnectionEnded, request_bytes

SERVICE = """
stages:
  tell: {python: "app:tell"}
  slow: {python: "app:slow", workers: 2}
routes:
  - {path: /, pipeline: tell, methods: [GET]}
  - {path: "/items/{id}", pipeline: tell, methods: [GET, DELETE]}
  - {path: "/items/{id}/parts/{part}", pipeline: tell}
  - {path: "/files/{*rest}", pipeline: tell}
  - {path: /posted, pipeline: tell, methods: [POST, PUT], input: request}
  - {path: /read, pipeline: tell, methods: [GET]}
  - {path: /read, pipeline: tell, methods: [POST], input: request}
  - {path: /slow, pipeline: slow}
"""

APP = """
    import time

    def tell(request):
        return {
            "method": request.method, "path": request.path, "params": request.params, "query": request.query.pairs(),
            "headers": request.headers.pairs(), "client": request.client, "body": request.body.decode("latin-1"),
        }

    def slow(request):
        time.sleep(float(request.query["for"]))
        return request.query["name"]
"""


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


def test_a_connection_serves_many_requests(served):
    with served.connect() as connection:
        ids = [connection.get(f"/items/{number}").header("evener-request-id") for number in range(50)]
    assert all(map(is_uuid7, ids))
    assert len(set(ids)) == 50
    # Their time parts do not go back.
    times = [one[:13] for one in ids]
    assert times == sorted(times)


def test_a_client_may_ask_for_the_end_of_the_connection(served):
    with served.connect() as connection:
        answer = connection.get("/items/1", headers={"Connection": "close"})
        assert answer.status == 200
        assert answer.header("connection") == "close"
        assert connection.closed_within(5)


def test_http_1_0_gets_an_answer_and_the_end_of_the_connection(served):
    with served.connect() as connection:
        connection.send(b"GET /items/1 HTTP/1.0\r\nHost: x\r\n\r\n")
        assert connection.answer().json["params"] == {"id": "1"}
        assert connection.closed_within(5)


def test_pipelined_requests_are_answered_in_order(served):
    with served.connect() as connection:
        wanted = [f"/items/{number}" for number in range(30)]
        connection.send(b"".join(request_bytes("GET", path) for path in wanted))
        assert [connection.answer().json["path"] for _ in wanted] == wanted


def test_a_slow_first_request_is_still_answered_before_a_quick_second(served):
    with served.connect() as connection:
        names = ["first", "second", "third"]
        waits = [0.3, 0, 0]
        for name, wait in zip(names, waits, strict=True):
            connection.send(request_bytes("GET", f"/slow?name={name}&for={wait}"))
        assert [connection.answer().text for _ in names] == names


def test_pipelined_requests_of_every_kind_keep_their_answers_apart(served):
    requests = [
        ("POST", "/posted", b"one", 200),
        ("HEAD", "/items/2", b"", 200),
        ("GET", "/nowhere", b"", 404),
        ("PUT", "/posted", b"four" * 20_000, 200),
        ("DELETE", "/read", b"", 405),
        ("GET", "/items/6", b"", 200),
    ]
    with served.connect() as connection:
        connection.send(b"".join(request_bytes(method, path, body=body) for method, path, body, _ in requests))
        for method, path, body, status in requests:
            answer = connection.answer(method)
            assert answer.status == status
            if status == 200 and method != "HEAD":
                assert (answer.json["path"], answer.json["body"]) == (path, body.decode())


def test_head_is_the_answer_of_get_without_its_body(served):
    with served.connect() as connection:
        head = connection.request("HEAD", "/items/5")
        # What follows would be taken for the next answer if a body had been sent.
        get = connection.get("/items/5")
    assert (head.status, head.body) == (200, b"")
    assert head.content_type == get.content_type == "application/json"
    # The worker is told the method, so the lengths differ by that of its name.
    assert int(head.header("content-length")) == len(get.body) + len("HEAD") - len("GET")


def test_head_of_a_missing_path_has_the_head_of_the_problem(served):
    with served.connect() as connection:
        head = connection.request("HEAD", "/nowhere")
        assert (head.status, head.content_type) == (404, "application/problem+json")
        assert connection.get("/items/1").status == 200


@pytest.mark.parametrize("path", ["/nowhere", "/items", "/items/", "/items/1/", "/items/1/parts", "//items/1", "/Read"])
def test_an_unknown_path(served, path):
    assert_problem(served.get(path), "no-route", saying=path)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/items/1", {"GET", "HEAD", "DELETE"}),
        ("GET", "/posted", {"POST", "PUT"}),
        ("PATCH", "/read", {"GET", "HEAD", "POST"}),
        ("FROB", "/", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_the_route_does_not_take(served, method, path, allow):
    answer = served.request(method, path)
    assert_problem(answer, "method-not-allowed", saying=method)
    allowed = {word.strip() for word in answer.header("allow").split(",")}
    assert allowed == allow
    assert len(answer.header("allow").split(",")) == len(allowed)


def test_a_route_without_methods_takes_any(served):
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FROB"):
        answer = served.request(method, "/slow?name=any&for=0", headers={"Content-Length": "0"})
        # For a method with a body the stage gets the body, which has no query: it raises. What counts is that it ran.
        assert answer.status in (200, 500), (method, answer)
        assert answer.status == (200 if method in ("GET", "DELETE") else 500)


def test_routes_of_one_path_go_by_method(served):
    assert served.get("/read").json["method"] == "GET"
    assert served.post("/read", b"x").json["method"] == "POST"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("7", "7"),
        ("a%20b", "a b"),
        ("a%2Fb", "a/b"),
        ("%C3%A9", "é"),
        ("a+b", "a+b"),
        ("%25", "%"),
        ("%zz", "%zz"),
        ("%F0%9F%90%8D", "🐍"),
    ],
)
def test_parameters_of_the_path_are_decoded(served, sent, seen):
    answer = served.get(f"/items/{sent}").json
    assert answer["params"] == {"id": seen}
    assert answer["path"] == f"/items/{sent}"


def test_several_parameters_and_the_rest_of_a_path(served):
    assert served.get("/items/a%20b/parts/c").json["params"] == {"id": "a b", "part": "c"}
    assert served.get("/files/a/b%20c/d.txt").json["params"] == {"rest": "a/b c/d.txt"}


def test_a_parameter_that_is_not_utf8_is_refused(served):
    assert_problem(served.get("/items/%FF"), "bad-request", saying="`id`")


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("", []),
        ("?", []),
        ("?a=1&b=2&a=3", [["a", "1"], ["b", "2"], ["a", "3"]]),
        ("?a=x+y&b=x%20y&c=x%2By", [["a", "x y"], ["b", "x y"], ["c", "x+y"]]),
        ("?name=%C3%A9", [["name", "é"]]),
        ("?flag&empty=", [["flag", ""], ["empty", ""]]),
        ("?a%3Db=1%262", [["a=b", "1&2"]]),
    ],
)
def test_the_query_is_decoded(served, query, seen):
    assert served.get(f"/read{query}").json["query"] == seen


def test_a_target_in_absolute_form(served):
    with served.connect() as connection:
        answer = connection.get("http://localhost/items/3?a=1")
        assert (answer.json["path"], answer.json["query"]) == ("/items/3", [["a", "1"]])


def test_headers_arrive_in_lower_case_with_their_values(served):
    sent = [("X-One", "1"), ("x-two", "a, b"), ("X-ONE", "again"), ("X-Latin", "caf\u00e9")]
    seen = served.get("/read", headers=sent).json["headers"]
    assert [pair for pair in seen if pair[0].startswith("x-")] == [
        ["x-one", "1"], ["x-one", "again"], ["x-two", "a, b"], ["x-latin", "caf\u00e9"],
    ]  # fmt: skip
    assert ["host", "localhost"] in seen


def test_the_client_address_is_the_one_it_connected_from(served):
    with served.connect() as connection:
        host, port = connection.socket.getsockname()
        assert connection.get("/read").json["client"] == f"{host}:{port}"


def test_expect_100_continue(served):
    with served.connect() as connection:
        head = request_bytes("POST", "/posted", headers={"Expect": "100-continue", "Content-Length": "5"})
        connection.send(head)
        assert connection._until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        connection.send(b"hello")
        assert connection.answer().json["body"] == "hello"


def test_a_chunked_body_arrives_whole(served):
    with served.connect() as connection:
        connection.send(request_bytes("POST", "/posted", headers={"Transfer-Encoding": "chunked"}))
        for piece in (b"one ", b"two ", b"three"):
            connection.send(b"%x;name=value\r\n%s\r\n" % (len(piece), piece))
        connection.send(b"0\r\nX-Trailer: ignored\r\n\r\n")
        assert connection.answer().json["body"] == "one two three"
        assert connection.get("/items/1").status == 200


BROKEN = {
    "no HTTP at all": b"hello there\r\n\r\n",
    "binary": bytes(range(128, 256)) + b"\r\n\r\n",
    "a TLS handshake": bytes.fromhex("16030100f1010000ed0303") + b"\0" * 64 + b"\r\n\r\n",
    "no version": b"GET /read\r\nHost: x\r\n\r\n",
    "an unknown version": b"GET /read HTTP/9.9\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without a colon": b"GET /read HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n",
    "a space before the colon": b"GET /read HTTP/1.1\r\nHost : x\r\n\r\n",
    "a null in a header": b"GET /read HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "two lengths": b"POST /posted HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "a length that is no number": b"POST /posted HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    "a negative length": b"POST /posted HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "an unknown transfer coding": b"POST /posted HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: frob\r\n\r\n",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
def test_malformed_http_is_a_400_and_the_node_goes_on(served, sent):
    with served.connect() as connection:
        connection.send(sent)
        assert connection.answer().status == 400
        assert connection.closed_within(5)
    assert served.get("/items/1").status == 200


def test_malformed_http_is_told_as_a_problem_like_any_other(served):
    with served.connect() as connection:
        connection.send(BROKEN["a length that is no number"])
        assert_problem(connection.answer(), "bad-request")


def test_a_length_and_a_transfer_coding_at_once_cannot_smuggle_a_request(served):
    with served.connect() as connection:
        hidden = request_bytes("GET", "/items/smuggled")
        head = request_bytes("POST", "/posted", headers={"Content-Length": "5", "Transfer-Encoding": "chunked"})
        connection.send(head + b"0\r\n\r\n" + hidden)
        answers = []
        try:
            while True:
                answers.append(connection.answer())
                if answers[-1].header("connection") == "close" or len(answers) == 2:
                    break
        except ConnectionEnded:
            pass
        # Either the first is refused, or the transfer coding counts and what follows is a request of its own.
        assert answers[0].status == 400 or answers[0].json["body"] == "", answers


def test_a_chunk_that_is_no_chunk_is_a_400(served):
    with served.connect() as connection:
        connection.send(request_bytes("POST", "/posted", headers={"Transfer-Encoding": "chunked"}) + b"zz\r\nabc\r\n")
        assert_problem(connection.answer(), "bad-request", saying="body")
    assert served.get("/items/1").status == 200


def test_a_body_that_ends_early_leaves_the_node_whole(served):
    with served.connect() as connection:
        connection.send(request_bytes("POST", "/posted", headers={"Content-Length": "100"}) + b"only this")
    assert served.get("/items/1").status == 200
    assert served.metric("payload_bytes") == 0


def test_blank_lines_before_a_request_are_forgiven(served):
    with served.connect() as connection:
        connection.send(b"\r\n\r\n" + request_bytes("GET", "/items/1"))
        assert connection.answer().status == 200


def test_every_answer_carries_a_request_id_of_its_own(served):
    answers = [
        served.get("/items/1"),
        served.get("/nowhere"),
        served.post("/items/1"),
        served.get("/items/%FF"),
        served.post("/slow?name=x&for=0"),
    ]
    assert [answer.status for answer in answers] == [200, 404, 405, 400, 500]
    ids = [answer.header_values("evener-request-id") for answer in answers]
    assert all(len(one) == 1 and is_uuid7(one[0]) for one in ids)
    assert len({one[0] for one in ids}) == len(ids)
