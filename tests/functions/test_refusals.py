"""Engines that are not there, let nobody in, or cannot do a call: typed errors that say what to do, and no waiting."""

import os
import socket
import subprocess
import sys
import threading
import time

import evener
import pytest

from functions import work
from harness import until
from harness.engine import Engine, client_of, function_pools, token_file, variables

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def shared(start_shared):
    engine = start_shared(service='listen: {api: "127.0.0.1:0"}\n')
    with variables(EVENER_INSECURE=_trusted(engine)):
        yield engine


def _first_use(url=None, **options):
    with evener.Client(url, **options) as client:
        return client.run(work.square, 2)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


# The way there


@pytest.mark.parametrize("kind", ["unix", "http", "https"])
def test_no_engine_at_the_address_is_told_at_once(tmp_path, kind):
    url = f"unix:{tmp_path}/none.sock" if kind == "unix" else f"{kind}://127.0.0.1:{_free_port()}"
    began = time.monotonic()
    with pytest.raises(evener.ConnectError) as caught:
        _first_use(url, token_file=os.devnull)
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, evener.EvenerError)
    assert url in str(caught.value)
    assert "evener up" in str(caught.value)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "url",
    ["nonsense", "ftp://localhost:1", "unix:", "http://", "http://localhost:notaport", "127.0.0.1", "http://[::1", " "],
)
def test_an_address_that_is_none_is_told_and_shown(url):
    with variables(EVENER_URL=url, EVENER_TOKEN_FILE=os.devnull):
        with pytest.raises(evener.EvenerError) as caught:
            _first_use()
    assert url.strip() in str(caught.value)
    with pytest.raises(evener.EvenerError):
        _first_use(url, token_file=os.devnull)


def test_an_empty_variable_is_none(start_private):
    with variables(EVENER_URL="", EVENER_TOKEN_FILE=""):
        client = evener.Client()
    # It would start a private engine, and names no other.
    assert "private" in repr(client)
    assert start_private(1).client.run(work.square, 2) == 4


@pytest.mark.parametrize("content", ["wrong", "0" * 64, "", "two\nlines", "\xff\n"])
def test_a_wrong_token_is_refused(shared, tmp_path, content):
    file = tmp_path / "token"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(evener.AuthenticationError) as caught:
        _first_use(shared.node.url("api"), token_file=file)
    assert shared.node.url("api") in str(caught.value)
    assert "EVENER_TOKEN_FILE" in str(caught.value)
    assert shared.node.token not in str(caught.value)


def test_a_token_file_that_is_not_there_is_named(shared, tmp_path):
    with pytest.raises(evener.EvenerError, match="no-such-token"):
        _first_use(shared.node.url("api"), token_file=tmp_path / "no-such-token")


def test_the_token_is_found_by_the_same_user(script, shared):
    trusted = {"EVENER_INSECURE": _trusted(shared)}
    env = {"EVENER_URL": shared.node.url("api"), "XDG_RUNTIME_DIR": str(shared.node.runtime), **trusted}
    started = script("import evener; print(evener.function(abs).run(-2))", env=env)
    assert started.succeed() == "2\n"
    elsewhere = script(
        "import evener; evener.function(abs).run(-2)", env={"EVENER_URL": shared.node.url("api"), **trusted}
    )
    assert elsewhere.wait() == 1
    assert elsewhere.err.splitlines()[-1].startswith(("evener.AuthenticationError: ", "evener.ConnectError: "))


def test_somebody_who_never_answers_is_given_up_in_time(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("EVENER_INSECURE", url.removeprefix("http://"))
        began = time.monotonic()
        with pytest.raises(evener.ConnectError):
            _first_use(url, token_file=_any_token(tmp_path), timeout=0.5)
        assert 0.4 < time.monotonic() - began < 3


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n", b""])
def test_somebody_who_is_no_engine_is_told_apart(tmp_path, says, monkeypatch):
    def answer(server):
        with server.accept()[0] as connection:
            connection.sendall(says)
            connection.shutdown(socket.SHUT_WR)
            # What it sends is read, so that the end of the connection is an orderly one.
            while connection.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        monkeypatch.setenv("EVENER_INSECURE", f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(evener.EvenerError) as caught:
            _first_use(f"http://127.0.0.1:{server.getsockname()[1]}", token_file=_any_token(tmp_path), timeout=2)
        assert str(server.getsockname()[1]) in str(caught.value)
        thread.join(5)


@pytest.mark.parametrize("insecure", [None, "", "1", "all", "127.0.0.1", "127.0.0.1:1", "localhost:PORT"])
def test_the_token_goes_to_no_port_that_is_not_trusted(tmp_path, monkeypatch, insecure):
    """Whoever listens there sees a connection that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.delenv("EVENER_INSECURE", raising=False)
        if insecure is not None:
            monkeypatch.setenv("EVENER_INSECURE", insecure.replace("PORT", str(port)))
        with pytest.raises(evener.AuthenticationError, match=f"EVENER_INSECURE=127.0.0.1:{port}"):
            _first_use(f"http://127.0.0.1:{port}", token_file=_any_token(tmp_path), timeout=5)
        server.settimeout(5)
        with server.accept()[0] as connection:
            connection.settimeout(5)
            assert connection.recv(1000) == b""


def _trusted(engine):
    """The address of its API, as it is named as trusted."""
    return engine.node.url("api").removeprefix("http://")


def _any_token(folder):
    file = folder / "token"
    file.write_text("0" * 64)
    return file


def test_a_private_engine_that_does_not_start_says_why(tmp_path):
    program = tmp_path / "evener"
    program.write_text("#!/bin/sh\necho 'it cannot be' >&2\nexit 3\n")
    program.chmod(0o755)
    with variables(EVENER_BIN=program, EVENER_URL=None):
        with pytest.raises(evener.ConnectError, match="exited with code 3") as caught:
            _first_use()
    assert "it cannot be" in str(caught.value)
    for missing in (tmp_path / "nonesuch", tmp_path):
        with variables(EVENER_BIN=missing, EVENER_URL=None):
            with pytest.raises(evener.ConnectError, match=str(missing)):
                _first_use()


def test_a_client_that_failed_to_connect_may_try_again(start_shared, tmp_path):
    client = evener.Client(f"unix:{tmp_path}/later.sock", token_file=_any_token(tmp_path))
    with pytest.raises(evener.ConnectError):
        client.run(work.square, 2)
    node = start_shared().node
    os.symlink(node.address("api"), tmp_path / "later.sock")
    (tmp_path / "token").write_text(node.token)
    assert client.run(work.square, 2) == 4
    client.close()


# Pools


def test_an_unknown_pool_is_named_with_those_that_are_there(shared):
    with pytest.raises(evener.UnknownPool, match=r"'nonesuch'.*default") as caught:
        shared.function(work.square, pool="nonesuch").submit(2)
    assert isinstance(caught.value, evener.EvenerError)
    with pytest.raises(evener.UnknownPool):
        list(shared.function(work.square, pool="nonesuch").map([1]))


def test_an_engine_without_functions_takes_none(shared_node):
    node = shared_node(
        'stages: {work: {python: "app:work"}}\nroutes: [{path: /work, pipeline: work}]\n',
        app="def work(value): return 1",
    )
    client = client_of(node)
    with pytest.raises(evener.UnknownPool, match="functions:"):
        client.run(work.square, 2)
    assert client.pools == []
    client.close()
    assert node.get("/work").status == 200


def test_functions_and_routes_live_side_by_side(shared_node):
    node = shared_node(
        'stages: {work: {python: "app:work"}}\nroutes: [{path: /work, pipeline: work}]\n'
        + function_pools(default="workers: 1", other="workers: 1"),
        app="def work(value): return 1",
        env={"PYTHONPATH": os.pathsep.join(sys.path[:1])},
    )
    engine = Engine(client_of(node))
    pids = {pool: engine.function(os.getpid, pool=pool).run() for pool in ("default", "other")}
    assert len(set(pids.values())) == 2
    assert {worker.pool: worker.pid for worker in engine.client.workers() if worker.pool != "work"} == pids
    assert node.get("/work").text == "1"
    with pytest.raises(evener.UnknownPool):
        engine.function(os.getpid, pool="work").run()
    engine.client.close()


def test_a_pool_whose_workers_do_not_start_says_why(shared_node, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no Python today' >&2\nexit 3\n")
    python.chmod(0o755)
    node = shared_node(f'functions: {{default: {{workers: 1, interpreter: "{python}"}}}}\n', wait="listening")
    client = client_of(node)
    # Those that came while it still tried, and those that come when that is known.
    early = client.submit(pow, 2, 3)
    error = early.exception(20)
    assert type(error) is evener.PoolUnavailable
    assert error.code == "stage-broken"
    with pytest.raises(evener.PoolUnavailable, match="default"):
        client.run(pow, 2, 3)
    # It is mended when its interpreter is.
    python.unlink()
    python.symlink_to(sys.executable)
    until(lambda: _works(client), "a pool that works again", within=40)
    client.close()


def _works(client):
    try:
        return client.run(pow, 2, 3) == 8
    except evener.PoolUnavailable:
        return False


def test_another_minor_version_is_refused_and_both_are_named(shared_node, tmp_path):
    # An interpreter that says that it is another one when it is asked.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *version_info*) echo 3.99 ;; *) exec {sys.executable} "$@" ;; esac\n')
    python.chmod(0o755)
    pools = function_pools(default=f'workers: 1, interpreter: "{python}"', same="workers: 1")
    engine = Engine(client_of(shared_node(pools)))
    assert {pool.name: pool.python for pool in engine.client.pools} == {"default": "3.99", "same": PYTHON}
    other = engine.function(lambda x: x)
    for call in (other.submit, other.run, other.map):
        with pytest.raises(evener.PythonMismatch) as caught:
            list(call([1]))
        assert f"Python {PYTHON}" in str(caught.value)
        assert "3.99" in str(caught.value)
    assert other.options(pool="same").run(3) == 3
    engine.client.close()


def test_a_pool_without_cloudpickle_says_what_to_install(start_shared, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    engine = start_shared(default="workers: 1", bare=f'workers: 1, interpreter: "{python}"')
    bare = engine.function(lambda x: x + 1, pool="bare")
    with pytest.raises(Exception, match="cloudpickle") as caught:
        bare.run(1)
    assert f"{python} -m pip install cloudpickle" in str(caught.value)
    # Functions that every Python has need nothing installed.
    assert engine.function(pow, pool="bare").run(2, 3) == 8
    assert bare.options(pool="default").run(1) == 2


# Room


def test_more_calls_than_the_queue_takes_wait_at_the_client(start_shared):
    engine = start_shared(default="workers: 2, queue: 5")
    futures = [engine.client.submit(work.square, x) for x in range(400)]
    assert [future.result(50) for future in futures] == [x * x for x in range(400)]


def test_more_bytes_than_the_engine_holds_wait_at_the_client(start_shared):
    engine = start_shared(default="workers: 2", service="limits: {memory: 16MiB}\n")
    futures = [engine.client.submit(len, bytes(3 << 20)) for _ in range(40)]
    assert [future.result(50) for future in futures] == [3 << 20] * 40


def test_a_call_that_can_never_fit_is_refused_and_does_not_wait_for_ever(start_shared):
    engine = start_shared(default="workers: 1", service="limits: {memory: 8MiB}\n")
    error = engine.client.submit(len, bytes(20 << 20)).exception(8)
    assert isinstance(error, evener.EvenerError)
    assert error.code in ("memory-full", "body-too-large")
    assert engine.client.run(len, b"abc") == 3


def test_a_window_that_is_full_of_others_stops_nobody(shared):
    """Calls far beyond what one session may have under way, from two clients."""
    other = evener.Client(shared.node.url("api"), token_file=token_file(shared.node))
    try:
        futures = [client.submit(work.square, x) for x in range(6000) for client in (shared.client, other)]
        assert [future.result(50) for future in futures[::2]] == [x * x for x in range(6000)]
        assert [future.result(50) for future in futures[1::2]] == [x * x for x in range(6000)]
    finally:
        other.close()
