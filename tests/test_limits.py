"""Limits on what clients send: sizes, times and numbers. Each is met by a clear answer or a closed connection."""

import time

import pytest

from harness import Connection, ConnectionEnded, assert_problem, until
from harness.client import request_bytes

SERVICE = """
limits:
  body: 1000
  headers: 16KiB
  header_timeout: 700ms
  body_timeout: 700ms
  idle_timeout: 700ms
stages:
  size: {python: "app:size"}
  give: {python: "app:give"}
routes:
  - {path: /size, pipeline: size, methods: [POST]}
  - {path: /read, pipeline: size, methods: [GET], input: body}
  - {path: /large, pipeline: size, body: 100MiB}
  - {path: /give, pipeline: give}
"""

APP = """
    import time

    def size(body):
        return len(body)

    def give(request):
        time.sleep(float(request.query.get("after", 0)))
        return "x" * int(request.query["size"])
"""

# A connection that is late is closed by a sweep four times a second; the rest is room for a busy machine.
LATE = 5.0


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


def head(length=None, chunked=False, path="/size"):
    headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(length)}
    return request_bytes("POST", path, headers=headers)


def test_a_body_up_to_the_limit(served):
    assert served.post("/size", b"x" * 1000).json == 1000


@pytest.mark.parametrize("length", [1001, 10**6, 10**10, 2**63])
def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(served, length):
    with served.connect() as connection:
        connection.send(head(length))
        # Not a byte of the body was sent.
        answer = connection.answer()
    assert_problem(answer, "body-too-large", saying=f"{length} bytes, and 1000 is the most")


def test_a_body_over_the_limit_that_is_sent_all_the_same(served):
    with served.connect() as connection:
        # Small enough to be in the socket's buffers: the answer must not be lost to a reset.
        connection.send(head(2000) + b"x" * 2000)
        assert_problem(connection.answer(), "body-too-large")


def test_a_chunked_body_without_end_is_refused_at_the_limit(served):
    with served.connect() as connection:
        connection.send(head(chunked=True))

        def refused():
            # A client that is refused stops sending.
            if not connection.has_something():
                connection.send(b"64\r\n" + b"x" * 100 + b"\r\n")
            return connection.has_something()

        until(refused, "an answer", every=0.002)
        assert_problem(connection.answer(), "body-too-large", saying="more than 1000 bytes")


def test_a_giant_body_is_not_buffered(served):
    before = served.itself.resident
    with served.connect() as connection:
        connection.send(head(10 << 30))
        answer = connection.answer()
        assert answer.status == 413
    assert served.itself.resident - before < 8 << 20


def test_a_large_body_is_taken_in_and_given_back(served):
    assert served.post("/large", b"x" * 20_000_000).json == 20_000_000
    assert len(served.get("/give?size=20000000").body) == 20_000_000
    assert served.metric("payload_bytes") == 0


def test_after_headers_without_end_the_connection_is_closed(served):
    with served.connect() as connection:
        connection.send(b"GET /read HTTP/1.1\r\n" + b"X-More: x\r\n" * 2000)
        assert connection.answer().status == 431
        assert connection.closed_within(LATE)


def test_headers_up_to_the_limit(served):
    assert served.get("/read", headers={"X-Long": "x" * 15_000}).json == 0


@pytest.mark.parametrize(
    "sent",
    [
        request_bytes("GET", "/read", headers={"X-Long": "x" * 17_000}),
        request_bytes("GET", "/read?" + "x" * 17_000),
        request_bytes("GET", "/read", headers=[(f"X-{number}", "x") for number in range(1000)]),
        # A head that never ends.
        b"GET /read HTTP/1.1\r\n" + b"X-More: x\r\n" * 2000,
    ],
    ids=["one long header", "a long path", "many headers", "headers without end"],
)
def test_headers_over_the_limit(served, sent):
    with served.connect() as connection:
        connection.send(sent)
        assert_problem(connection.answer(), "headers-too-large")
    assert served.get("/read").json == 0


def test_a_client_that_says_nothing_is_closed(served):
    began = time.monotonic()
    with served.connect() as connection:
        assert connection.closed_within(LATE)
        assert time.monotonic() - began >= 0.6


def test_a_client_that_drips_its_headers_is_closed(served):
    began = time.monotonic()
    with served.connect() as connection:
        sent = 0

        def closed():
            nonlocal sent
            if connection.has_something():
                return connection.closed_within(1)
            try:
                connection.send(b"G" if sent == 0 else b"E")
            except ConnectionError:
                return True
            sent += 1
            return False

        until(closed, "the end of a connection that drips", within=LATE, every=0.05)
    # Each byte came well within the limit; the head as a whole did not.
    assert sent > 5
    assert time.monotonic() - began >= 0.6


def test_drips_after_the_first_request_are_closed_as_well(served):
    with served.connect() as connection:
        assert connection.get("/read").status == 200
        connection.send(b"GET /read HT")
        assert connection.closed_within(LATE)


def test_a_body_that_stops_coming(served):
    with served.connect() as connection:
        connection.send(head(100) + b"x" * 10)
        answer = connection.answer()
        assert_problem(answer, "body-timeout", saying="700ms")
    assert served.metric("payload_bytes") == 0


def test_a_body_that_drips_within_the_pauses_arrives(served):
    with served.connect() as connection:
        connection.send(head(10))
        for _ in range(10):
            # An honest but slow client: together longer than the pause that is allowed.
            assert not connection.has_something()
            connection.send(b"x")
            time.sleep(0.15)
        assert connection.answer().json == 10


def test_an_idle_connection_is_closed(served):
    with served.connect() as connection:
        assert connection.get("/read").status == 200
        began = time.monotonic()
        assert connection.closed_within(LATE)
        assert time.monotonic() - began >= 0.6


def test_no_limit_on_idleness_while_a_request_runs(served):
    with served.connect() as connection:
        assert connection.get("/give?size=1&after=1.5").text == "x"
        assert connection.get("/give?size=2").text == "xx"


def test_a_client_that_takes_no_byte_of_its_answer_is_closed(served):
    size = 30_000_000
    with Connection(served.address(), receive_buffer=4096) as connection:
        connection.send(request_bytes("GET", f"/give?size={size}"))
        until(lambda: served.metric("payload_bytes") >= size, "the answer on its way", within=4)
        # It is held for the client for as long as it takes some of it, and then given up.
        until(lambda: served.metric("payload_bytes") == 0, "the memory to be given back", within=LATE)
        with pytest.raises((ConnectionEnded, ConnectionError)):
            connection.answer()


def read_slowly(connection, size, pause):
    """Take an answer in small pieces; return what came and how long it took."""
    connection.send(request_bytes("GET", f"/give?size={size}"))
    began = time.monotonic()
    received = bytearray()
    while len(received) < size and (piece := connection.socket.recv(1 << 16)):
        received += piece
        # The pace of this client.
        time.sleep(pause)
    return bytes(received).partition(b"\r\n\r\n")[2], time.monotonic() - began


def test_an_answer_on_its_way_is_not_idle(node):
    started = node(SERVICE.replace("body_timeout: 700ms", "body_timeout: 60s"), app=APP)
    size = 20_000_000
    connection = Connection(started.address(), receive_buffer=32768)
    with connection:
        body, took = read_slowly(connection, size, 0.006)
    assert (len(body), body.strip(b"x")) == (size, b"")
    assert took > 1.5


def test_a_client_that_reads_slowly_is_not_one_that_does_not_read(node):
    started = node(SERVICE.replace("idle_timeout: 700ms", "idle_timeout: 60s"), app=APP)
    size = 4_000_000
    connection = Connection(started.address(), receive_buffer=4096)
    with connection:
        # Not one pause is as long as a client's may be.
        body, took = read_slowly(connection, size, 0.008)
    assert (len(body), body.strip(b"x")) == (size, b"")
    assert took > 2


def test_as_many_connections_as_allowed_and_the_next_one_waits(node):
    started = node(SERVICE.replace("limits:", "limits:\n  connections: 3").replace("700ms", "60s"), app=APP)
    kept = [started.connect() for _ in range(3)]
    assert [connection.get("/read").status for connection in kept] == [200] * 3
    fourth = started.begin("GET", "/read")
    # The others are served on, the fourth is not.
    for _ in range(20):
        assert kept[0].get("/read").status == 200
    assert not fourth.has_something()
    kept[1].close()
    assert fourth.answer().status == 200


def test_slow_clients_do_not_hold_up_honest_ones(served):
    slow = [b"", b"GET /re", head(1000) + b"x", request_bytes("GET", "/give?size=1000000")]
    connections = [served.connect() for _ in range(50)]
    for number, connection in enumerate(connections):
        connection.send(slow[number % len(slow)])
    began = time.monotonic()
    with served.connect() as honest:
        for _ in range(100):
            assert honest.get("/read").status == 200
    assert time.monotonic() - began < 5
    for connection in connections:
        connection.close()
    until(lambda: served.metric("payload_bytes") == 0, "no payload is left")
