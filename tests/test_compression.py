"""Answers that are compressed for clients that take gzip."""

import gzip
import json
import random
import statistics
import threading
import time
import zlib

import pytest

from harness import assert_problem
from harness.http2 import Http2

SERVICE = """
compression: true
limits: {body: 20MB}
stages:
  echo: {python: "app:echo"}
  json: {python: "app:numbers"}
  reply: {python: "app:reply"}
  fail: {python: "app:fail"}
  stream: {python: "app:stream"}
routes:
  - {path: /text, pipeline: echo, decode: text}
  - {path: /bytes, pipeline: echo, decode: bytes}
  - {path: /json, pipeline: json}
  - {path: /reply, pipeline: reply, decode: json}
  - {path: /fail, pipeline: fail}
  - {path: /stream, pipeline: stream}
  - {path: /off, pipeline: echo, decode: text, compression: false}
"""

APP = """
    from evener import Response
    from marks import wait_for

    def echo(value):
        return value

    def numbers(value):
        return list(range(1000))

    def reply(value):
        return Response("x" * 5000, status=value["status"], headers=value["headers"])

    def fail(value):
        raise RuntimeError("no")

    def stream(value):
        for number in range(3):
            yield "x" * 3000
            wait_for(f"go{number}")
"""

TAKES = {"Accept-Encoding": "gzip, deflate, br"}
TEXT = "Text that says the same again and again. " * 50


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


def is_compressed(answer):
    """Whether it is; either way it says on what that depends."""
    assert answer.header("vary") == "accept-encoding"
    return answer.header("content-encoding") == "gzip"


def test_who_takes_gzip_gets_it(served):
    answer = served.post("/text", TEXT, headers=TAKES)
    assert is_compressed(answer)
    assert answer.content_type == "text/plain; charset=utf-8"
    assert len(answer.body) == int(answer.header("content-length")) < len(TEXT) / 5
    assert gzip.decompress(answer.body).decode() == TEXT


@pytest.mark.parametrize("accept", [None, "br", "gzip;q=0", "identity"])
def test_who_does_not_take_gzip_gets_it_as_it_is(served, accept):
    answer = served.post("/text", TEXT, headers={"Accept-Encoding": accept} if accept else {})
    assert not is_compressed(answer)
    assert answer.text == TEXT


def test_json_and_problems(served):
    answer = served.post("/json", headers=TAKES)
    assert is_compressed(answer)
    assert json.loads(gzip.decompress(answer.body)) == list(range(1000))
    assert_problem(served.post("/fail", headers=TAKES), "function-failed", stage="fail", tries=1)


@pytest.mark.parametrize(("size", "compressed"), [(0, False), (1023, False), (1024, True)])
def test_small_bodies_are_left_alone(served, size, compressed):
    answer = served.post("/text", "x" * size, headers=TAKES)
    assert (answer.header("content-encoding") == "gzip") is compressed
    assert len(gzip.decompress(answer.body) if compressed else answer.body) == size


@pytest.mark.parametrize("size", [8192, 8193, 65_537, 1_000_000, 15_000_000])
def test_large_bodies_are_compressed_as_they_go(served, size):
    generator = random.Random(size)
    text = "".join(generator.choices("abcdefghijklmnop", k=min(size, 100_000))) * (size // 100_000 + 1)
    answer = served.post("/text", text[:size], headers=TAKES)
    assert is_compressed(answer)
    assert (answer.header("transfer-encoding") == "chunked") is (size > 8192)
    assert gzip.decompress(answer.body).decode() == text[:size]


def test_nobody_waits_for_what_is_compressed_for_others(node):
    large = node(
        """
limits: {memory: 1GiB}
stages:
  text: {python: "app:text"}
  small: {jq: .}
routes:
  - {path: /text, methods: [GET], pipeline: text, input: body, compression: true}
  - {path: /small, pipeline: small, decode: json}
""",
        app="""
import random
TEXT = "".join(random.Random(7).choices("abcdefghijklmnop", k=100_000)) * 20
def text(body): return TEXT
""",
    )

    def take():
        with large.connect() as connection:
            assert is_compressed(connection.request("GET", "/text", headers=TAKES))

    clients = [threading.Thread(target=take) for _ in range(30)]
    for client in clients:
        client.start()
    waits = []
    while any(client.is_alive() for client in clients):
        asked = time.monotonic()
        assert large.post("/small", b"1", "application/json").json == 1
        waits.append(time.monotonic() - asked)
    for client in clients:
        client.join()
    # Where it is done on the node's thread, each of the thirty has its turn before this one has.
    assert statistics.median(waits) < 0.05, sorted(waits)


def test_what_gets_no_smaller_is_left_alone(served):
    answer = served.post("/bytes", b"x" * 5000, headers=TAKES)
    assert (answer.header("content-encoding"), answer.header("vary"), len(answer.body)) == (None, None, 5000)


@pytest.mark.parametrize(
    ("status", "headers", "compressed"),
    [
        (200, {"Content-Type": "text/css"}, True),
        (404, {"Content-Type": "application/vnd.x+json"}, True),
        (200, {"Content-Type": "image/png"}, False),
        (200, {"Content-Encoding": "br"}, False),
        (200, {"Cache-Control": "no-transform"}, False),
        (206, {"Content-Range": "bytes 0-4999/9999"}, False),
    ],
)
def test_what_a_stage_says_of_its_answer(served, status, headers, compressed):
    body = json.dumps({"status": status, "headers": headers})
    answer = served.post("/reply", body, headers=TAKES)
    assert answer.status == status
    assert (answer.header("content-encoding") == "gzip") is compressed
    assert len(gzip.decompress(answer.body) if compressed else answer.body) == 5000


def test_headers_that_compression_changes(served):
    body = json.dumps({"status": 200, "headers": {"ETag": '"abc"', "Vary": "Accept"}})
    answer = served.post("/reply", body, headers=TAKES)
    assert answer.header("etag") == 'W/"abc"'
    assert answer.header_values("vary") == ["Accept", "accept-encoding"]
    answer = served.post("/reply", body)
    assert answer.header("etag") == '"abc"'
    assert answer.header_values("vary") == ["Accept", "accept-encoding"]


def test_head_says_what_get_does(served):
    answers = [served.request(method, "/json", headers=TAKES) for method in ("GET", "HEAD")]
    for name in ("content-encoding", "content-length", "vary", "content-type"):
        assert answers[0].header(name) == answers[1].header(name) is not None


def test_a_route_may_do_without(served):
    answer = served.post("/off", TEXT, headers=TAKES)
    assert (answer.header("content-encoding"), answer.header("vary"), answer.text) == (None, None, TEXT)


def test_over_http_2(served):
    with Http2(served.address()) as connection:
        answer = connection.request("POST", "/text", headers=[("accept-encoding", "gzip")], body=TEXT.encode() * 100)
        assert is_compressed(answer)
        assert gzip.decompress(answer.body).decode() == TEXT * 100


def test_each_chunk_of_a_stream_comes_at_once(served):
    connection = served.begin("POST", "/stream", headers=TAKES | {"Accept": "text/event-stream"})
    head = connection._until(b"\r\n\r\n").decode().lower()
    assert "content-encoding: gzip" in head
    assert "text/event-stream" in head
    unzip = zlib.decompressobj(wbits=31)
    for number in range(3):
        text = b""
        while not text.endswith(b"\n\n"):
            text += unzip.decompress(connection._exactly(int(connection._until(b"\r\n"), 16)))
            connection._exactly(2)
        assert text == b"data: " + b"x" * 3000 + b"\n\n"
        assert not connection.has_something()
        served.open(f"go{number}")
    rest = connection._exactly(int(connection._until(b"\r\n"), 16))
    assert unzip.decompress(rest) == b""
    assert unzip.eof
