"""What a function prints: whole, in order, live, to the caller that made the call and to nobody else."""

import contextlib
import ctypes
import os
import random
import subprocess
import sys

import evener
import pytest

from functions import work
from harness import until
from harness.engine import client_of

LIMIT = 8 << 20


def _prints(text="hello"):
    print(text)
    print("to standard error", file=sys.stderr)


def test_the_future_and_the_callers_own_streams_get_it(remote, capsys):
    future = remote(_prints).submit()
    future.result(20)
    assert (future.stdout, future.stderr) == ("hello\n", "to standard error\n")
    assert capsys.readouterr() == ("hello\n", "to standard error\n")
    # With `run` it is there when the call returns.
    remote(_prints).run("again")
    assert capsys.readouterr() == ("again\n", "to standard error\n")


def test_captured_output_is_on_the_future_alone(remote, capsys):
    future = remote(_prints, output="capture").submit()
    future.result(20)
    assert (future.stdout, future.stderr) == ("hello\n", "to standard error\n")
    assert capsys.readouterr() == ("", "")


def test_discarded_output_is_nowhere(engine, capsys):
    future = engine.function(_prints, output="discard").submit()
    future.result(20)
    assert (future.stdout, future.stderr) == ("", "")
    assert capsys.readouterr() == ("", "")
    if engine.node:
        assert "hello" not in engine.node.log


def test_an_error_has_what_was_printed_before_it(remote, capsys):
    def fail(*_items):
        print("before")
        print("why", file=sys.stderr)
        raise ValueError("after")

    failing = remote(fail, output="capture")
    future = failing.submit()
    errors = [future.exception(20)]
    with pytest.raises(ValueError, match="after") as caught:
        failing.run()
    errors.append(caught.value)
    errors += failing.map([1], return_exceptions=True)
    for error in errors:
        assert (error.stdout, error.stderr) == ("before\n", "why\n")
    assert capsys.readouterr() == ("", "")


def _all_layers(round_):
    print("python", round_)
    os.write(1, f"os.write {round_}\n".encode())
    libc = ctypes.CDLL(None)
    libc.puts(f"puts {round_}".encode())
    libc.fflush(None)
    subprocess.run(["sh", "-c", f"echo program {round_}; echo its error {round_} >&2"], check=True)
    os.system(f"echo shell {round_}")
    sys.stdout.write(f"unfinished {round_};")
    sys.__stdout__.write(f" original {round_}\n")
    sys.stdout.buffer.write(f"buffer {round_}\n".encode())
    os.write(2, f"written {round_}\n".encode())


def test_every_layer_counts_in_the_order_in_which_it_wrote(remote):
    def work_():
        for round_ in range(20):
            _all_layers(round_)
            sys.stdout.flush()

    # Within one stream the order is that of the writes, whoever made them.
    future = remote(work_, output="capture").submit()
    future.result(30)
    out = "".join(
        f"python {n}\nos.write {n}\nputs {n}\nprogram {n}\nshell {n}\nunfinished {n}; original {n}\nbuffer {n}\n"
        for n in range(20)
    )
    assert future.stdout == out
    assert future.stderr == "".join(f"its error {n}\nwritten {n}\n" for n in range(20))


def test_c_code_that_never_flushes_still_counts(remote):
    def work_():
        ctypes.CDLL(None).puts(b"kept in the buffer of C")

    future = remote(work_, output="capture").submit()
    future.result(20)
    assert future.stdout == "kept in the buffer of C\n"
    quiet = remote(lambda: None, output="capture").submit()
    quiet.result(20)
    assert quiet.stdout == ""


def test_output_is_seen_while_the_function_runs(remote, signs, capsys):
    def talk():
        print("first")
        print("no newline yet", end="", flush=True)
        print("trouble", file=sys.stderr)
        signs.wait_for("go")
        print(" and the rest")

    future = remote(talk).submit()
    until(lambda: future.stdout == "first\nno newline yet" and future.stderr == "trouble\n", "the first words")
    seen = ["", ""]

    def echoed():
        for place, more in enumerate(capsys.readouterr()):
            seen[place] += more
        return seen == ["first\nno newline yet", "trouble\n"]

    until(echoed, "the first words on our own streams")
    assert not future.done()
    assert future.running()
    signs.open("go")
    future.result(20)
    assert future.stdout == "first\nno newline yet and the rest\n"


def test_text_that_is_no_utf_8_and_characters_cut_in_two_arrive(remote):
    def write():
        for piece in (b"\xe2", b"\x98", b"\x83 ", b"\xff", b" \xe2\x98"):
            os.write(1, piece)

    future = remote(write, output="capture").submit()
    future.result(20)
    assert future.stdout == "\N{SNOWMAN} \\xff \\xe2\\x98"


@pytest.mark.parametrize("stream", [1, 2])
def test_what_goes_beyond_the_limit_is_cut_with_a_mark(remote, stream):
    def flood(stream):
        block = b"0123456789abcde\n" * 65536
        for _ in range(12):
            os.write(stream, block)
        return "done"

    future = remote(flood, output="capture").submit(stream)
    assert future.result(50) == "done"
    text = future.stdout if stream == 1 else future.stderr
    kept, mark = text[:LIMIT], text[LIMIT:]
    assert kept == "0123456789abcde\n" * (LIMIT // 16)
    assert mark == f"[output cut at {LIMIT} bytes]\n"
    # The next call has all its room.
    again = remote(_prints, output="capture").submit("next")
    again.result(20)
    assert again.stdout == "next\n"


def test_the_pools_own_limit_holds(start_shared):
    engine = start_shared(default="workers: 1, output: 1KiB")
    future = engine.client.function(lambda: print("x" * 600 + "\n" + "y" * 600), output="capture").submit()
    future.result(20)
    assert future.stdout == "x" * 600 + "\n" + "y" * 423 + "\n[output cut at 1024 bytes]\n"
    exact = engine.client.function(lambda: print("z" * 1023), output="capture").submit()
    exact.result(20)
    assert exact.stdout == "z" * 1023 + "\n"
    # A flood does not hold up the function, and what others print is whole.
    flood = engine.client.function(lambda: print("x" * 50_000_000), output="capture").submit()
    small = engine.client.function(lambda: print("small"), output="capture").submit()
    flood.result(30)
    small.result(20)
    assert len(flood.stdout) < 1100
    assert small.stdout == "small\n"


def test_output_of_groups_is_echoed_and_whole(remote, capsys):
    def shout(x):
        print(f"<{x}>")
        return x

    assert list(remote(shout).map(range(2000))) == list(range(2000))
    out = capsys.readouterr().out
    assert sorted(out.split()) == sorted(f"<{x}>" for x in range(2000))


@pytest.mark.parametrize("seed", [1, 2])
def test_of_thousands_of_calls_each_has_its_own_output_and_no_other(engine, seed):
    """Calls that print much, little and nothing, quick and slow, by turns on two workers."""

    def work_(number, lines, how, error):
        for line in range(lines):
            text = f"{number}.{line}\n"
            if how == 0:
                print(text, end="")
            elif how == 1:
                os.write(1, text.encode())
            else:
                print(text, end="", flush=True)
        if error:
            print(f"error of {number}", file=sys.stderr)
        return number

    choose = random.Random(seed)
    function = engine.function(work_, output="capture")
    calls = []
    for number in range(2500):
        lines = choose.choice([0, 0, 0, 0, 1, 1, 2, 200 if choose.random() < 0.1 else 3])
        error = choose.random() < 0.1
        calls.append((number, lines, error, function.submit(number, lines, choose.randrange(3), error)))
    for number, lines, error, future in calls:
        assert future.result(50) == number
        assert future.stdout == "".join(f"{number}.{line}\n" for line in range(lines))
        assert future.stderr == (f"error of {number}\n" if error else "")


def test_two_clients_hear_only_their_own_calls(start_shared):
    engine = start_shared(default="workers: 2")
    clients = [engine.client, client_of(engine.node)]
    try:
        shout = [client.function(lambda name, x: x % 2 and print(name, x), output="capture") for client in clients]
        futures = [(name, x, shout[name].submit(name, x)) for x in range(1500) for name in range(2)]
        for name, x, future in futures:
            future.result(50)
            assert future.stdout == (f"{name} {x}\n" if x % 2 else "")
    finally:
        clients[1].close()
    assert "1 1\n" not in engine.node.log


def test_two_scripts_at_once_show_only_their_own(script, start_shared):
    engine = start_shared()
    env = {"EVENER_URL": engine.node.url("api"), "XDG_RUNTIME_DIR": str(engine.node.runtime)}
    text = """
        import sys, time
        import evener

        @evener.function
        def shout(name, x):
            print(name, x)
            time.sleep(0.0005 * (x % 3))

        for future in [shout.submit(sys.argv[1], x) for x in range(400)]:
            future.result()
        """
    scripts = {name: script(text, env=env, arguments=[name]) for name in ("one", "two")}
    for name, started in scripts.items():
        lines = started.succeed().splitlines()
        assert sorted(lines) == sorted(f"{name} {x}" for x in range(400))
        assert started.err == ""


def test_a_thread_that_prints_after_its_call_disturbs_no_other(remote, signs):
    def leave_a_thread():
        import threading  # noqa: PLC0415

        def late():
            signs.wait_for("go")
            print("late words")
            signs.note("said")

        threading.Thread(target=late, daemon=True).start()
        print("in time")

    future = remote(leave_a_thread, output="capture").submit()
    future.result(20)
    signs.open("go")
    signs.wait_notes("said")
    assert future.stdout == "in time\n"
    # What was written while no call was there is nobody's.
    for _ in range(4):
        after = remote(_prints, output="capture").submit("mine")
        after.result(20)
        assert after.stdout == "mine\n"


def test_logging_and_warnings_of_a_function_reach_the_caller(remote):
    def talk():
        import logging  # noqa: PLC0415
        import warnings  # noqa: PLC0415

        logging.getLogger("of.the.function").warning("careful")
        warnings.warn("be warned", stacklevel=1)
        evener.context().log.info("noted")

    future = remote(talk, output="capture").submit()
    future.result(20)
    assert "careful" in future.stderr
    assert "be warned" in future.stderr
    assert "noted" in future.stderr


def test_a_stream_that_refuses_costs_the_call_nothing(remote, monkeypatch):
    class Broken:
        def write(self, _text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Broken())
    future = remote(_prints).submit()
    assert future.result(20) is None
    assert future.stdout == "hello\n"


def test_a_reader_that_is_gone_does_not_stop_the_script(script, place):
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, writing)
        started = script(
            """
            import os, sys
            import evener
            sys.stdin.read()
            os.dup2(int(sys.argv[1]), 1)
            f = evener.function(lambda x: print("x" * 1000) or x)
            assert [f.run(x) for x in range(50)] == list(range(50))
            os.write(2, b"all good\\n")
            os._exit(0)
            """,
            env=place,
            arguments=[writing],
            stdin=subprocess.PIPE,
            pass_fds=[writing],
        )
        os.close(reading)
        started.process.stdin.close()
    assert started.wait() == 0, started.err
    assert started.err.endswith("all good\n")


def test_quick_calls_that_print_nothing_stay_quick_beside_one_that_prints(engine):
    function = engine.function(lambda x: x, output="capture")
    loud = engine.function(lambda: [print("x" * 100) for _ in range(2000)] and None, output="capture")
    futures = [function.submit(x) for x in range(300)]
    shouting = loud.submit()
    futures += [function.submit(x) for x in range(300, 600)]
    assert [future.result(20) for future in futures] == list(range(600))
    shouting.result(20)
    assert shouting.stdout == ("x" * 100 + "\n") * 2000
    assert {future.stdout for future in futures} == {""}
    assert work.square(2) == 4
