"""The compiled part of the client by itself: sessions with a real engine, and what goes wrong with them.

Functions travel by reference here, as pickles of what every Python has.
"""

import builtins
import hashlib
import operator
import pickle
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import trustme
from evener._bridge import BridgeError, Session

from harness import until

SERVICE = "functions: {default: {workers: 2}, other: {workers: 1}}\n"
PYTHON = "{}.{}".format(*sys.version_info)
PRINTED, VALUE, RAISED, PROBLEM = range(4)


def blob(function):
    """A function's body, as workers take it, and its hash."""
    parts = {"format": 1, "name": function.__name__, "modules": [], "initializer": None, "key": None}
    body = pickle.dumps(parts | {"function": pickle.dumps(function)}, protocol=5)
    return hashlib.sha256(body).digest(), body


def arguments(*values):
    return pickle.dumps((values, None), protocol=5)


def connect(node, url=None, **more):
    options = {
        "token_file": str(node.runtime / "evener" / "token"),
        "ca_file": None,
        "client": "tests",
        "timeout": 10.0,
    }
    return Session(url or node.url("api"), **(options | more))


class Caller:
    """A session, and short ways to use it."""

    def __init__(self, node, **more):
        self.session = connect(node, **more)

    def order(self, function, pool="default", priority=0, timeout=None, retries=0, discard=False):
        digest, body = blob(function)
        self.session.define(digest, function.__name__, PYTHON, body)
        return SimpleNamespace(head=(digest, pool), tail=(False, retries, timeout, priority, discard))

    def submit(self, function, *values, **options):
        order = self.order(function, **options)
        return self.session.submit(*order.head, arguments(*values), *order.tail)

    def call(self, function, *values, **options):
        order = self.order(function, **options)
        return self.session.call(*order.head, arguments(*values), *order.tail)

    def outcomes(self, count):
        """The outcomes of so many calls, by their numbers."""
        found = {}
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            events = self.session.wait(1.0)
            assert events is not None, "the session is over"
            found |= {event[0]: event[1:] for event in events if event[1] != PRINTED}
        assert len(found) == count
        return found

    def value(self, function, *values, **options):
        event = self.events(self.call(function, *values, **options))[-1]
        assert event[1] == VALUE, event
        return pickle.loads(event[2])

    @staticmethod
    def events(direct):
        """All events of a call."""
        events = []
        while not events or events[-1][1] == PRINTED:
            more = direct.wait(20.0)
            assert more, "there is no outcome"
            events += more
        return events


@pytest.fixture(scope="module")
def engine(shared_node):
    return shared_node(SERVICE)


@pytest.fixture
def caller(engine):
    caller = Caller(engine)
    yield caller
    caller.session.close()


def test_a_session_says_with_whom_it_is(caller):
    session = caller.session
    assert session.version.count(".") == 2
    assert session.node
    assert session.window > 100
    assert [(name, workers) for name, _, workers in session.pools] == [("default", 2), ("other", 1)]


def test_a_value_comes_back_with_how_it_was_done(caller, engine):
    direct = caller.call(divmod, 17, 5)
    [(number, kind, value, worker, ran_ns, tries)] = caller.events(direct)
    assert (number, kind, pickle.loads(value), tries) == (direct.number, VALUE, (3, 2), 1)
    assert worker in {process.pid for process in engine.workers()}
    assert 0 < ran_ns < 10**10
    assert direct.wait(1.0) == []


def test_calls_are_numbered_and_their_events_come_from_the_session(caller):
    order = caller.order(operator.neg)
    first = caller.session.submit_many(*order.head, [arguments(number) for number in range(5000)], *order.tail)
    outcomes = caller.outcomes(5000)
    assert sorted(outcomes) == list(range(first, first + 5000))
    assert all(pickle.loads(outcomes[first + number][1]) == -number for number in range(5000))
    assert caller.session.wait(0.0) == []


@pytest.mark.parametrize("size", [0, 1, 65_000, 70_000, 1 << 20, 30_000_000])
def test_arguments_and_results_have_any_size(caller, size):
    data = bytes(range(251)) * (size // 251 + 1)
    assert caller.value(bytes, data[:size]) == data[:size]


def test_what_a_call_prints_comes_before_its_outcome(caller):
    events = caller.events(caller.call(builtins.print, "hello"))
    assert events[0][1:] == (PRINTED, 1, b"hello\n", False)
    assert events[-1][1] == VALUE
    assert [event[1] for event in caller.events(caller.call(builtins.print, "hello", discard=True))] == [VALUE]


def test_what_a_call_raises_comes_as_a_blob(caller):
    [(_, kind, raised, worker, _, tries)] = caller.events(caller.call(operator.truediv, 1, 0))
    assert (kind, pickle.loads(raised)["type"], tries) == (RAISED, "ZeroDivisionError", 1)
    assert worker


def test_a_timeout_is_a_problem(caller):
    [event] = caller.events(caller.call(time.sleep, 30, timeout=0.1))
    assert event[1:3] == (PROBLEM, "stage-timeout")


def test_an_unknown_pool_is_a_problem(caller):
    [(_, kind, code, detail, certificate, _, worker, tries)] = caller.events(caller.call(len, "", pool="nowhere"))
    assert (kind, code, certificate, worker, tries) == (PROBLEM, "unknown-pool", "", 0, 0)
    assert "default" in detail


def test_what_waits_is_cancelled_and_what_runs_only_by_force(caller):
    running = caller.call(time.sleep, 30, pool="other")
    waiting = caller.call(time.sleep, 30, pool="other")
    until(lambda: any(worker[5] for worker in caller.session.workers("other")), "the first call runs")
    assert caller.session.cancel(waiting.number, False) is True
    assert caller.events(waiting)[-1][1:3] == (PROBLEM, "cancelled")
    assert caller.session.cancel(waiting.number, False) is False
    assert caller.session.cancel(running.number, False) is False
    assert caller.session.cancel(running.number, True) is True
    assert caller.events(running)[-1][1:3] == (PROBLEM, "cancelled")


def test_workers_are_told(caller, engine):
    workers = caller.session.workers("default")
    assert {worker[0] for worker in workers} < {process.pid for process in engine.workers()}
    assert [worker[2:4] for worker in sorted(workers, key=operator.itemgetter(3))] == [("default", 0), ("default", 1)]
    assert len(caller.session.workers("")) == 3


def test_a_wait_ends_with_its_timeout(caller):
    began = time.monotonic()
    assert caller.session.wait(0.2) == []
    assert 0.15 < time.monotonic() - began < 2
    assert caller.session.wait(0) == []
    assert caller.session.wait(-1.0) == []


def test_signals_end_a_wait(caller):
    class Ring(Exception):
        pass

    def ring(*_):
        raise Ring

    direct = caller.call(time.sleep, 2)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        for wait in (caller.session.wait, direct.wait):
            began = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Ring):
                wait(None)
            assert time.monotonic() - began < 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_run_during_a_wait(caller):
    got = []
    waiting = threading.Thread(target=lambda: got.extend(caller.session.wait(20.0)))
    waiting.start()
    number = caller.submit(len, "four")
    waiting.join(20)
    assert [(event[0], pickle.loads(event[2])) for event in got] == [(number, 4)]


def test_what_makes_no_sense_is_refused(caller):
    session = caller.session
    digest, _ = blob(pow)
    for wrong, why in [
        (lambda: session.define(b"short", "f", PYTHON, b""), "a hash has 32 bytes, and this one 5"),
        (lambda: caller.submit(len, "", timeout=-1.0), "-1 is no timeout"),
        (lambda: caller.submit(len, "", timeout=float("nan")), "NaN is no timeout"),
        (lambda: session.wait(float("nan")), "not a number is none"),
    ]:
        with pytest.raises(ValueError, match=why):
            wrong()
    with pytest.raises(TypeError):
        session.submit_many(digest, "default", [bytearray(b"no bytes")], False, 0, None, 0, False)
    with pytest.raises(BridgeError) as error:
        session.submit(digest, "default", b"", False, 0, None, 0, False)
    assert error.value.args[0] == "undefined"


def test_closing_ends_all_calls(engine):
    caller = Caller(engine)
    numbers = {caller.submit(time.sleep, 1) for _ in range(5)}
    direct = caller.call(time.sleep, 1)
    caller.session.close()
    caller.session.close()
    events = caller.session.wait(None)
    assert {event[0] for event in events} == numbers
    assert {event[1:3] for event in events} == {(PROBLEM, "session-closed")}
    assert caller.events(direct)[-1][2] == "session-closed"
    assert caller.session.wait(None) is None
    with pytest.raises(BridgeError) as error:
        caller.submit(len, "")
    assert error.value.args[0] == "closed"
    # The engine has taken the calls back: its workers are free as soon as what runs has ended.
    began = time.monotonic()
    assert Caller(engine).value(len, "four") == 4
    assert time.monotonic() - began < 2.5


def test_when_the_engine_dies_every_call_ends(node):
    engine = node(SERVICE)
    caller = Caller(engine)
    numbers = {caller.submit(time.sleep, 30) for _ in range(5)}
    direct = caller.call(time.sleep, 30)
    engine.process.kill()
    engine.process.wait(10)
    outcomes = caller.outcomes(5)
    assert set(outcomes) == numbers
    assert {outcome[:2] for outcome in outcomes.values()} == {(PROBLEM, "engine-lost")}
    assert "ended" in outcomes[min(numbers)][2]
    assert caller.events(direct)[-1][2] == "engine-lost"
    assert caller.session.wait(None) is None
    with pytest.raises(BridgeError) as error:
        caller.submit(len, "")
    assert error.value.args[0] == "lost"


def test_a_wrong_or_missing_token_is_told(engine, tmp_path):
    (tmp_path / "token").write_text("0" * 64)
    for place in (tmp_path / "token", tmp_path / "missing"):
        with pytest.raises(BridgeError) as error:
            connect(engine, token_file=str(place))
        assert error.value.args[0] == "unauthorized"
        assert "EVENER_TOKEN_FILE" in error.value.args[1]


def test_the_token_is_found(engine, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(engine.runtime))
    connect(engine, token_file=None).close()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    monkeypatch.setenv("EVENER_TOKEN_FILE", str(engine.runtime / "evener" / "token"))
    connect(engine, token_file=None).close()


def test_where_no_engine_listens_that_is_told(engine, monkeypatch):
    monkeypatch.setenv("EVENER_INSECURE", engine.url("http").removeprefix("http://"))
    for url, kind, part in [
        ("unix:/nonexistent", "connect", "no such socket"),
        ("http://127.0.0.1:1", "connect", "nobody listens there"),
        ("somewhere", "connect", "no scheme"),
        (engine.url("http"), "protocol", "does not speak evener.v1"),
    ]:
        with pytest.raises(BridgeError) as error:
            connect(engine, url)
        assert error.value.args[0] == kind
        assert part in error.value.args[1]


def test_tls_needs_somebody_to_trust(node, tmp_path, monkeypatch):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "empty.pem").write_text("")
    tls = f"tls: {{cert: {tmp_path}/cert.pem, key: {tmp_path}/key.pem}}"
    engine = node(f'listen: {{http: "127.0.0.1:0", api: {{address: "127.0.0.1:0", {tls}}}}}\n{SERVICE}')
    assert Caller(engine, ca_file=str(tmp_path / "ca.pem")).value(len, "four") == 4
    monkeypatch.setenv("EVENER_CA_FILE", str(tmp_path / "ca.pem"))
    connect(engine).close()
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for ca_file, part in [("ca.pem", "EVENER_CA_FILE"), ("empty.pem", "there are none"), ("missing", "missing")]:
        with pytest.raises(BridgeError) as error:
            connect(engine, ca_file=str(tmp_path / ca_file))
        assert error.value.args[0] == "connect"
        assert part in error.value.args[1]


FORK = """
import os, sys
from evener._bridge import BridgeError, Session
session = Session(*sys.argv[1:3], None, "tests", 10.0)
child = os.fork()
if child == 0:
    session.close()
    try:
        session.wait(None)
    except BridgeError as error:
        print(*error.args)
    del session
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert len(session.workers("default")) == 2
"""

# `late` is taken down when the interpreter is already about to end: threads that come back then must not do harm.
EXIT = """
import sys, threading, time, types
from test_bridge import arguments, blob
from evener._bridge import Session
session = Session(*sys.argv[1:3], None, "tests", 10.0)
hash, body = blob(time.sleep)
session.define(hash, "sleep", sys.argv[3], body)
session.submit_many(hash, "default", [arguments(1)] * 100, False, 0, None, 0, False)
direct = session.call(hash, "default", arguments(1), False, 0, None, 0, False)
for waiting in (session, direct):
    threading.Thread(target=waiting.wait, args=(None,), daemon=True).start()

class Late:
    def __del__(self, close=session.close, sleep=time.sleep):
        close()
        sleep(0.2)
        print("late")

sys.modules["late"] = types.ModuleType("late")
sys.modules["late"].late = Late()
"""


def run_script(script, engine):
    token = engine.runtime / "evener" / "token"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, engine.url("api"), token, PYTHON],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_session_is_of_no_use_after_a_fork(engine):
    done = run_script(FORK, engine)
    assert done.stderr == ""
    assert done.stdout == "closed the session belongs to the process that this one was forked from\n"


def test_a_program_ends_while_calls_run(engine, caller):
    done = run_script(EXIT, engine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "late\n", "")
    assert caller.value(len, "four") == 4
