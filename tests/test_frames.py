"""Stages of programs that stay up and speak the worker protocol, in whatever language."""

import re
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from harness import assert_problem, binary, until
from harness.node import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
EXAMPLE = EXAMPLES / "frames-c"

# A worker that speaks frames by hand: it answers its jobs in pairs, the later one first, or dies of one.
WORKER = """\
#!{python}
import json, os, socket, struct, sys

HEADER = struct.Struct("<IBBBBQIIIIQ")
node = socket.socket(fileno=3)

def say(kind, verb=0, content=0, job=0, attempt=0, extension=b"", payload=b""):
    length = len(extension) + len(payload)
    node.sendall(HEADER.pack(length, kind, 0, content, verb, job, attempt, len(extension), 0, 0, 0))
    node.sendall(extension + payload)

def hear(size):
    data = b""
    while len(data) < size:
        more = node.recv(size - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data

runtime = " ".join([os.environ.get("PLACE", ""), os.getcwd(), *sys.argv[1:]])
say(1, extension=json.dumps({{"protocol": 1, "runtime": runtime}}).encode())
held = []
while True:
    length, kind, flags, content, verb, job, attempt, cold, *_ = HEADER.unpack(hear(40))
    payload = hear(length)[cold:]
    if kind == 9:
        sys.exit(0)
    if kind != 2:
        continue
    if payload == b"die":
        os.kill(os.getpid(), 9)
    if payload == b"who":
        text = json.dumps({{"pid": os.getpid(), "runtime": runtime, "stdin": sys.stdin.read()}}).encode()
        say(7, 1, 1, job, attempt, payload=text)
        continue
    if payload == b"garbage":
        node.sendall(b"x" * 100)
    held.append((job, attempt, payload))
    if len(held) == 2:
        for job, attempt, payload in reversed(held):
            say(7, 1, 2, job, attempt, payload=payload.upper())
        held.clear()
"""


@pytest.fixture
def served(node):
    """A node with one such worker, which takes two jobs at a time."""

    def start(keys="concurrency: 2", **options):
        return node(
            f"""
            stages:
              pair: {{command: [./worker, "{{{{ . }}}}", b c], protocol: frames, retries: 0, {keys}}}
            routes: [{{path: /, pipeline: pair}}]
            """,
            wait=None,
            **options,
        )

    return start


def write_worker(started):
    place = started.write("worker", WORKER.format(python=sys.executable))
    place.chmod(0o755)


def post(started, text):
    return started.post("/", text, "text/plain")


@pytest.mark.parametrize("keys", ["concurrency: 2", "batch: {max: 2, wait: {idle: 20s}}"])
def test_a_worker_takes_several_jobs_at_a_time(served, keys):
    started = served(keys)
    write_worker(started)
    started.wait_listening().wait_ready()
    first = started.begin("POST", "/", headers={"Content-Type": "text/plain"}, body=b"first")
    second = post(started, "second")
    assert (second.status, second.text) == (200, "SECOND")
    assert first.answer("POST").text == "FIRST"


def test_what_a_worker_finds(served):
    """Its folder, its variables, an empty standard input; its arguments are as they are written."""
    started = served('cwd: other, env: {PLACE: "number {index}"}', folders=["other"])
    write_worker(started)
    started.wait_listening().wait_ready()
    found = post(started, "who").json
    assert found["runtime"] == f"number 0 {started.folder}/other {{{{ . }}}} b c"
    assert found["stdin"] == ""


def test_a_worker_that_dies_is_replaced(served):
    started = served("concurrency: 2, grace: 500ms")
    write_worker(started)
    started.wait_listening().wait_ready()
    before = post(started, "who").json["pid"]
    assert_problem(post(started, "die"), "worker-died", stage="pair", tries=1, saying="SIGKILL")
    assert post(started, "who").json["pid"] != before
    answer = post(started, "garbage")
    assert_problem(answer, "worker-died", stage="pair", tries=1, saying="broke the worker protocol")
    assert post(started, "who").status == 200


def test_a_program_that_is_not_there(served):
    """The stage breaks, and says which program."""
    started = served()
    started.wait_listening()
    started.wait_log(r"worker did not start: cannot start `.*/worker`: .*/worker does not exist")
    started.wait_log("the stage is broken")
    answer = post(started, "x")
    assert_problem(answer, "stage-broken", stage="pair", saying="do not start")
    write_worker(started)
    started.wait_ready(within=30)
    assert post(started, "who").status == 200


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The example, with its program compiled as its README says."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("frames-c")
    options = re.search(r"^\$ cc (.*) -o worker worker\.c$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)[1]
    subprocess.run(
        [compiler, *options.split(), "-Werror", "-o", folder / "worker", EXAMPLE / "worker.c"], check=True, timeout=60
    )
    return folder


def place_worker(started, program):
    """Put a program where the node looks for it, whole or not at all: it may be looking already."""
    new = started.folder / "worker.new"
    shutil.copy(program, new)
    new.rename(started.folder / "worker")


def both_workers(started):
    """The two workers. One may have been looked for before it was there, and then starts a little later."""

    def up():
        workers = [process for process in started.family() if process.name == "worker"]
        return workers if len(workers) == 2 else None

    return until(up, "two workers")


@pytest.fixture
def example(node, compiled):
    service = (EXAMPLE / "service.yaml").read_text().replace("127.0.0.1:8004", "127.0.0.1:0")
    started = node(textwrap.dedent(service), wait=None)
    place_worker(started, compiled / "worker")
    return started.wait_listening().wait_ready()


def test_the_example_in_c(example):
    for asked, answer in re.findall(r"possible_prime=(\d+)'\n(\d+)\n", (EXAMPLE / "README.md").read_text()):
        found = example.get(f"/is_prime?possible_prime={asked}")
        assert (found.status, found.text) == (200, answer)
    answer = example.get("/is_prime?possible_prime=1")
    assert_problem(answer, "aborted", status=422, stage="divide", tries=1, saying="no smallest divisor")
    large = "9" * 40
    answer = example.get(f"/is_prime?possible_prime={large}")
    assert_problem(answer, "value-not-decodable", stage="divide", tries=1)
    workers = both_workers(example)
    for process in workers:
        process.send(signal.SIGKILL)
    until(lambda: not any(process.is_alive for process in workers), "the workers' deaths")
    assert example.get("/is_prime?possible_prime=91").text == "7"


@pytest.fixture
def in_rust(node):
    program = binary().parent / "frames-rust"
    assert program.exists(), "`make build` builds the example"
    service = (EXAMPLES / "frames-rust" / "service.yaml").read_text().replace("127.0.0.1:8009", "127.0.0.1:0")
    started = node(service, wait=None)
    place_worker(started, program)
    return started.wait_listening().wait_ready()


def test_the_example_in_rust(in_rust):
    shown = re.findall(r"possible_prime=(\d+)'\n(\d+)\n", (EXAMPLES / "frames-rust" / "README.md").read_text())
    assert len(shown) == 2
    for asked, answer in shown:
        found = in_rust.get(f"/is_prime?possible_prime={asked}")
        assert (found.status, found.text) == (200, answer)
    answer = in_rust.get("/is_prime?possible_prime=1")
    assert_problem(answer, "aborted", status=422, stage="divide", tries=1, saying="1 has no smallest divisor")
    answer = in_rust.get("/is_prime?possible_prime=" + "9" * 40)
    assert_problem(answer, "value-not-decodable", stage="divide", tries=1)
    workers = both_workers(in_rust)
    in_rust.wait_log('runtime="divide 1.0"')
    for process in workers:
        process.send(signal.SIGKILL)
    until(lambda: not any(process.is_alive for process in workers), "the workers' deaths")
    assert in_rust.get("/is_prime?possible_prime=91").text == "7"


def test_a_worker_in_rust_wants_a_node():
    done = subprocess.run(
        [binary().parent / "frames-rust"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 1
    assert "a node starts this program" in done.stderr
