"""How scripts end while calls run: what they say, what is left, and what Ctrl-C and a fork do."""

import os
import signal
import textwrap
import time

import pytest

from harness import until
from harness.script import interrupt_group

BUSY = """
import os, signal, sys, threading, time
import evener

HERE = os.getcwd()

def forever(_place=0):
    with open(os.path.join(HERE, "begun"), "a") as file:
        file.write(f"{os.getpid()}\\n")
    while True:
        time.sleep(0.01)

forever = evener.function(forever)

def begun(count=1):
    while not os.path.exists("begun") or len(open("begun").readlines()) < count:
        time.sleep(0.01)
    print("busy", flush=True)

def begin():
    futures = [forever.submit(n) for n in range(50)]
    begun()
    return futures
"""

# How long an engine may outlive its script.
GONE = 1.0


@pytest.fixture(scope="module")
def shared(start_shared):
    """An engine that others share, which does not wait long for calls that nobody waits for."""
    return start_shared(default="workers: 2, grace: 100ms")


@pytest.fixture(params=["private", "shared"])
def busy(request, script):
    """Starts scripts that are busy and then do what is given; checks that nothing is left of them."""
    mode, started = request.param, []
    engine = request.getfixturevalue("shared") if mode == "shared" else None
    env = {"EVENER_URL": engine.node.url("api"), "XDG_RUNTIME_DIR": str(engine.node.runtime)} if engine else {}

    def start(text, **options):
        started.append(script(BUSY + textwrap.dedent(text), env=env, **options))
        started[-1].mode = mode
        return started[-1]

    yield start
    for one in started:
        one.assert_nothing_survives(GONE)
    if engine:
        until(lambda: len(engine.client.workers()) == 2, "both workers")
        until(lambda: not any(worker.busy for worker in engine.client.workers()), "idle workers")
        assert engine.client.submit(pow, 2, 10).result(20) == 1024


@pytest.mark.parametrize(
    ("how", "code", "last"),
    [
        ("begin()", 0, ""),
        ("futures = begin()", 0, ""),
        ("futures = begin(); evener._keep = futures", 0, ""),
        ("begin(); sys.exit(3)", 3, ""),
        ("begin(); sys.exit('a text')", 1, "a text"),
        ("begin(); raise LookupError('the end')", 1, "LookupError: the end"),
        ("begin(); os._exit(4)", 4, ""),
        ("futures = begin(); del futures; import gc; gc.collect()", 0, ""),
        ("results = forever.map(range(100)); begun()", 0, ""),
        ("threading.Thread(target=forever.run, daemon=True).start(); begun()", 0, ""),
        ("threading.Thread(target=lambda: begin()[-1].result(), daemon=True).start(); begun()", 0, ""),
        ("threading.Thread(target=lambda: list(forever.map([1])), daemon=True).start(); begun()", 0, ""),
        ("begin()[0].add_done_callback(lambda f: print('told', f.done()))", 0, ""),
        ("client = evener.Client(); f = client.submit(forever.__wrapped__); begun()", 0, ""),
        ("with evener.Client() as client: client.submit(forever.__wrapped__); begun()", 0, ""),
    ],
)
def test_a_script_that_ends_while_calls_run_ends_cleanly(busy, how, code, last):
    started = busy(how)
    assert started.wait() == code, started.ended_early()
    assert started.out.startswith("busy\n")
    lines = started.err.splitlines()
    if last:
        assert lines[-1] == last
        assert len([line for line in lines if not line.startswith(" ")]) <= 2
    elif "daemon" in how:
        # A thread that waits may learn that the client was closed, before it ends with the program.
        assert {line for line in lines if "Error" in line and not line.startswith(" ")} == set()
    else:
        assert lines == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_script_that_is_killed_takes_its_calls_along(busy, number):
    started = busy("begin(); time.sleep(60)")
    started.wait_out("busy")
    workers = len(os.sched_getaffinity(0)) if started.mode == "private" else 2
    file = started.folder / "begun"
    until(lambda: len(file.read_text().split()) == workers, "a call on every worker")
    began = [int(line) for line in file.read_text().split()]
    assert all(os.path.exists(f"/proc/{pid}") for pid in began)
    if started.mode == "private":
        [engine] = started.engines()
        assert len(started.workers()) == workers
    started.send(number)
    ended = time.monotonic()
    assert started.wait() == -number
    if started.mode == "private":
        until(lambda: not engine.is_alive, "the end of the engine", within=GONE)
    started.assert_nothing_survives(GONE)
    # The calls that run are stopped, those that wait never begin.
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in began), "the end of the workers", within=5)
    assert time.monotonic() - ended < 5
    assert [int(line) for line in file.read_text().split()] == began


def test_an_engine_that_still_starts_ends_with_its_script(script):
    started = script(
        """
        import os, signal, threading
        import evener
        threading.Thread(target=evener.function(abs).run, args=(-1,), daemon=True).start()
        while not os.popen(f"pgrep -P {os.getpid()} evener").read():
            pass
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert started.wait() == -signal.SIGKILL
    started.assert_nothing_survives(GONE)


def test_children_of_calls_end_with_the_script(busy):
    started = busy(
        """
        @evener.function
        def child():
            import subprocess
            return subprocess.Popen(["sleep", "60"], start_new_session=True).pid
        print(child.run(), flush=True)
        begin()
        time.sleep(60)
        """
    )
    started.wait_out("busy")
    sleeper = int(started.out.split()[0])
    assert os.path.exists(f"/proc/{sleeper}")
    if started.mode == "shared":
        # A shared engine goes on, and with it what its workers have left running.
        os.kill(sleeper, signal.SIGKILL)
    started.send(signal.SIGKILL)
    started.wait()
    until(lambda: not os.path.exists(f"/proc/{sleeper}"), "the end of what a call has started", within=2)


@pytest.mark.parametrize(
    "wait",
    [
        "forever.run()",
        "forever.submit().result()",
        "list(forever.map([1, 2, 3]))",
        "evener.wait([forever.submit()])",
        "next(evener.as_completed([forever.submit()]))",
        "import asyncio; asyncio.run(main())",
    ],
)
def test_ctrl_c_ends_a_script_that_waits(busy, wait):
    started = busy(
        f"""
        async def main():
            await forever.submit()
        threading.Thread(target=begun, daemon=True).start()
        {wait}
        """,
        start_new_session=True,
    )
    started.wait_out("busy")
    interrupted = time.monotonic()
    interrupt_group(started.process)
    assert started.wait() == -signal.SIGINT
    assert time.monotonic() - interrupted < 3
    assert started.err.splitlines()[-1] == "KeyboardInterrupt"
    # Only the script has heard of it, and not its workers.
    assert started.err.count("KeyboardInterrupt\n") == 1


def test_a_script_that_catches_ctrl_c_goes_on_with_its_engine(busy):
    started = busy(
        """
        who = evener.function(os.getppid)
        before = who.run()
        threading.Thread(target=begun, daemon=True).start()
        try:
            forever.run()
        except KeyboardInterrupt:
            print("caught", flush=True)
        assert who.run() == before
        assert evener.function(abs).run(-1) == 1
        print("went on")
        """,
        start_new_session=True,
    )
    started.wait_out("busy")
    pid = int((started.folder / "begun").read_text())
    interrupt_group(started.process)
    started.wait_out("caught", within=2)
    assert started.succeed() == "busy\ncaught\nwent on\n"
    assert started.err == ""
    # The call that nobody waits for was stopped.
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of its worker", within=8)


def test_a_fork_cannot_use_the_connection_and_does_the_parent_no_harm(busy):
    started = busy(
        """
        import warnings
        # Newer versions of Python warn of forks beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        square = evener.function(lambda x: x * x)
        gate = os.path.join(HERE, "gate")
        slow = evener.function(lambda x: ([time.sleep(0.01) for _ in iter(lambda: os.path.exists(gate), True)], x)[1])
        assert square.run(2) == 4
        executor = evener.Executor()
        assert executor.submit(abs, -1).result() == 1
        pending = slow.submit(7)
        results = slow.map([5, 6])

        def fails(function):
            try:
                function()
            except evener.ForkError as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError(function)

        child = os.fork()
        if child == 0:
            fails(lambda: square.run(2))
            fails(lambda: square.submit(2))
            fails(lambda: list(square.map(range(3))))
            fails(lambda: pending.result(1))
            fails(lambda: list(results))
            fails(lambda: executor.submit(abs, -1))
            assert square(3) == 9
            executor.shutdown()
            sys.exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        assert not pending.done()
        open(gate, "w").close()
        assert pending.result(10) == 7
        assert list(results) == [5, 6]
        assert square.run(4) == 16
        executor.shutdown()
        print("unharmed")
        """
    )
    assert started.wait(20) == 0, started.ended_early()
    assert started.out == "unharmed\n"
    assert started.err == ""


def test_a_forked_pool_gets_the_error_as_well(busy):
    started = busy(
        """
        import concurrent.futures, multiprocessing
        @evener.function
        def square(x):
            return x * x

        def remotely(x):
            return square.run(x)

        assert square.run(2) == 4
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert type(pool.submit(remotely, 2).exception()) is evener.ForkError
            # The plain call is one like any other.
            assert pool.submit(square, 3).result() == 9
        assert square.run(3) == 9
        """
    )
    assert started.wait() == 0, started.ended_early()


def test_evener_may_be_used_after_a_fork_that_came_first(busy):
    started = busy(
        """
        square = evener.function(abs)
        child = os.fork()
        assert square.run(-2) == 2
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert square.run(-3) == 3
        """
    )
    assert started.wait() == 0, started.ended_early()


def test_a_spawned_process_has_a_connection_of_its_own(busy):
    started = busy(
        """
        import concurrent.futures, multiprocessing

        def remotely(x):
            return evener.function(os.getpid).run(), os.getpid()

        if __name__ == "__main__":
            assert evener.function(abs).run(-2) == 2
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                worker, here = pool.submit(remotely, 1).result()
            assert len({worker, here, os.getpid()}) == 3
            assert evener.function(abs).run(-2) == 2
        """
    )
    assert started.wait() == 0, started.ended_early()


def test_a_handler_that_runs_after_everything_is_closed_does_not_hang(script, place):
    started = script(
        """
        import atexit
        def late():
            try:
                print(function.run(-1))
            except Exception as error:
                print(type(error).__name__)
        atexit.register(late)
        import evener
        function = evener.function(abs)
        function.run(-1)
        """,
        env=place,
    )
    assert started.wait(20) == 0, started.ended_early()
    assert started.out in ("1\n", "EngineLost\n")
    assert started.err == ""
    started.assert_nothing_survives(GONE)
