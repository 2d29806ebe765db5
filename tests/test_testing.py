"""`evener.testing` on the program under test: services run in a test of a user's own, and end with it."""

import os
import re
import signal
import subprocess
import sys
import tempfile

import pytest
from evener import testing

from harness import until
from harness.node import MARK, REPOSITORY, binary
from harness.processes import marked

EULER6 = REPOSITORY / "examples" / "euler6" / "service.yaml"

APP = """
import os
import sys


def work(value):
    print("at work", flush=True)
    return {"value": value, "python": sys.prefix, "given": os.environ.get("GIVEN")}


def hang(value):
    import time
    time.sleep(60)
"""

SERVICE = """
service: tested
listen: {http: "127.0.0.1:1", api: "127.0.0.1:2"}
stages:
  work: {python: "app:work"}
  hang: {python: "app:hang"}
routes:
  - {path: /work, pipeline: work, methods: [POST]}
  - {path: /hang, pipeline: hang}
"""


@pytest.fixture(autouse=True)
def processes(monkeypatch):
    """The program under test, with a runtime folder and a mark by which its processes are found; none is left."""
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        monkeypatch.setenv("EVENER_BIN", str(binary()))
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv(MARK, runtime)
        yield lambda: [process for process in marked(MARK, runtime) if process.pid != os.getpid()]
        until(lambda: not marked(MARK, runtime), "the end of every process")


@pytest.fixture
def service_file(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    file = tmp_path / "service.yaml"
    file.write_text(SERVICE)
    return file


def test_the_tutorials_figures():
    with testing.Service(EULER6) as service:
        assert service.get("/?n=42").json() == {"sum": 1764, "square": 1764, "diff": 0}
        assert service.get("/", params={"n": range(1, 11)}).json() == {"sum": 385, "square": 3025, "diff": 2640}


def test_without_workers_for_a_half():
    with testing.Service(EULER6, set=["stages.sum_of_squares.workers=0"]) as service:
        answer = service.get("/?n=42")
    assert (answer.status, answer.json()) == (200, {"success": False})
    assert answer.headers["Evener-Fallback"] == "scatter-timeout"
    assert 2 <= answer.elapsed < 4


def test_its_workers_log_and_have_the_python_of_the_tests(service_file):
    with testing.Service(service_file, env={"GIVEN": "yes"}) as service:
        answer = service.post("/work", json=[1])
        assert answer.json() == {"value": [1], "python": sys.prefix, "given": "yes"}
        assert service.wait_log('at work stage="work"')
        assert service.get("/work").status == 405
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", service.url)
        # Another one is not in its way.
        with testing.Service(service_file) as other:
            assert other.url != service.url
            assert other.post("/work", data="x").json()["value"] == "x"


@pytest.mark.parametrize(
    ("value", "saying"),
    [
        ("stages.work.python=nothing:here", r"(?s)workers of `work` do not start\n.*No module named 'nothing'"),
        ("stages.work.frob=1", r"(?s)ended with exit code 2\n.*unknown-key.*frob"),
        ("nonsense", r"(?s)ended with exit code 2\n.*KEY=VALUE"),
    ],
)
def test_one_that_does_not_start_says_why(service_file, value, saying):
    with pytest.raises(testing.StartError, match=saying):
        testing.Service(service_file, set=[value]).start()


def test_one_that_is_at_work_ends_soon(service_file):
    with testing.Service(service_file) as service, pytest.raises(TimeoutError):
        service.get("/hang", timeout=0.1)


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(1)"])
def test_it_ends_with_its_process_however_that_ends(service_file, processes, end):
    script = f"""if True:
        import os, signal, sys
        import evener.testing
        service = evener.testing.Service({str(service_file)!r}).start()
        print(service.post("/work", json=1).status, flush=True)
        sys.stdin.readline()
        {end}
    """
    command = [sys.executable, "-W", "ignore", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "200\n"
        assert len(processes()) >= 4
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(10)
    until(lambda: not processes(), "the end of every process")


def test_a_node_ends_with_its_parent(service_file, processes):
    """The option by itself: SIGTERM drains as ever, and the end of the parent ends it at once."""
    service_file.write_text(SERVICE.replace("127.0.0.1:1", "127.0.0.1:0").replace("127.0.0.1:2", "127.0.0.1:0"))
    command = [binary(), "up", service_file, "--end-with-parent"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **options) as process:
        assert any(line == "ready\n" for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "draining" in process.stderr.read()
    # A shell that waits for it, and is killed.
    with subprocess.Popen(["sh", "-c", '"$@"; :', "sh", *map(str, command)], **options) as shell:
        assert any(line == "ready\n" for line in iter(shell.stdout.readline, ""))
        shell.kill()
        assert "the process that started this one has ended" in shell.stderr.read()
    until(lambda: not processes(), "the end of every process")


def run_pytest(folder):
    """Run what a user's pytest finds in a folder; fail if anything there does."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shown.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_the_first_service_of_the_readme(tmp_path):
    text = (REPOSITORY / "README.md").read_text()
    section = text[text.index("## A first service") : text.index("## How values travel")]
    blocks = re.findall(r"```(yaml|python)\n(.*?)```", section, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["yaml", "python", "python"]
    for name, (_, block) in zip(("service.yaml", "words.py", "test_shown.py"), blocks, strict=True):
        (tmp_path / name).write_text(block)
    run_pytest(tmp_path)


def test_its_documentation_tells_the_truth(service_file):
    """The tests that docs/python-workers.md shows are run by pytest as they stand there."""
    text = (REPOSITORY / "docs" / "python-workers.md").read_text()
    section = text[text.index("## Testing a function") :]
    (shown,) = [block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if "evener.testing" in block]
    folder = service_file.parent
    (folder / "test_shown.py").write_text(shown)
    for name in ("service.yaml", "euler6.py"):
        (folder / name).write_bytes(EULER6.with_name(name).read_bytes())
    run_pytest(folder)
