"""What happens around the life of a process: imports, forks, exits. Each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
PRELUDE = """
import os, sys, threading, time
import evener
from client import fake
sys.modules["evener._bridge"] = evener._bridge = fake
os.environ["EVENER_URL"] = "unix:/fake"
node = fake.nodes["unix:/fake"] = fake.Node()
gate = fake.release

@evener.function
def square(x):
    return x * x

hold = evener.function(fake.hold)
"""


def run(source, prelude=PRELUDE):
    """Run a script, and return its exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", prelude + textwrap.dedent(source)],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS}"},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_importing_evener_imports_nothing_of_the_client():
    code, out, err = run(
        """
        import sys
        import evener
        evener.Response, evener.context
        print(*sorted(name for name in sys.modules if name.startswith("evener")))
        print(any(name in sys.modules for name in ("cloudpickle", "tblib", "concurrent.futures", "pickle", "logging")))
        """,
        prelude="",
    )
    assert (code, out.splitlines(), err) == (0, ["evener evener._worker", "False"], "")


def test_the_client_imports_the_heavy_parts_when_they_are_needed():
    code, out, err = run(
        """
        import sys
        import evener
        evener.function, evener.Executor, evener.Client, evener.Future
        print([name for name in ("cloudpickle", "tblib", "evener._bridge", "asyncio", "tqdm") if name in sys.modules])
        """,
        prelude="",
    )
    assert (code, out, err) == (0, "[]\n", "")


def test_an_exit_with_calls_running_is_quick_and_clean():
    code, out, err = run(
        """
        futures = [hold.submit(n) for n in range(100)]
        results = hold.map(range(1000))
        print("end")
        """
    )
    assert (code, out, err) == (0, "end\n", "")


def test_an_exit_by_an_exception_is_as_quick():
    code, out, err = run(
        """
        future = hold.submit(1)
        raise SystemExit(3)
        """
    )
    assert (code, out, err) == (3, "", "")


def test_an_exit_waits_for_the_calls_of_an_executor():
    code, out, err = run(
        """
        executor = evener.Executor()
        future = executor.submit(fake.hold, 7)
        future.add_done_callback(lambda f: print("done", f.result()))
        threading.Timer(0.1, gate.set).start()
        print("end")
        """
    )
    assert (code, out, err) == (0, "end\ndone 7\n", "")


def test_an_exit_in_the_middle_of_output_is_clean():
    code, _out, err = run(
        """
        def chatter():
            while True:
                fake.say("x" * 100)
                time.sleep(0.001)
        evener.function(chatter).submit()
        evener.function(chatter).submit()
        time.sleep(0.05)
        """
    )
    assert (code, err) == (0, "")


FORK = """
pid = os.fork()
if pid == 0:
    try:
        {child}
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
        os._exit(1)
_, status = os.waitpid(pid, 0)
print("child", os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize(
    "use",
    [
        "square.run(2)",
        "square.submit(2)",
        "list(square.map([1]))",
        "future.result()",
        "next(results)",
        "evener.Client().workers(); client.workers()",
        "executor.submit(pow, 2, 3)",
    ],
)
def test_a_fork_after_use_is_refused(use):
    code, out, err = run(
        """
        client = evener.Client()
        client.workers()
        executor = evener.Executor()
        future = hold.submit(1)
        held = executor.submit(fake.hold, 1)
        results = hold.map(range(5))
        """
        + textwrap.indent(FORK.format(child=use), " " * 8)
        + """
        gate.set()
        print(future.result(10), square.run(3), next(results))
        """
    )
    if use.startswith("evener.Client()"):
        # A client of the child's own is the child's; the fake engine lives in the parent, though.
        assert "child 1" in out
    else:
        assert out.startswith("ForkError Evener was used in the parent process"), out
    assert out.endswith("child 1\n1 9 0\n")
    assert (code, err) == (0, "")


def test_a_fork_before_use_is_free():
    code, out, err = run(
        FORK.format(child="gate.set(); node.__init__(); print(square.run(4), list(square.map([1, 2])))")
        + "\nprint(square.run(3))\n"
    )
    assert (code, out, err) == (0, "16 [1, 4]\nchild 0\n9\n", "")


def test_a_child_that_exits_leaves_the_parent_its_engine():
    code, out, err = run(
        """
        print(square.run(2), flush=True)
        executor = evener.Executor()
        held = executor.submit(fake.hold, 1)
        pid = os.fork()
        if pid == 0:
            executor.shutdown()
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status))
        gate.set()
        print(square.run(3), held.result(10))
        """
    )
    assert (code, out, err) == (0, "4\n0\n9 1\n", "")


def test_ctrl_c_interrupts_a_wait_and_leaves_the_program_sane():
    code, out, err = run(
        """
        import signal
        # Behind a shell's & it would be ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        future = hold.submit(1)
        results = hold.map(range(10))
        for wait in (future.result, lambda: next(results)):
            threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            try:
                wait()
            except KeyboardInterrupt:
                print("interrupted")
        gate.set()
        print(future.result(10), next(results))
        """
    )
    assert (code, out, err) == (0, "interrupted\ninterrupted\n1 0\n", "")
