"""HTTP/2 for the routes: with prior knowledge, and by ALPN under TLS."""

import ssl
import time

import h2.exceptions
import pytest
import trustme

from harness import assert_problem, until
from harness.client import request_bytes
from harness.http2 import Http2

SERVICE = """
limits: {headers: 8KiB, body: 3MB, idle_timeout: 1s}
stages:
  echo: {python: "app:echo"}
  show: {python: "app:show"}
  wait: {python: "app:wait", workers: 8, on_cancel: tell}
routes:
  - {path: /echo, methods: [POST], pipeline: echo, decode: bytes}
  - {path: "/show/{name}", pipeline: show, input: request}
  - {path: /wait, pipeline: wait}
"""

APP = """
    import time
    from marks import note

    def echo(body):
        return body

    def show(request):
        return {"path": request.path, "params": request.params, "headers": dict(request.headers)}

    def wait(request, ctx):
        note("began")
        while not ctx.cancelled():
            time.sleep(0.005)
        note("cancelled")
"""


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


@pytest.fixture
def connection(served):
    with Http2(served.address()) as connection:
        yield connection


def test_many_requests_side_by_side(connection):
    bodies = {connection.send("POST", "/echo", body=b"%d" % number): b"%d" % number for number in range(100)}
    for stream, body in bodies.items():
        answer = connection.answer(stream)
        assert (answer.status, answer.body) == (200, body)
        assert answer.header("evener-request-id")
        assert answer.header("connection") is None


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_bodies_of_any_size(connection, size):
    body = bytes(range(256)) * (size // 256 + 1)
    assert connection.request("POST", "/echo", body=body[:size]).body == body[:size]


def test_a_request_looks_as_it_does_over_http_1(connection):
    headers = [("x-name", "a"), ("cookie", "a=1"), ("cookie", "b=2")]
    seen = connection.get("/show/x?y=1", headers=headers).json
    assert (seen["path"], seen["params"]) == ("/show/x", {"name": "x"})
    assert seen["headers"] == {"host": "localhost", "x-name": "a", "cookie": "a=1; b=2"}


def test_problems(connection):
    assert_problem(connection.get("/nothing"), "no-route")
    assert_problem(connection.get("/echo"), "method-not-allowed")
    assert_problem(connection.get("/show/x", headers=[("x-large", "x" * 8200)]), "headers-too-large")
    assert connection.get("/show/x").status == 200


def test_a_body_that_is_too_large(connection):
    stream = connection.send("POST", "/echo", headers=[("content-length", "3000001")], end=False)
    assert_problem(connection.answer(stream), "body-too-large", saying="3000001")
    assert connection.get("/show/x").status == 200


def test_a_head_that_is_far_too_large(connection):
    headers = [(f"x-{number}", "x" * 4000) for number in range(20)]
    assert connection.get("/show/x", headers=headers).status == 431
    assert connection.get("/show/x").status == 200


def test_who_resets_a_stream_is_gone(served, connection):
    cancelled = len(served.notes("cancelled"))
    began = len(served.notes("began"))
    stream = connection.send("GET", "/wait")
    served.wait_notes("began", began + 1)
    connection.cancel(stream)
    served.wait_notes("cancelled", cancelled + 1)
    assert connection.get("/show/x").status == 200


def test_who_closes_the_connection_is_gone_with_all_requests(served):
    cancelled = len(served.notes("cancelled"))
    began = len(served.notes("began"))
    with Http2(served.address()) as connection:
        for _ in range(3):
            connection.send("GET", "/wait")
        served.wait_notes("began", began + 3)
    served.wait_notes("cancelled", cancelled + 3)


def test_an_idle_connection_is_closed(served):
    with Http2(served.address()) as connection:
        assert connection.get("/show/x").status == 200
        assert while_open(connection) is False


def test_an_answer_that_its_client_does_not_take_is_given_up(node):
    """The socket takes bytes, and another request is served; it is the window that the client does not open."""
    started = node(SERVICE.replace("idle_timeout: 1s", "body_timeout: 1s"), app=APP)
    with Http2(started.address()) as connection:
        connection.send("GET", "/wait")
        stream = connection.send("POST", "/echo", body=b"x" * 3_000_000)
        connection.protocol.acknowledge_received_data = lambda *_: None
        assert while_open(connection) is False
        assert stream not in connection.ended
    until(lambda: started.metric("payload_bytes") == 0, "its memory is given back")


def test_an_answer_that_its_client_takes_slowly_is_given_to_the_end(node):
    started = node(SERVICE.replace("idle_timeout: 1s", "body_timeout: 1s"), app=APP)
    with Http2(started.address()) as connection:
        take = connection.protocol.acknowledge_received_data

        def take_slowly(*given):
            # About 3 s for all of it.
            time.sleep(given[0] / 1_000_000)
            take(*given)

        connection.protocol.acknowledge_received_data = take_slowly
        assert connection.request("POST", "/echo", body=b"x" * 3_000_000).body == b"x" * 3_000_000


def while_open(connection):
    while connection.receive():
        pass
    return False


def test_the_first_bytes_may_come_one_by_one(served):
    with Http2(served.address(), greet=False) as connection:
        for byte in connection.protocol.data_to_send():
            connection.socket.sendall(bytes([byte]))
        assert connection.get("/show/x").status == 200
    # Other methods begin like HTTP/2.
    for method in ("PRI", "PUT", "P"):
        with served.connect() as connection:
            for byte in request_bytes(method, "/show/x"):
                connection.send(bytes([byte]))
            assert connection.answer().status == 200
            assert connection.get("/show/x").status == 200


def test_who_says_nothing_more_than_the_beginning_is_closed(node):
    started = node(SERVICE.replace("idle_timeout: 1s", "header_timeout: 300ms"), app=APP)
    for said in (b"", b"PRI * HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with started.connect() as connection:
            connection.send(said)
            began = time.monotonic()
            while connection.socket.recv(1000):
                pass
            assert time.monotonic() - began < 5


def test_garbage_after_the_preface_ends_the_connection(served):
    with Http2(served.address()) as connection:
        connection.socket.sendall(b"\xff" * 1000)
        try:
            while connection.receive():
                pass
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass
    assert served.get("/show/x").status == 200


def test_at_the_end_answers_are_given_and_the_connection_is_closed(node):
    app = """
        from marks import note, wait_for

        def work(request):
            note("began")
            wait_for("go")
    """
    started = node('stages: {work: {python: "app:work"}}\nroutes: [{path: /, pipeline: work}]', app=app)
    with Http2(started.address()) as connection:
        stream = connection.send("GET", "/")
        started.wait_notes("began")
        started.process.terminate()
        until(lambda: started.readiness()["state"] == "draining", "the node drains")
        started.open("go")
        assert connection.answer(stream).status == 200
    assert started.wait_exit() == 0


@pytest.mark.parametrize("protocols", [["h2"], ["http/1.1"], ["h2", "http/1.1"], []])
def test_tls_agrees_on_what_both_speak(node, tmp_path, protocols):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    (tmp_path / "server.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (tmp_path / "server.key").write_bytes(certificate.private_key_pem.bytes())
    listener = f'{{address: "127.0.0.1:0", tls: {{cert: {tmp_path}/server.pem, key: {tmp_path}/server.key}}}}'
    started = node(f"listen: {{http: {listener}}}{SERVICE}", app=APP)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    if "h2" in protocols:
        with Http2(started.address(), tls=trust) as connection:
            assert connection.socket.selected_alpn_protocol() == "h2"
            assert connection.request("POST", "/echo", body=b"x").body == b"x"
    else:
        if protocols:
            trust.set_alpn_protocols(protocols)
        with started.connect(tls=trust) as connection:
            assert connection.socket.selected_alpn_protocol() == (protocols or [None])[0]
            assert connection.request("POST", "/echo", body=b"x").body == b"x"
