"""Clients: how they find an engine, what they say when there is none, and how they end."""

from __future__ import annotations

import functools
import gc
import operator
import pickle
import threading
import weakref

import pytest

import evener
from client import fake
from evener import _client

gate = threading.Event()
begun = threading.Semaphore(0)


@pytest.fixture(autouse=True)
def closed_gate():
    gate.clear()
    while begun.acquire(blocking=False):
        pass
    yield
    gate.set()


def square(x):
    return x * x


def waits(x=None):
    begun.release()
    gate.wait(20)
    return x


remote = evener.function(square)


def test_a_client_calls_any_callable(node):
    with evener.Client() as client:
        assert client.submit(square, 3).result(10) == 9
        assert client.run(square, x=4) == 16
        assert list(client.map(square, range(100))) == [x * x for x in range(100)]
        assert list(client.starmap(pow, [(2, 3), (3, 2)])) == [8, 9]
        assert client.function(square).run(2) == 4
        assert client.function(retries=2)(square).run(2) == 4
        # Bound methods, partials, builtins, classes, lambdas, closures, decorated functions.
        assert client.run("a,b".split, ",") == ["a", "b"]
        assert client.run(functools.partial(pow, 2), 5) == 32
        assert client.run(len, "abc") == 3
        assert client.run(int, "7") == 7
        assert client.run(operator.itemgetter(1), "ab") == "b"
        y = 5
        closure = lambda x: x + y  # noqa: E731
        assert [client.run(closure, 1) for _ in range(3)] == [6, 6, 6]
        assert client.run(remote, 5) == 25
        assert list(client.map(lambda x: -x, [1, 2])) == [-1, -2]
        with pytest.raises(TypeError, match="something that can be called, not 3"):
            client.submit(3)


def test_a_function_is_pickled_once_and_not_for_each_call(node):
    client = evener.Client()
    for x in range(20):
        client.submit(square, x)
    assert len(node.bodies) == 1
    for x in range(20):
        client.submit(lambda: x)  # noqa: B023
    # What is seen once travels with its call, all with one body.
    assert len(node.bodies) == 2


def test_a_function_that_is_gone_is_forgotten(node):
    client = evener.Client()

    def made(x):
        return x

    client.run(made, 1)
    client.run(made, 1)
    client.run(made, 1)
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_workers_and_pools_are_known(engine):
    engine(pools=[("default", fake.PYTHON, 2), ("gpu", fake.PYTHON, 1)])
    client = evener.Client()
    workers = client.workers()
    assert [(worker.pool, worker.jobs_done, worker.busy) for worker in workers] == [
        ("default", 0, False),
        ("default", 0, False),
        ("gpu", 0, False),
    ]
    assert {worker.node for worker in workers} == {"host:1"}
    assert len({worker.pid for worker in workers}) == 3
    assert [worker.pool for worker in client.workers("gpu")] == ["gpu"]
    assert [pool.workers for pool in client.pools] == [2, 1]
    assert client.url == "unix:/fake"
    assert remote.options(pool="gpu").run(3) == 9


def test_no_engine_at_the_address_is_a_connect_error_that_names_it(bridge):
    client = evener.Client("http://127.0.0.1:1")
    with pytest.raises(
        evener.ConnectError, match=r"no engine answers at http://127\.0\.0\.1:1: .*a private engine starts"
    ) as caught:
        client.workers()
    assert isinstance(caught.value, ConnectionError)
    with pytest.raises(evener.ConnectError):
        client.__enter__()


def test_the_environment_names_the_engine(engine, monkeypatch):
    assert remote.run(2) == 4
    monkeypatch.setenv("EVENER_URL", "unix:/elsewhere")
    with pytest.raises(evener.ConnectError, match="unix:/elsewhere"):
        evener.Client().run(square, 1)


def test_a_wrong_token_is_an_authentication_error(engine):
    engine(refuse=("unauthorized", "the token is not this engine's"))
    with pytest.raises(evener.AuthenticationError, match=r"refused the token.*EVENER_TOKEN_FILE"):
        remote.run(1)


def test_another_refusal_is_told_as_it_is(engine):
    engine(refuse=("protocol", "it speaks HTTP/1.0"))
    with pytest.raises(evener.EvenerError, match=r"it speaks HTTP/1\.0"):
        remote.run(1)


def test_files_are_passed_on(node, monkeypatch, tmp_path):
    monkeypatch.setenv("EVENER_CA_FILE", "/ca.pem")
    evener.Client(token_file=tmp_path / "token").workers()
    session = node.sessions[-1]
    assert (session.token_file, session.ca_file) == (str(tmp_path / "token"), "/ca.pem")
    assert session.client.startswith("python ")


def test_an_unknown_pool_is_an_error_that_lists_those_there_are(node):
    for call in (remote.options(pool="gpu").run, remote.options(pool="gpu").submit):
        with pytest.raises(evener.UnknownPool, match="no function pool 'gpu'; it has default"):
            call(1)
    with pytest.raises(evener.UnknownPool):
        remote.options(pool="gpu").map([1])


def test_another_python_is_refused_at_submit_and_both_are_named(engine):
    engine(pools=[("default", "2.7", 1)])
    with pytest.raises(evener.PythonMismatch, match=rf"this is Python {fake.PYTHON}.*runs Python 2\.7"):
        remote.submit(1)
    engine(pools=[("default", "", 1)])
    _client.shared().close()
    assert remote.run(3) == 9


def test_a_lost_engine_fails_every_future_and_the_default_client_connects_anew(engine, node):
    held = [evener.function(waits).submit(n) for n in range(50)]
    node.lose()
    for future in held:
        assert isinstance(future.exception(10), evener.EngineLost)
        assert future.exception().code == "engine-lost"
    engine()
    assert remote.run(3) == 9
    assert remote.submit(4).result(10) == 16
    assert list(remote.map(range(3))) == [0, 1, 4]


def test_a_loss_that_nobody_noticed_is_found_out_by_the_next_call(engine, node):
    for call in (lambda: remote.run(3), lambda: remote.submit(3).result(10), lambda: next(remote.map([3]))):
        assert remote.run(2) == 4
        fake.nodes["unix:/fake"].lose()
        engine()
        assert call() == 9


def test_a_client_of_ones_own_stays_dead(node, engine):
    client = evener.Client()
    function = client.function(square)
    assert function.run(3) == 9
    node.lose()
    engine()
    for call in (
        lambda: client.submit(square, 1),
        lambda: client.run(square, 1),
        lambda: function.submit(1),
        lambda: list(client.map(square, [1])),
        client.workers,
    ):
        with pytest.raises(evener.EngineLost, match=r"the engine at unix:/fake is gone .*make a new evener\.Client"):
            call()


def test_a_run_that_waits_when_the_engine_is_lost_raises(node):
    threading.Thread(target=lambda: (begun.acquire(), node.lose())).start()
    with pytest.raises(evener.EngineLost, match="reset"):
        evener.function(waits).run()


def test_closing_fails_what_waits_and_refuses_the_rest(node):
    client = evener.Client()
    held = [client.submit(waits) for _ in range(5)]
    client.close()
    client.close()
    for future in held:
        assert isinstance(future.exception(10), evener.EngineLost)
    for call in (lambda: client.submit(square, 1), client.workers, client.__enter__):
        with pytest.raises(evener.EngineLost, match="this client was closed"):
            call()
    unused = evener.Client()
    unused.close()
    with pytest.raises(evener.EngineLost, match="was closed; make a new"):
        unused.run(square, 1)


def test_a_client_that_is_dropped_closes_once_nothing_waits(node):
    client = evener.Client()
    held = client.submit(waits, 7)
    assert begun.acquire(timeout=10)
    del client
    gc.collect()
    assert node.sessions[-1].over is None
    gate.set()
    assert held.result(10) == 7
    until = threading.Event()
    while node.sessions[-1].over is None:
        until.wait(0.001)


def test_an_idle_client_that_is_dropped_is_closed(node):
    client = evener.Client()
    assert client.run(square, 2) == 4
    del client
    gc.collect()
    assert node.sessions[-1].over == "closed"


def test_threads_that_come_first_share_one_connection(node):
    barrier = threading.Barrier(8)
    results = []

    def use():
        barrier.wait()
        results.append(remote.run(3))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [9] * 8
    assert len(node.sessions) == 1


def test_ctrl_c_in_run_stops_the_call(node, monkeypatch):
    class Interrupted(fake.Direct):
        def wait(self, timeout):
            assert begun.acquire(timeout=10)
            raise KeyboardInterrupt

    monkeypatch.setattr(fake, "Direct", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        evener.function(waits).run()
    (call,) = node.sessions[-1].calls.values()
    assert call.over


def test_a_client_is_not_for_sending(node):
    client = evener.Client()
    with pytest.raises(TypeError, match="belongs to this process"):
        pickle.dumps(client)
    assert "not connected" in repr(client)
    client.workers()
    assert repr(client) == "<evener.Client unix:/fake>"
    client.close()
    assert "was closed" in repr(client)


def test_bad_arguments_of_a_client_are_refused():
    with pytest.raises(ValueError, match="at least 1 worker"):
        evener.Client(workers=0)
    with pytest.raises(TypeError, match="whole number"):
        evener.Client(workers="2")
    with pytest.raises(ValueError, match="for a private engine"):
        evener.Client("unix:/fake", workers=2)


def test_an_installation_without_the_compiled_part_says_so(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "evener._bridge", None)
    monkeypatch.delattr(evener, "_bridge")
    with pytest.raises(ImportError, match=r"no compiled part.*install the wheel"):
        evener.Client("unix:/fake").workers()


def test_a_receiver_that_breaks_fails_all_and_hangs_nobody(node, monkeypatch, caplog):
    client = evener.Client()
    held = [client.submit(waits) for _ in range(3)]
    assert begun.acquire(timeout=10)
    session = client._live()
    node.sessions[-1].put(("nonsense",))
    for future in held:
        assert isinstance(future.exception(10), evener.EngineLost)
    assert "IndexError" in caplog.text
    with pytest.raises(evener.EngineLost):
        session.check()
