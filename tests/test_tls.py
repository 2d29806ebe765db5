"""TLS on both doors."""

import ssl

import pytest
import trustme

from harness import Connection, assert_problem, run_evener
from harness.client import request_bytes

SERVICE = """
listen:
  http: {address: "127.0.0.1:0", tls: {cert: server.pem, key: server.key}}
  api: {address: "127.0.0.1:0", tls: {cert: server.pem, key: server.key}}
limits: {header_timeout: 700ms}
stages: {size: {python: "app:size"}}
routes: [{path: /size, pipeline: size, methods: [POST]}]
"""

APP = """
    def size(body):
        return len(body)
"""


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def write_certificate(authority, folder):
    certificate = authority.issue_cert("localhost")
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (folder / "server.key").write_bytes(certificate.private_key_pem.bytes())


@pytest.fixture(scope="module")
def trust(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def served(shared_node, authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    write_certificate(authority, folder)
    text = SERVICE.replace("server.", f"{folder}/server.")
    return shared_node(text, app=APP)


def test_both_doors_say_https(served):
    assert served.url("http").startswith("https://127.0.0.1:")
    assert served.url("api").startswith("https://127.0.0.1:")


def test_requests_over_tls(served, trust):
    with served.connect(tls=trust) as connection:
        assert connection.socket.version() in ("TLSv1.2", "TLSv1.3")
        for size in (0, 5, 3_000_000, 1):
            assert connection.request("POST", "/size", body=b"x" * size).json == size
        assert_problem(connection.get("/nowhere"), "no-route")
        # Pipelined as well.
        connection.send(b"".join(request_bytes("POST", "/size", body=b"x" * size) for size in range(10)))
        assert [connection.answer().json for _ in range(10)] == list(range(10))


def test_the_api_over_tls(served, trust):
    with served.connect("api", tls=trust) as connection:
        assert connection.get("/healthz").status == 200
        assert_problem(connection.get("/metrics"), "unauthorized")
        answer = connection.get("/metrics", headers={"Authorization": f"Bearer {served.token}"})
        assert answer.status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls(served, authority, version):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    with served.connect(tls=context) as connection:
        assert connection.request("POST", "/size", body=b"12").json == 2


def test_http_1_1_is_agreed_on(served, authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["http/1.1"])
    with served.connect(tls=context) as connection:
        assert connection.socket.selected_alpn_protocol() == "http/1.1"


def test_a_client_that_does_not_trust_the_certificate_goes_away_and_the_service_stays(served, trust):
    with pytest.raises(ssl.SSLCertVerificationError):
        served.connect(tls=ssl.create_default_context())
    with served.connect(tls=trust) as connection:
        assert connection.request("POST", "/size", body=b"1").json == 1


def test_plain_http_on_a_tls_door_is_closed(served, trust):
    with served.connect() as connection:
        connection.send(request_bytes("POST", "/size", body=b"x"))
        received = connection.socket.recv(100)
        assert not received.startswith(b"HTTP/1.1 200")
    with served.connect(tls=trust) as connection:
        assert connection.request("POST", "/size", body=b"1").json == 1


def test_a_handshake_that_does_not_come_is_closed(served):
    with served.connect() as connection:
        assert connection.closed_within(5)


def test_a_client_that_leaves_without_goodbye(served, trust):
    for _ in range(20):
        connection = served.connect(tls=trust)
        connection.send(request_bytes("POST", "/size", body=b"x" * 100))
        connection.reset()
    with served.connect(tls=trust) as connection:
        assert connection.request("POST", "/size", body=b"1").json == 1
    assert served.itself is not None


def test_an_api_for_others_is_allowed_with_tls(node, authority, trust, tmp_path):
    write_certificate(authority, tmp_path)
    api = f'{{address: "0.0.0.0:0", tls: {{cert: "{tmp_path}/server.pem", key: "{tmp_path}/server.key"}}}}'
    started = node(f'listen: {{http: "127.0.0.1:0", api: {api}}}\nstages: {{size: {{python: "app:size"}}}}\n'
                   "routes: [{path: /size, pipeline: size}]\n", app=APP)  # fmt: skip
    port = int(started.url("api").rsplit(":", 1)[1])
    with Connection(("127.0.0.1", port), tls=trust) as connection:
        assert connection.get("/healthz").status == 200


def test_tls_files_that_cannot_be_used(tmp_path, authority):
    write_certificate(authority, tmp_path)
    (tmp_path / "empty.pem").write_text("")
    other = trustme.CA().issue_cert("localhost")
    (tmp_path / "other.key").write_bytes(other.private_key_pem.bytes())
    for cert, key in (("empty.pem", "server.key"), ("server.pem", "empty.pem"), ("server.pem", "other.key")):
        text = SERVICE.replace("cert: server.pem", f"cert: {cert}").replace("key: server.key", f"key: {key}")
        (tmp_path / "service.yaml").write_text("service: s\n" + text)
        done = run_evener("up", tmp_path / "service.yaml")
        assert done.returncode in (1, 2), done
        assert "cannot use the TLS files" in done.stderr
        assert cert in done.stderr
        assert key in done.stderr
        assert done.stdout == ""


def test_tls_files_that_are_missing_are_named_with_their_place(tmp_path):
    (tmp_path / "service.yaml").write_text("service: s" + SERVICE)
    done = run_evener("check", tmp_path / "service.yaml")
    assert done.returncode == 2
    assert "server.pem" in done.stderr
    assert "server.key" in done.stderr
    assert "service.yaml:3:" in done.stderr
