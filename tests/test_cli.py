"""The command line: help, exit codes, addresses, completions."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager

import pytest

from harness import Connection, run_evener
from harness.node import REPOSITORY, binary, environment

GOOD = """
service: good
listen: {http: "127.0.0.1:0"}
stages: {work: {python: "app:work"}}
routes: [{path: /work, pipeline: work}]
"""


@pytest.fixture
def good(tmp_path):
    (tmp_path / "app.py").write_text("def work(value): return 1\n")
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return file


HELP = {
    "": [
        "Usage: evener", "up", "new", "check", "test", "graph", "schema", "completions", "Run a service",
        "Write a small service", "Run the tests", "Draw a service", "evener new DIR", "evener up SERVICE.yaml",
    ],
    "up": [
        "[SERVICE.yaml]", "--workers <N|auto>", "--http", "--api", "--log", "listening NAME URL", "ready", "Ctrl-C",
        "text", "json", "EVENER_URL", "Python functions", "--set <KEY=VALUE>", "--end-with-parent",
    ],
    "new": ["DIR", "README.md", ".gitignore", "never overwritten"],
    "check": ["SERVICE.yaml", "--set <KEY=VALUE>", "0 good, 2 bad"],
    "test": [
        "SERVICE.yaml", "--filter <TEXT>", "--junit <PATH>", "--log", "--set <KEY=VALUE>", "stages.sum.workers=0",
        "0 all passed, 1 some failed, 2 the file is bad", "130",
    ],
    "graph": ["SERVICE.yaml", "--set <KEY=VALUE>", "--dot", "Mermaid flowchart", "Graphviz DOT", "0 good, 2 bad"],
    "schema": ["JSON Schema"],
    "completions": ["bash", "zsh", "fish", "evener completions bash"],
}  # fmt: skip


@pytest.mark.parametrize(("command", "words"), HELP.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_help(command, words):
    done = run_evener(*([command] if command else []), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert [word for word in words if word not in text] == []
    # What the node and the Python package use themselves is not offered.
    assert "warden" not in done.stdout
    assert "private" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_version():
    done = run_evener("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"evener \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        ([], "Usage:"),
        (["frob"], "unrecognized subcommand 'frob'"),
        (["chek"], "check"),
        (["check"], "SERVICE.yaml"),
        (["check", "a.yaml", "b.yaml"], "b.yaml"),
        (["up", "{good}", "--frob"], "--frob"),
        (["up", "{good}", "--log", "xml"], "text, json"),
        (["up", "{good}", "--http"], "--http"),
        (["up", "{good}", "--http", "nonsense"], "--http"),
        (["up", "{good}", "--http", "127.0.0.1:99999"], "--http"),
        (["up", "{good}", "--api", "nonsense"], "--api"),
        (["up", "{good}", "--workers"], "--workers"),
        (["up", "{good}", "--workers", "many"], "`auto`"),
        (["up", "{good}", "--workers", "0"], "without workers no call ever runs"),
        (["up", "{good}", "--workers", "4097"], "at most 4096"),
        (["up", "{good}", "--workers", "2"], "add `functions: {default: {}}`"),
        (["up", "{good}", "--private"], "--private"),
        (["up", "{good}", "--set"], "--set"),
        (["up", "{good}", "--set", "stages.work.workers"], "stages.sum.workers=0"),
        (["up", "{good}", "--set", "stages..workers=1"], "no path to a value"),
        (["up", "{good}", "--set", "stages.work.frob=1"], "--set stages.work.frob=1"),
        (["up", "{good}", "--set", "stages.work.workers=many"], "--set stages.work.workers=many"),
        (["up", "--set", "a=1"], "--set: it changes a service file, and there is none"),
        (["check", "{good}", "--set", "listen.http=nonsense"], "bad-address"),
        (["graph", "{good}", "--set", "stages.wrok.workers=0"], "did you mean `work`?"),
        (["test"], "SERVICE.yaml"),
        (["test", "{good}"], "no tests"),
        (["test", "{good}", "--junit"], "--junit"),
        (["test", "{good}", "--set", "x"], "`=`"),
        (["up", "--http", "127.0.0.1:0"], "--http: without a service file there are no routes"),
        (["up", "--api", "nonsense"], "--api"),
        (["up", "--api", "0.0.0.0:0"], "a service file whose `listen.api` has `tls`"),
        (["new"], "DIR"),
        (["new", "a", "b"], "'b'"),
        (["graph"], "SERVICE.yaml"),
        (["graph", "{good}", "--svg"], "--svg"),
        (["schema", "extra"], "extra"),
        (["completions", "tcsh"], "tcsh"),
        (["--frob"], "--frob"),
    ],
)
def test_wrong_usage_is_exit_code_2(good, arguments, saying):
    done = run_evener(*[argument.replace("{good}", str(good)) for argument in arguments])
    assert done.returncode == 2
    assert saying in done.stderr
    assert done.stdout == ""


def test_what_the_python_package_tells_wrongly_is_exit_code_2():
    good = {"executable": sys.executable, "path": sys.path, "workers": 2, "parent": os.getpid()}
    for told, saying in [
        ("", "EOF"),
        ("not JSON\n", "expected"),
        ("{}\n", "executable"),
        (good | {"executable": ""}, "executable"),
        (good | {"path": "x"}, "expected a sequence"),
        (good | {"workers": 0}, "workers"),
        (good | {"workers": 4097}, "at most 4096"),
        (good | {"parent": 0}, "parent"),
        (good | {"parent": -1}, "parent"),
        (good | {"more": 1}, "more"),
    ]:
        line = told if isinstance(told, str) else json.dumps(told) + "\n"
        done = run_private(line)
        assert done.returncode == 2, (told, done)
        assert "for the Python package" in done.stderr
        assert saying in done.stderr
        assert done.stdout == ""


def run_private(line):
    command = [binary(), "up", "--private"]
    return subprocess.run(command, input=line, capture_output=True, text=True, timeout=20, check=False)


def test_a_private_engine_belongs_to_its_parent_alone():
    told = {"executable": sys.executable, "path": sys.path, "parent": 1}
    done = run_private(json.dumps(told) + "\n")
    assert done.returncode == 1
    assert "process 1 has not started this one itself" in done.stderr
    # A parent that has ended by now has nobody to hear of it.
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    done = run_private(json.dumps(told | {"parent": ended.pid}) + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@contextmanager
def started(*arguments, told="", **options):
    """A node without a service file, once it listens; with the address of its API."""
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        process = subprocess.Popen(
            [binary(), "up", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(runtime),
            **options,
        )
        try:
            process.stdin.write(told)
            process.stdin.flush()
            line = process.stdout.readline()
            assert line.startswith("listening api "), line + process.stderr.read()
            yield process, line.split()[-1]
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("arguments", [[], ["--api", "127.0.0.1:0"]])
def test_up_without_a_file_says_how_to_call_functions_there(tmp_path, arguments):
    with started("--workers", "1", *arguments, cwd=tmp_path) as (process, url):
        assert url.startswith("http://127.0.0.1:" if arguments else "unix:/")
        if not arguments:
            assert re.search(r"/functions-\d+\.sock$", url)
        log = iter(process.stderr.readline, "")
        said = f"to call functions here from another terminal: export EVENER_URL={url}\n"
        assert any(line.endswith(said) for line in log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_private_engine_ends_at_once_when_it_is_told_to():
    told = {"executable": sys.executable, "path": sys.path, "workers": 1, "parent": os.getpid()}
    with started("--private", told=json.dumps(told) + "\n") as (process, url):
        assert url.startswith("unix:/")
        # Ctrl-C reaches every process of a terminal; what becomes of it is for the script to say.
        for number in (signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(1) == 0


def test_a_private_engine_ends_when_its_script_is_killed():
    script = """if True:
        import json, os, subprocess, sys
        engine = subprocess.Popen([sys.argv[1], "up", "--private"], stdin=subprocess.PIPE, text=True)
        told = {"executable": sys.executable, "path": sys.path, "workers": 1, "parent": os.getpid()}
        print(json.dumps(told), file=engine.stdin, flush=True)
        engine.wait()
    """
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        process = subprocess.Popen(
            [sys.executable, "-c", script, binary()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(runtime),
        )
        with process:
            line = process.stdout.readline()
            assert line.startswith("listening api unix:/"), line + process.stdout.read()
            process.kill()
            # The output ends once nobody is left to write to it.
            process.communicate(timeout=1)


def test_check_of_a_good_file(good):
    done = run_evener("check", good)
    assert (done.returncode, done.stderr) == (0, "")
    assert "good" in done.stdout
    assert "1 stage" in done.stdout
    assert "1 route" in done.stdout


def test_check_starts_nothing(good):
    """A file is checked without Python, without ports and without a runtime folder."""
    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        port = taken.getsockname()[1]
        good.write_text(GOOD.replace("127.0.0.1:0", f"127.0.0.1:{port}").replace("app:work", "no_such_module:work"))
        done = run_evener("check", good, env={"PATH": "/nonexistent", "XDG_RUNTIME_DIR": "/nonexistent"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "example", sorted((REPOSITORY / "examples").glob("*/service.yaml")), ids=lambda p: p.parent.name
)
def test_every_example_is_good(example, tmp_path):
    folder = shutil.copytree(example.parent, tmp_path / "example")
    for program in re.findall(r"\[\./([\w-]+)", example.read_text()):
        # One that has to be compiled first.
        (folder / program).touch(0o755)
    done = run_evener("check", folder / example.name)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["check", "graph", "test", "up"])
def test_a_file_that_is_not_there(tmp_path, command):
    done = run_evener(command, tmp_path / "missing.yaml")
    assert done.returncode == 2
    assert "missing.yaml" in done.stderr
    assert "No such file" in done.stderr
    done = run_evener(command, tmp_path)
    assert done.returncode == 2
    assert "directory" in done.stderr.lower()


def test_a_port_in_use(good):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("--http", "--api"):
            done = run_evener("up", good, flag, address)
            assert done.returncode == 1
            assert f"cannot listen on {address}" in done.stderr
            assert "in use" in done.stderr
            assert done.stdout == ""


def test_an_address_that_is_not_ours(good):
    done = run_evener("up", good, "--http", "192.0.2.1:8000")
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1:8000" in done.stderr


@pytest.mark.parametrize("interpreter", ["no-such-python", "./no/such/python"])
def test_an_interpreter_that_is_not_there(good, interpreter):
    good.write_text(GOOD.replace('"app:work"', f'"app:work", interpreter: "{interpreter}"'))
    done = run_evener("up", good)
    assert done.returncode in (1, 2)
    assert interpreter.strip("./") in done.stderr
    assert "listening" not in done.stdout


def test_no_python_at_all(good):
    done = run_evener("up", good, env={"PATH": "/nonexistent"})
    assert done.returncode == 1
    assert "no Python interpreter was found" in done.stderr
    assert "PATH" in done.stderr


def test_a_runtime_folder_that_is_too_deep_for_a_socket(good, tmp_path):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    done = run_evener("up", good, env={"XDG_RUNTIME_DIR": str(deep)})
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert "x" * 100 in done.stderr


def test_flags_override_the_addresses_of_the_file(node):
    started = node(
        GOOD.replace("127.0.0.1:0", "127.0.0.1:1"),
        arguments=["--http", "127.0.0.1:0", "--api", "127.0.0.1:0"],
        app="def work(value): return 1",
    )
    assert started.get("/work").json == 1
    assert started.api("/healthz", token=False).status == 200
    assert started.address("http")[1] != started.address("api")[1] != 0


def test_values_over_the_file(node, good):
    more = ["--set", "stages.more.python=app:more", "--set=routes=[{path: /more, pipeline: more}]"]
    # What goes over a file may leave a stage without a way in.
    done = run_evener("check", good, *more)
    assert (done.returncode, done.stderr) == (0, "")
    piped = [*more, "--set", "pipelines={both: [work, more]}"]
    done = run_evener("check", good, *piped)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 stages, 1 pipeline, 1 route" in done.stdout
    assert "any method /more" in run_evener("graph", good, *piped).stdout
    started = node(
        GOOD.replace("127.0.0.1:0", "127.0.0.1:1"),
        arguments=[
            "--set",
            "listen.http=127.0.0.1:0",
            *piped,
            "--set",
            "stages.more.env.GIVEN=it is",
            "--http",
            "localhost:0",
        ],
        app="import os\ndef work(value): return 1\ndef more(value): return os.environ['GIVEN']",
    )
    assert started.get("/more").text == "it is"
    assert started.get("/work").status == 404


def test_standard_output_is_for_programs(node):
    started = node(GOOD, app="def work(value): print('a line'); return 1")
    assert started.get("/work").json == 1
    started.wait_log("a line")
    assert len(started.output) == 3
    assert re.fullmatch(r"listening http http://127\.0\.0\.1:\d+", started.output[0])
    assert re.fullmatch(r"listening api unix:/.+\.sock", started.output[1])
    assert started.output[2] == "ready"


@pytest.mark.parametrize("env", [{}, {"TERM": "xterm-256color"}, {"NO_COLOR": "1"}, {"CLICOLOR_FORCE": "1"}])
def test_no_colours_where_nobody_sees_them(tmp_path, env):
    bad = tmp_path / "bad.yaml"
    bad.write_text("service: 1\nfrob: 2\n")
    for arguments in (["check", bad], ["--help"], ["frob"]):
        done = run_evener(*arguments, env=env)
        if "CLICOLOR_FORCE" not in env:
            assert "\x1b" not in done.stdout + done.stderr


def test_output_that_is_closed_ends_the_start(good, tmp_path):
    process = subprocess.Popen(
        [binary(), "up", good], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path)
    )
    process.stdout.close()
    try:
        assert process.wait(10) == 1
        assert "standard output is closed" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell, tmp_path):
    done = run_evener("completions", shell)
    assert (done.returncode, done.stderr) == (0, "")
    words = ["up", "new", "check", "test", "graph", "schema", "completions"]
    for word in [*words, "log", "http", "workers", "dot", "set", "watch", "junit", "filter"]:
        assert word in done.stdout
    # What the node and the Python package use themselves is not offered.
    assert "private" not in done.stdout
    offered = {"bash": r'opts="[^"]*\bwarden\b', "zsh": r"'warden:", "fish": r'-a "warden"'}
    assert not re.search(offered[shell], done.stdout)
    if program := shutil.which(shell):
        script = tmp_path / "completions"
        script.write_text(done.stdout)
        subprocess.run([program, "-n", script], check=True, timeout=20)


def test_completions_of_bash_complete(tmp_path):
    bash = shutil.which("bash")
    assert bash, "bash is needed"
    script = tmp_path / "completions"
    script.write_text(run_evener("completions", "bash").stdout)
    for begun, offered in [("ch", "check"), ("gr", "graph"), ("ne", "new"), ("te", "test")]:
        ask = f"COMP_WORDS=(evener {begun}); COMP_CWORD=1; _evener evener {begun} evener; echo ${{COMPREPLY[@]}}"
        command = [bash, "-c", f"source {script}; {ask}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout.split() == [offered]


def test_the_warden_is_not_for_people():
    done = run_evener("warden")
    assert done.returncode == 2
    assert "a node, which starts it" in done.stderr


def test_a_log_that_nobody_reads_does_not_hold_up_the_node(good):
    good.with_name("app.py").write_text("def work(value):\n    print('x' * 10_000)\n    return 1\n")
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        process = subprocess.Popen(
            [binary(), "up", good], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(runtime)
        )
        try:
            lines = iter(process.stdout.readline, "")
            url = next(line for line in lines if line.startswith("listening http ")).split()[-1]
            host, port = url.removeprefix("http://").split(":")
            with Connection((host, int(port))) as connection:
                # More than a pipe holds by far.
                for _ in range(500):
                    assert connection.get("/work").json == 1
        finally:
            process.kill()
            process.communicate()
