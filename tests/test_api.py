"""The node's own API: who may ask it, and what it tells."""

import os
import stat

import pytest

from harness import Connection, assert_problem, run_evener

SERVICE = """
stages: {work: {python: "app:work", workers: 2}}
routes: [{path: /work, pipeline: work}]
"""

APP = """
    def work(request):
        if "fail" in request.query:
            raise ValueError
        return 1
"""


@pytest.fixture(scope="module", params=["unix", "tcp"])
def served(request, shared_node):
    listen = 'listen: {http: "127.0.0.1:0"%s}\n' % (', api: "127.0.0.1:0"' if request.param == "tcp" else "")
    return shared_node(listen + SERVICE, app=APP)


@pytest.fixture(scope="module")
def served_on_tcp(shared_node):
    return shared_node('listen: {http: "127.0.0.1:0", api: "127.0.0.1:0"}\n' + SERVICE, app=APP)


def test_health(served):
    answer = served.api("/healthz", token=False)
    assert (answer.status, answer.text, answer.content_type) == (200, "ok\n", "text/plain; charset=utf-8")


def test_readiness(served):
    answer = served.api("/readyz", token=False)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.json == {"state": "ready", "stages": {"work": "ready"}}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_head_and_other_methods(served, path):
    head = served.api(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    for method in ("POST", "PUT", "DELETE"):
        answer = served.api(path, method=method)
        assert_problem(answer, "method-not-allowed", saying=method)
        assert {word.strip() for word in answer.header("allow").split(",")} == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer " + "0" * 64},
        {"Authorization": "Basic {token}"},
        {"Authorization": "{token}"},
        {"X-Token": "{token}"},
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/anything", "/v1/jobs"])
def test_without_the_token_nothing_is_told(served, path, headers):
    headers = {name: value.replace("{token}", served.token) for name, value in headers.items()}
    answer = served.api(path, token=False, headers=headers)
    assert_problem(answer, "unauthorized")
    assert answer.header("www-authenticate") == "Bearer"
    assert served.token not in answer.text


def test_the_token_in_the_query_does_not_count(served):
    assert_problem(served.api(f"/metrics?token={served.token}", token=False), "unauthorized")


def test_with_the_token_an_unknown_path_is_a_404(served):
    assert_problem(served.api("/anything"), "no-route", saying="/anything")


def test_the_token_is_private_and_never_told(served):
    folder = served.runtime / "evener"
    token = folder / "token"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.stat().st_uid == os.getuid()
    assert len(served.token) == 64
    int(served.token, 16)
    assert served.token not in served.log
    for process in served.family():
        assert served.token not in " ".join(process.arguments)
        assert served.token not in str(process.environment)


def test_metrics(served):
    answer = served.api("/metrics")
    assert answer.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.text.endswith("# EOF\n")
    before = served.metrics()
    for path in ("/work", "/work", "/work?fail=1"):
        served.get(path)
    after = served.metrics()

    def rise(name):
        return after[name] - before.get(name, 0)

    assert rise('evener_requests_total{result="ok"}') == 2
    assert rise('evener_requests_total{result="function-failed"}') == 1
    assert rise('evener_jobs_started_total{stage="work"}') == 3
    assert rise('evener_jobs_done_total{stage="work"}') == 2
    assert rise('evener_jobs_failed_total{stage="work"}') == 1
    assert rise("evener_request_duration_seconds_count") == 3
    assert rise('evener_job_run_seconds_count{stage="work"}') == 3
    assert after['evener_workers{stage="work"}'] == 2
    assert after['evener_workers_idle{stage="work"}'] == 2
    assert after['evener_queue_depth{stage="work"}'] == 0


def test_the_public_door_does_not_serve_the_api(served):
    for path in ("/metrics", "/readyz", "/healthz"):
        assert_problem(served.get(path), "no-route")


def test_routes_are_not_served_on_the_api(served):
    assert_problem(served.api("/work"), "no-route")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "127.0.0.1", "127.0.0.1:80", "[::1]:7070", "LOCALHOST"]
)
def test_names_of_this_machine_are_answered(served_on_tcp, host):
    assert served_on_tcp.api("/metrics", headers={"Host": host}).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""])
def test_names_of_others_are_refused(served_on_tcp, path, host):
    assert_problem(served_on_tcp.api(path, headers={"Host": host}), "forbidden-origin", saying="Host")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://evil.example:8080", "null", "http://localhost.evil"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_pages_of_others_are_refused(served_on_tcp, origin, method):
    answer = served_on_tcp.api("/metrics", method=method, headers={"Origin": origin})
    if method == "HEAD":
        assert answer.status == 403
    else:
        assert_problem(answer, "forbidden-origin", saying="Origin")


def test_pages_of_this_machine_are_answered(served_on_tcp):
    for origin in ("http://localhost:3000", "http://127.0.0.1", "https://[::1]:1"):
        assert served_on_tcp.api("/metrics", headers={"Origin": origin}).status == 200


def test_without_an_address_the_api_has_a_private_unix_socket(node):
    started = node("service: named\n" + SERVICE, app=APP)
    path = started.address("api")
    assert path == str(started.runtime / "evener" / f"named-{started.pid}.sock")
    mode = os.stat(path)
    assert stat.S_ISSOCK(mode.st_mode)
    assert started.api("/healthz", token=False).status == 200
    assert not [line for line in started.output if line.startswith("listening api http")]


def test_the_same_token_serves_the_next_node(node):
    first = node(SERVICE, app=APP)
    token = first.token
    second = node(SERVICE, app=APP, env={"XDG_RUNTIME_DIR": str(first.runtime)})
    assert (first.runtime / "evener" / "token").read_text().strip() == token
    with second.connect("api") as connection:
        answer = connection.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7070", "example.com:7070"])
def test_an_api_that_others_could_reach_is_refused(tmp_path, address):
    file = tmp_path / "service.yaml"
    file.write_text(f'service: s\nlisten: {{http: "127.0.0.1:0", api: "{address}"}}\n{SERVICE}')
    for command in ("check", "up"):
        done = run_evener(command, file)
        assert done.returncode == 2
        assert "others could reach the API at this address" in done.stderr
        assert "service.yaml:2:" in done.stderr
    file.write_text(f'service: s\nlisten: {{http: "127.0.0.1:0"}}\n{SERVICE}')
    done = run_evener("up", file, "--api", address)
    assert done.returncode == 2
    assert "--api" in done.stderr
    assert "tls" in done.stderr
    assert done.stdout == ""


def test_insecure_is_a_word_that_must_be_said(node):
    started = node('listen: {http: "127.0.0.1:0", api: {address: "0.0.0.0:0", insecure: true}}\n' + SERVICE, app=APP)
    port = int(started.url("api").rsplit(":", 1)[1])
    with Connection(("127.0.0.1", port)) as connection:
        assert connection.get("/healthz").status == 200
        assert_problem(connection.get("/metrics"), "unauthorized")


def test_a_runtime_folder_that_others_can_enter_is_refused(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text(f'service: s\nlisten: {{http: "127.0.0.1:0"}}\n{SERVICE}')
    open_to_all = tmp_path / "run" / "evener"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o755)
    done = run_evener("up", file, env={"XDG_RUNTIME_DIR": str(open_to_all.parent)})
    assert done.returncode == 1
    assert "is open to other users (its mode is 755)" in done.stderr
    assert "chmod 700" in done.stderr
    assert done.stdout == ""
