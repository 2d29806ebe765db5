"""The private engine: found, started, told what it needs, and ended. The program is a stand-in written in Python."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

import evener
from client import fake
from evener import _engine
from evener._engine import Engine, binary


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Have EVENER_BIN name a program that does what the given lines say, after it has read its orders."""

    def write(lines="listen()\nwait()"):
        path = tmp_path / "evener"
        path.write_text(
            f"#!{sys.executable}\n"
            "import json, os, signal, sys\n"
            "orders = json.loads(sys.stdin.readline())\n"
            "said = json.dumps([sys.argv[1:], orders, os.getcwd(), os.getpgrp()])\n"
            f"open({str(tmp_path / 'orders')!r}, 'w').write(said)\n"
            "def listen():\n    print('listening api unix:/private', 'ready', sep='\\n', flush=True)\n"
            "def wait():\n    signal.pause()\n" + textwrap.dedent(lines) + "\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("EVENER_BIN", str(path))
        return lambda: json.loads((tmp_path / "orders").read_text())

    return write


def test_it_is_told_what_it_needs_and_listens(program, monkeypatch):
    orders = program()
    monkeypatch.setattr(sys, "path", ["", "/somewhere", "relative", *sys.path])
    engine = Engine(3)
    assert engine.url == "unix:/private"
    arguments, told, folder, group = orders()
    assert arguments == ["up", "--private"]
    assert told["executable"] == sys.executable
    assert told["path"][:3] == [str(Path.cwd()), "/somewhere", str(Path.cwd() / "relative")]
    assert (told["workers"], told["parent"], folder) == (3, os.getpid(), str(Path.cwd()))
    assert group == engine.pid != os.getpgrp()
    assert engine.ending() == ""
    engine.stop()
    engine.stop()
    assert engine.ending() == "the private engine was stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(engine.pid, 0)


def test_without_a_number_it_chooses_its_workers(program):
    orders = program()
    Engine().stop()
    assert orders()[1]["workers"] is None


def test_one_that_does_not_start_says_why(program):
    program("print('no room for a socket', file=sys.stderr)\nsys.exit(2)")
    with pytest.raises(evener.ConnectError, match=r"(?s)did not start: exited with code 2.*last words.*no room"):
        Engine()


def test_one_that_is_silent_is_given_up(program, monkeypatch):
    program("wait()")
    monkeypatch.setattr(_engine, "_START_TIMEOUT", 0.2)
    with pytest.raises(evener.ConnectError, match="did not listen within"):
        Engine()


def test_its_end_is_told_with_its_last_words(program):
    program("print('\\n'.join(map(str, range(100))), file=sys.stderr, flush=True)\nlisten()\nwait()")
    engine = Engine()
    os.kill(engine.pid, signal.SIGKILL)
    said = engine.ending()
    assert said.startswith("the private engine was killed by SIGKILL")
    assert said.endswith("99")
    assert "\n    84\n" not in said
    engine.stop()


def test_one_that_ignores_sigterm_is_killed(program, monkeypatch):
    program("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nlisten()\nwhile True: wait()")
    monkeypatch.setattr(_engine, "_STOP_TIMEOUT", 0.1)
    engine = Engine()
    engine.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(engine.pid, 0)


def test_its_log_goes_to_standard_error_where_that_is_asked_for(program, monkeypatch, capfd):
    program("print('hello', file=sys.stderr, flush=True)\nlisten()\nwait()")
    Engine().stop()
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("EVENER_LOG", "debug")
    Engine().stop()
    assert capfd.readouterr().err == "hello\n"


def test_the_binary_is_looked_for_in_order(tmp_path, monkeypatch):
    places = {}
    for name in ("named", "scripts", "beside", "path"):
        (tmp_path / name).mkdir()
        places[name] = tmp_path / name / "evener"
    monkeypatch.delenv("EVENER_BIN", raising=False)
    monkeypatch.setattr(_engine.sysconfig, "get_path", lambda _name: str(tmp_path / "scripts"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(evener.ConnectError, match=r"neither beside this package nor on PATH.*EVENER_BIN.*EVENER_URL"):
        binary()
    for name in ("path", "beside", "scripts"):
        places[name].write_text("")
        places[name].chmod(0o755)
        assert binary() == str(places[name])
    monkeypatch.setenv("EVENER_BIN", str(places["named"]))
    with pytest.raises(evener.ConnectError, match=r"EVENER_BIN names .*named"):
        binary()
    monkeypatch.setenv("EVENER_BIN", str(places["path"]))
    assert binary() == str(places["path"])


def test_a_client_without_an_address_starts_one_and_ends_it(program):
    orders = program()
    fake.nodes["unix:/private"] = fake.Node()
    client = evener.Client(workers=5)
    assert client.run(pow, 2, 3) == 8
    assert orders()[1]["workers"] == 5
    pid = client._live()._engine.pid
    client.submit(pow, 2, 3).result(10)
    asked = []
    client._live()._engine.ending = lambda: asked.append(1)
    client.close()
    # Nobody asks how an engine ended that was stopped.
    assert asked == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_engine_that_cannot_be_reached_is_stopped(program):
    orders = program()
    client = evener.Client(workers=1)
    with pytest.raises(evener.ConnectError, match="no engine answers at unix:/private"):
        client.workers()
    with pytest.raises(ProcessLookupError):
        os.kill(orders()[3], 0)


def test_the_loss_of_a_private_engine_says_how_it_ended(program):
    program("print('out of luck', file=sys.stderr, flush=True)\nlisten()\nwait()")
    node = fake.nodes["unix:/private"] = fake.Node(workers=1)
    client = evener.Client(workers=1)
    held = client.submit(fake.hold)
    os.kill(client._live()._engine.pid, signal.SIGKILL)
    node.lose()
    error = held.exception(10)
    assert isinstance(error, evener.EngineLost)
    assert str(error).startswith("the connection was reset; the private engine was killed by SIGKILL")
    assert "out of luck" in str(error)
    fake.release.set()


def test_the_default_client_starts_a_new_one_after_a_loss(program):
    orders = program()
    fake.nodes["unix:/private"] = fake.Node()
    function = evener.function(abs)
    assert function.run(-1) == 1
    first = orders()[3]
    fake.nodes["unix:/private"].lose()
    fake.nodes["unix:/private"] = fake.Node()
    assert function.run(-1) == 1
    assert orders()[3] != first


def test_a_program_that_cannot_run_is_a_connect_error(tmp_path, monkeypatch):
    path = tmp_path / "evener"
    path.write_text("not a program")
    path.chmod(0o755)
    monkeypatch.setenv("EVENER_BIN", str(path))
    with pytest.raises(evener.ConnectError, match="cannot be started"):
        Engine()
