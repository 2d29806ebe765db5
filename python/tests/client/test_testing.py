"""The client for tests of services, with a stand-in written in Python for the program; tests/ has it on a node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from evener import testing
from evener.testing import Service, StartError

SOURCES = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Have EVENER_BIN name a program that answers every request with what it was, and does what the lines say."""

    def write(lines="listen()\nready()\nserve()"):
        path = tmp_path / "evener"
        path.write_text(
            f"#!{sys.executable}\n"
            + textwrap.dedent("""
            import json, os, signal, sys, threading, time
            from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

            class Handler(BaseHTTPRequestHandler):
                stages = {}
                protocol_version = "HTTP/1.1"

                def do(self):
                    length = int(self.headers["content-length"] or 0)
                    body = self.rfile.read(length).decode()
                    said = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
                    if self.path == "/readyz":
                        said = {"state": "", "stages": self.stages}
                    if self.path == "/slow":
                        time.sleep(20)
                    if self.path == "/end":
                        os.kill(os.getpid(), signal.SIGKILL)
                    content = json.dumps(said).encode()
                    self.send_response(418 if self.path == "/tea" else 200)
                    self.send_header("content-length", str(len(content) + (self.path == "/half")))
                    self.send_header("x-two", "1")
                    self.send_header("x-two", "2")
                    self.end_headers()
                    self.wfile.write(content)
                    self.close_connection = self.path == "/half"

                do_GET = do_POST = do_PUT = do

                def log_message(self, *_):
                    print("asked for", self.path, file=sys.stderr, flush=True)

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            def listen():
                for name in ("http", "api"):
                    print(f"listening {name} http://127.0.0.1:{server.server_port}", flush=True)
                threading.Thread(target=server.serve_forever, daemon=True).start()
            def ready():
                print("ready", flush=True)
            def serve():
                signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
                while True:
                    signal.pause()
            print("started", sys.argv[1:], os.environ.get("GIVEN"), file=sys.stderr, flush=True)
            """)
            + textwrap.dedent(lines)
            + "\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("EVENER_BIN", str(path))

    return write


def test_it_is_started_asked_and_ended(program):
    program()
    service = Service("a service.yaml", set=["a.b=1"], env={"GIVEN": "here"})
    with pytest.raises(RuntimeError, match="does not run"):
        _ = service.url
    with service as entered:
        assert entered is service
        process = service._process
        assert service.url.startswith("http://127.0.0.1:")
        assert service.url in repr(service)
        answer = service.get("/x")
        assert (answer.status, answer.json()["path"]) == (200, "/x")
        assert (answer.headers["X-Two"], answer.headers.getlist("x-two")) == ("1", ["1", "2"])
        assert 0 < answer.elapsed < 10
        arguments = ["up", "a service.yaml", "--end-with-parent", "--set", "a.b=1"]
        arguments += ["--set", "listen.http=127.0.0.1:0", "--set", "listen.api=127.0.0.1:0"]
        assert f"started {arguments} here\n" in service.log
        with pytest.raises(RuntimeError, match="runs already"):
            service.start()
        assert service.wait_log("^asked for (/.)$")[1] == "/x"
        with pytest.raises(TimeoutError, match=r"(?s)matches 'never' after 0\.05 s:\nstarted"):
            service.wait_log("never", timeout=0.05)
    assert process.returncode == 0
    assert "asked for /x" in service.log
    service.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        service.get("/x")
    with service.start():
        assert service.get("/y").status == 200
        assert "/x" not in service.log


def test_requests_say_what_they_are_told_to(program):
    program()
    with Service("service.yaml") as service:

        def sent(*arguments, **options):
            got = service.request(*arguments, **options).json()
            kind = {name.lower(): value for name, value in got["headers"].items()}.get("content-type")
            return got["method"], got["path"], kind, got["body"]

        assert sent("GET", "/a%20b c/ü?x=1&y=[2]") == ("GET", "/a%20b%20c/%C3%BC?x=1&y=[2]", None, "")
        assert sent("GET", "/", params={"n": [1, 2], "t": "a&b"}) == ("GET", "/?n=1&n=2&t=a%26b", None, "")
        assert sent("GET", "/?x=1", params=[("n", 1)])[1] == "/?x=1&n=1"
        assert sent("POST", "/", json={"ä": [1]}) == ("POST", "/", "application/json", '{"ä": [1]}')
        assert sent("POST", "/", json=None)[2:] == ("application/json", "null")
        assert sent("PUT", "/", data="ä") == ("PUT", "/", "text/plain; charset=utf-8", "ä")
        assert sent("POST", "/", data=b"x")[2] == "application/octet-stream"
        for given in (bytearray(b"x"), memoryview(b"x")):
            assert sent("POST", "/", data=given)[2:] == ("application/octet-stream", "x")
        assert sent("POST", "/", json=1, headers={"content-TYPE": "a/b+json"})[2] == "a/b+json"
        assert service.post("/", json=1, params={"a": 1}).json()["path"] == "/?a=1"
        assert service.get("/tea").status == 418
        assert "method" in service.get("/", headers={"A": "b"}).text
        with pytest.raises(TypeError, match="not both"):
            service.post("/", json=1, data="1")
        for given, kind in (({"a": 1}, "dict"), (5, "int"), ([b"x"], "list"), (iter(b"x"), "bytes_iterator")):
            with pytest.raises(TypeError, match=f"data takes a text or bytes, .* of type {kind}; .* json="):
                service.post("/", data=given)
        with pytest.raises(ValueError, match="begins with a slash"):
            service.get("x")


def test_answers_that_do_not_come(program):
    program()
    with Service("service.yaml") as service:
        with pytest.raises(TimeoutError, match=r"GET /slow: nothing came for 0\.2 s"):
            service.get("/slow", timeout=0.2)
        with pytest.raises(ConnectionError, match=r"GET /half: the answer broke off after \d+ bytes$"):
            service.get("/half")
        with pytest.raises(ConnectionError, match=r"GET /end: .*; it was killed by SIGKILL"):
            service.get("/end")
        with pytest.raises(ConnectionError, match=r"GET /x: .*; it was killed by SIGKILL"):
            service.get("/x")


@pytest.mark.parametrize(
    ("lines", "saying"),
    [
        ("print('a bad file', file=sys.stderr)\nsys.exit(2)", r"(?s)ended with exit code 2\n.*a bad file$"),
        ("listen()\nos.kill(os.getpid(), signal.SIGABRT)", "it was killed by SIGABRT"),
        (
            "listen()\nHandler.stages = {'a': 'broken', 'b': 'ready', 'c': 'broken'}\nserve()",
            "workers of `a`, `c` do not",
        ),
    ],
)
def test_one_that_does_not_start_says_why(program, lines, saying):
    program(lines)
    service = Service("service.yaml")
    with pytest.raises(StartError, match=saying) as failure:
        service.start()
    assert failure.value.log == service.log != ""
    assert service._process.returncode is not None


def test_one_that_never_is_ready_is_given_up(program):
    program("listen()\nserve()")
    with pytest.raises(StartError, match=r"was not ready within 0\.5 s"):
        Service("service.yaml", start_timeout=0.5).start()


def test_one_that_does_not_want_to_end_is_killed(program, monkeypatch):
    monkeypatch.setattr(testing, "_FINISH", 0.1)
    monkeypatch.setattr(testing, "_GIVE_UP", 0.1)
    program("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nlisten()\nready()\nwhile True: signal.pause()")
    with Service("service.yaml") as service:
        process = service._process
    assert process.returncode == -signal.SIGKILL


def test_no_program(monkeypatch, tmp_path):
    monkeypatch.setenv("EVENER_BIN", str(tmp_path / "missing"))
    with pytest.raises(StartError, match="EVENER_BIN names"):
        Service("service.yaml").start()
    monkeypatch.delenv("EVENER_BIN")
    monkeypatch.setattr(testing, "binary", lambda: (_ for _ in ()).throw(testing.ConnectError("none")))
    with pytest.raises(StartError, match="neither beside this package nor on PATH"):
        Service("service.yaml").start()
    (tmp_path / "evener").write_text("#!/nonexistent/program\n")
    (tmp_path / "evener").chmod(0o755)
    monkeypatch.setattr(testing, "binary", lambda: str(tmp_path / "evener"))
    with pytest.raises(StartError, match="cannot be started"):
        Service("service.yaml").start()


def test_pytest_shows_the_test_and_not_what_it_calls(program, tmp_path):
    """What is wrong with a service, or with how it is asked, is in the message."""
    program("listen()\nready()\nserve()")
    (tmp_path / "test_shown.py").write_text(
        textwrap.dedent("""
        import os
        from evener.testing import Service

        def test_start(monkeypatch, tmp_path):
            (tmp_path / "evener").write_text("#!/bin/sh\\necho a bad file >&2\\nexit 2\\n")
            (tmp_path / "evener").chmod(0o755)
            monkeypatch.setenv("EVENER_BIN", str(tmp_path / "evener"))
            with Service("service.yaml"):
                pass

        def test_data():
            with Service("service.yaml") as service:
                service.post("/", data={"a": 1})

        def test_path():
            with Service("service.yaml") as service:
                service.get("x")

        def test_log():
            with Service("service.yaml") as service:
                service.wait_log("never", timeout=0)
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "test_shown.py"]
    env = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert "4 failed" in done.stdout
    assert "exit code 2\nE       a bad file" in done.stdout
    assert all(said in done.stdout for said in ("takes a text or bytes", "begins with a slash", "nothing in the log"))
    assert "testing.py" not in done.stdout.replace("test_shown.py", "")
    assert "test_shown.py:" in done.stdout


def test_a_text_is_no_list_of_values():
    with pytest.raises(TypeError, match="set takes a list"):
        Service("service.yaml", set="a=1")


def test_its_workers_have_the_python_of_the_tests(monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/an/environment")
    assert testing._environment()["VIRTUAL_ENV"] == "/an/environment"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(sys, "executable", "/opt/python/bin/python3")
    monkeypatch.setenv("VIRTUAL_ENV", "/another/environment")
    env = testing._environment()
    assert "VIRTUAL_ENV" not in env
    assert env["PATH"].startswith("/opt/python/bin" + os.pathsep)


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError", "os.kill(os.getpid(), signal.SIGINT)"])
def test_it_ends_with_a_program_that_forgets_it(program, end):
    """Without a `with` block, at the end of the program. A fork that ends before does not end it."""
    program()
    script = f"""if True:
        import os, signal, sys
        from evener.testing import Service
        service = Service("service.yaml").start()
        if os.fork() == 0:
            sys.exit()
        os.wait()
        assert service.get("/").status == 200
        print(service._process.pid, flush=True)
        {end}
    """
    command = [sys.executable, "-W", "ignore", "-c", script]
    env = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
    pid = int(done.stdout)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_every_name_says_what_it_is():
    assert sorted(testing.__all__) == testing.__all__
    for name in testing.__all__:
        thing = getattr(testing, name)
        assert thing.__doc__
        assert thing.__module__ == "evener.testing"
        for method, member in vars(thing).items():
            assert method.startswith("_") or not callable(member) or member.__doc__, f"{name}.{method}"
