"""What calls print: it is in the pipes before their outcome, and the worker says how much of it is whose."""

from __future__ import annotations

import os
import sys
import time

import pytest

from conftest import (
    AHEAD,
    CREDIT,
    FAIL,
    NEXT,
    RAISED,
    RECALL,
    RETURNED,
    Worker,
    call,
    calls,
    frame,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what nobody has read from a pipe")

PRINT = """
import os, sys
def f(text, error="", times=1):
    for _ in range(times):
        sys.stdout.write(text)
        sys.stderr.write(error)
    return len(text)
"""


def read(worker: Worker, counts) -> tuple[str, str]:
    """Read so many bytes of each stream, as a node does that was told so."""
    pipes = (worker.process.stdout, worker.process.stderr)
    return tuple(os.read(pipe.fileno(), count).decode() if count else "" for pipe, count in zip(pipes, counts))


def unread(worker: Worker) -> tuple[str, str]:
    """Read all that is in the pipes now."""
    found = []
    for pipe in (worker.process.stdout, worker.process.stderr):
        os.set_blocking(pipe.fileno(), False)
        try:
            found.append(os.read(pipe.fileno(), 1 << 20).decode())
        except BlockingIOError:
            found.append("")
        os.set_blocking(pipe.fileno(), True)
    return found[0], found[1]


@pytest.mark.parametrize("granted", [True, False])
def test_what_a_call_writes_is_in_the_pipes_before_its_outcome(caller, granted):
    worker = caller(granted=granted)
    text = """
    import ctypes, os, subprocess, sys
    def f():
        sys.stdout.write("half \\ud800")
        sys.stderr.write("error")
        sys.stdout.flush()
        sys.stdout.buffer.write(b"!")
        sys.stdout.flush()
        os.write(1, b"")
        subprocess.run(["echo", "from a program"])
        library = ctypes.CDLL(None)
        library.printf(b"from C %d\\n", 3)
        print("again", flush=True)
        library.puts(b"and C")
        library.printf(b"to the end")
    """
    function = worker.learn(text)
    outcome = worker.ask(function)
    assert outcome.result is None
    output, errors = unread(worker)
    assert sorted(output.replace("half \\ud800!", "half\n").split("\n")) == sorted(
        ["half", "from a program", "from C 3", "again", "and C", "to the end"]
    )
    assert output.index("from C 3\n") < output.index("again\n") < output.index("and C\n")
    assert output.endswith("to the end")
    assert errors == "error"
    assert outcome.extension == ({"printed": [len(output), len(errors)]} if granted else {})


@linux
def test_counts_come_with_every_kind_of_outcome(caller):
    worker = caller(granted=True)
    text = """
    import evener
    def f(what):
        print(what)
        if what == "raise": raise ValueError
        if what == "cancel": raise evener.Cancelled
        return what
    """
    function = worker.learn(text)
    for what, verb in (("result", NEXT), ("raise", RAISED), ("cancel", FAIL)):
        outcome = worker.ask(function, what)
        assert outcome.verb == verb
        assert outcome.extension.pop("printed") == [len(what) + 1, 0]
        assert set(outcome.extension) == ({"type", "message", "traceback"} if verb == RAISED else set())
        assert read(worker, [len(what) + 1, 0]) == (what + "\n", "")
    worker.send(calls(function, ["a", "raise", "b"]))
    assert worker.outcome().extension == {"printed": [10, 0]}
    assert unread(worker) == ("a\nraise\nb\n", "")


@linux
def test_a_large_result_brings_counts_too(caller):
    worker = caller(granted=True)
    function = worker.learn("def f(size):\n  print(size)\n  return bytes(size)")
    outcome = worker.ask(function, 1_000_000)
    assert (outcome.extension, len(outcome.result)) == ({"printed": [8, 0], "size": 1_000_009}, 1_000_000)


@linux
def test_there_are_no_counts_without_credit_or_without_output(caller):
    worker = caller()
    function = worker.learn(PRINT)
    assert worker.ask(function, "text").extension == {}
    assert unread(worker) == ("text", "")
    worker.grant()
    assert worker.ask(function, "").extension == {}
    assert worker.ask(function, "text", "error").extension == {"printed": [4, 5]}


@linux
def test_counts_tell_whose_output_it_is(caller):
    worker = caller(granted=True)
    function = worker.learn(PRINT)
    texts = [("x" * (name * 7 % 5), "y" * (name * 3 % 4)) for name in range(AHEAD + 1)]
    for _ in range(20):
        worker.send(b"".join(call(function, *text, job=name) for name, text in enumerate(texts)))
        for name, text in enumerate(texts):
            outcome = worker.outcome()
            assert outcome.job == name
            counts = outcome.extension.get("printed", [0, 0])
            assert counts == [len(text[0]), len(text[1])]
            assert read(worker, counts) == text


@linux
def test_a_call_waits_until_the_output_before_it_was_read(caller):
    worker = caller(granted=True)
    function = worker.learn("import time\ndef f(text):\n  print(text, flush=True)\n  return time.monotonic()")
    worker.send(call(function, "one", job=1) + call(function, "two", job=2))
    first = worker.outcome()
    assert first.extension == {"printed": [4, 0]}
    time.sleep(0.2)
    read_at = time.monotonic()
    assert unread(worker) == ("one\n", "")
    second = worker.outcome()
    assert second.extension == {"printed": [4, 0]}
    assert second.result >= read_at
    # The time that it waited is not the function's own.
    assert second.nanoseconds < 10**8
    # Nobody reads: it goes on all the same, and answers meanwhile.
    worker.send(call(function, "three", job=3) + call(function, "four", job=4) + call(function, "five", job=5))
    assert worker.outcome().extension["printed"] == [4 + 6, 0]
    worker.send(frame(RECALL, job=5))
    sent = time.monotonic()
    assert (worker.outcome().verb, time.monotonic() - sent < 0.4) == (RETURNED, True)
    assert worker.outcome().extension["printed"] == [4 + 6 + 5, 0]


@linux
def test_a_full_pipe_does_not_keep_jobs_from_being_given_back(caller):
    worker = caller(granted=True)
    function = worker.learn(PRINT)
    worker.send(call(function, "x" * 1000, keywords={"times": 200}), call(function, "2", job=2))
    worker.send(call(function, "3", job=3))
    # It is stuck in the middle of a print until somebody reads.
    worker.send(frame(RECALL, job=3), frame(RECALL, job=2))
    assert [(outcome.job, outcome.verb) for outcome in (worker.outcome(), worker.outcome())] == [
        (3, RETURNED),
        (2, RETURNED),
    ]
    # A pipe holds less than its size, if what was written filled no whole pages.
    left = 200_000
    while left > 20_000:
        left -= len(os.read(worker.process.stdout.fileno(), 10_000))
    # It counted when the call had ended, which may have been before the last of these reads.
    assert left <= worker.outcome().extension["printed"][0] <= 65_536


def test_no_credit_where_output_is_no_pipe(tmp_path, caller):
    for where in ("/dev/null", tmp_path / "file"):
        with open(where, "wb") as out:  # noqa: PTH123
            worker = caller(stdout=out)
            worker.send(frame(CREDIT, job=0, attempt=0))
            assert worker.ask(worker.learn(PRINT), "text").extension == {}
            assert worker.leave()[0] == 0


SPOILERS = {
    "closes it": "sys.stdout.close(); sys.stderr.close()",
    "takes it apart": "sys.stdout.detach(); sys.stderr.detach()",
    "replaces it": "sys.stdout = io.StringIO(); sys.stderr = io.StringIO()",
    "removes it": "sys.stdout = None; sys.stderr = None",
    "replaces it by nonsense": "sys.stdout = 17; sys.stderr = 'x'",
    "deletes it": "del sys.stdout, sys.stderr",
    "closes the descriptors": "os.close(1); os.close(2); time.sleep(0.001)",
    "puts something over the descriptors": "os.dup2(null, 1); os.dup2(null, 2); time.sleep(0.001)",
    "closes and replaces": "sys.stdout.close(); sys.stdout = io.StringIO(); sys.stderr.close(); sys.stderr = None",
}


@pytest.mark.parametrize("name", SPOILERS)
@pytest.mark.parametrize("granted", [True, False])
def test_the_next_call_can_print_whatever_one_does_to_the_streams(caller, name, granted):
    worker = caller(granted=granted)
    text = f"""
    import io, os, sys, time
    def f(value):
        null = os.open("/dev/null", os.O_WRONLY)
        {SPOILERS[name]}
        return value
    """
    spoil, function = worker.learn(text), worker.learn(PRINT)
    for turn in range(3):
        assert worker.ask(spoil, turn).result == turn
        assert worker.ask(function, "text\n", "error\n").result == 5
        assert unread(worker) == ("text\n", "error\n"), turn
    worker.send(calls(spoil, [1, 2]))
    assert worker.outcome().verb in (NEXT, RAISED)
    assert worker.leave()[0] == 0


def test_a_child_process_gets_the_streams_back_too(caller):
    worker = caller()
    text = "import os, time\ndef f():\n  os.dup2(os.open('/dev/null', os.O_WRONLY), 1)\n  time.sleep(0.001)"
    worker.ask(worker.learn(text))
    worker.ask(worker.learn("import subprocess\ndef f(): subprocess.run(['echo', 'here'], check=True)"))
    assert unread(worker) == ("here\n", "")


def test_children_do_not_get_the_private_descriptors(caller):
    worker = caller()
    text = """
    import subprocess
    def f():
        done = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, stdout=subprocess.PIPE, text=True)
        return done.stdout.split()
    """
    if sys.platform == "linux":
        assert len(worker.ask(worker.learn(text)).result) == 4


def test_nobody_reads_what_it_prints(caller):
    worker = caller()
    function = worker.learn(PRINT)
    worker.process.stdout.close()
    for _ in range(3):
        assert worker.ask(function, "x").result == 1
    assert worker.ask(worker.learn("def f(): print('x')")).verb in (NEXT, RAISED)
    worker.socket.close()
    assert worker.process.wait(15) == 0


def test_reading_standard_input_is_its_end(caller):
    worker = caller()
    function = worker.learn("import sys\ndef f(how): return input('?') if how else sys.stdin.read()")
    assert worker.ask(function, True).raised["type"] == "EOFError"
    assert worker.ask(function, False).result == ""
    assert unread(worker) == ("?", "")


def test_the_log_of_a_call_has_its_level_in_words(caller):
    worker = caller()
    text = """
    import evener, logging
    def f():
        evener.context().log.warning("careful %d", 3)
        logging.getLogger("other").warning("plain")
    """
    worker.ask(worker.learn(text, "f"))
    assert unread(worker)[1] == "WARNING f: careful 3\nplain\n"


def test_output_of_a_thread_is_not_lost(caller):
    worker = caller()
    text = """
    import threading, time
    def later():
        time.sleep(0.1)
        print("later")
    def f():
        threading.Thread(target=later).start()
    """
    worker.ask(worker.learn(text))
    assert worker.line() == "later\n"
