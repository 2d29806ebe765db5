"""Calls that fork, use multiprocessing, or leave threads behind."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pytest

from conftest import AHEAD, CANCEL, FAIL, SOURCES, call, calls, frame

FORK = """
import evener, os, sys, threading, time
def f(how, pause=0):
    time.sleep(pause)
    pid = os.fork()
    if pid == 0:
        evener.context().cancelled()
        if how == "exit":
            sys.exit(7)
        if how == "raise":
            raise ValueError("in the child")
        if how == "lock":
            return threading.Lock()
        return "from the child"
    time.sleep(pause)
    return os.waitpid(pid, 0)[1] >> 8
"""
CODES = {"exit": 7, "raise": 1, "return": 1, "lock": 1}


@pytest.mark.parametrize("granted", [True, False])
@pytest.mark.parametrize("how", CODES)
def test_a_forked_process_does_not_answer(caller, granted, how):
    worker = caller(granted=granted)
    function = worker.learn(FORK)
    assert worker.ask(function, how).result == CODES[how]
    # Nor does it go on with the rest of a group.
    worker.send(calls(function, [how] * 5))
    assert worker.outcome().result == ([CODES[how]] * 5, [])
    code, _, errors = worker.leave()
    assert code == 0
    if how == "raise":
        assert errors.count("ValueError: in the child") == 6
    if how == "return":
        assert errors.count("came out of the job") == 6


def test_a_forked_process_does_not_answer_for_jobs_ahead(caller):
    worker = caller(granted=True)
    function = worker.learn(FORK)
    randomness = random.Random(5)
    for _ in range(3):
        ways = [randomness.choice(list(CODES)) for _ in range(AHEAD)]
        pauses = [randomness.choice([0, 0, 0, 0.04]) for _ in ways]
        worker.send(b"".join(call(function, *both, job=name) for name, both in enumerate(zip(ways, pauses))))
        outcomes = []
        for _ in ways:
            outcomes.append(worker.outcome())
            # As a node does.
            for pipe, count in zip(
                (worker.process.stdout, worker.process.stderr), outcomes[-1].extension.get("printed", ())
            ):
                if count:
                    os.read(pipe.fileno(), count)
        assert [outcome.result for outcome in outcomes] == [CODES[way] for way in ways]
    assert worker.leave()[0] == 0


POOL = """
import concurrent.futures, multiprocessing
class Horse:
    def __init__(self, name): self.name = name
def square(x):
    return x * x
def name(horse):
    return Horse(horse.name + "!")
def f(method, executor):
    context = multiprocessing.get_context(method)
    if executor:
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            return list(pool.map(square, [1, 2, 3])), [each.name for each in pool.map(name, [Horse("a")])]
    with context.Pool(2) as pool:
        return pool.map(square, [1, 2, 3]), [each.name for each in pool.map(name, [Horse("a")])]
"""


@pytest.mark.parametrize("executor", [True, False])
@pytest.mark.parametrize("granted", [True, False])
def test_multiprocessing_works_where_it_forks(caller, executor, granted):
    worker = caller(granted=granted)
    function = worker.learn(POOL)
    for _ in range(2):
        assert worker.ask(function, "fork", executor).result == ([1, 4, 9], ["a!"])
    assert worker.leave()[0] == 0


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing_says_what_it_cannot_send_to_a_fresh_process(caller, method):
    worker = caller()
    function = worker.learn(POOL)
    found = worker.ask(function, method, False).raised
    assert "square" in found["message"]
    assert "pickle" in found["message"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing_in_fresh_processes_works_with_modules(caller, method, tmp_path):
    worker = caller(source="def square(x): return x * x")
    text = """
    import multiprocessing, os
    def f(method):
        from m import square
        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.map(square, [1, 2, 3]), set(pool.map(os.path.basename, ["a/b"]))
    """
    assert worker.ask(worker.learn(text), method).result == ([1, 4, 9], {"b"})
    assert worker.leave()[0] == 0


def test_a_fresh_process_is_not_another_worker(caller):
    worker = caller()
    text = """
    import multiprocessing, os, sys
    def f():
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            return pool.apply(eval, ("[n for n in __import__('sys').modules if 'evener' in n]",))
    """
    assert worker.ask(worker.learn(text)).result == []


def test_the_names_of_a_call_are_gone_with_it(caller):
    worker = caller()
    worker.ask(worker.learn("def square(x): return x\ndef f(): return square(1)"))
    function = worker.learn("import __main__\ndef f(): return hasattr(__main__, 'square'), hasattr(__main__, 'f')")
    assert worker.ask(function).result[0] is False


def test_results_of_the_callers_classes_go_by_value_although_main_knows_their_names(caller):
    worker = caller()
    text = """
    import __main__
    class Horse: pass
    def f():
        assert __main__.Horse is Horse
        global Mule
        class Mule: pass
        return Horse(), Mule()
    """
    horse, mule = worker.ask(worker.learn(text)).result
    assert (type(horse).__name__, type(mule).__name__) == ("Horse", "Mule")


@pytest.mark.parametrize("granted", [True, False])
def test_threads_left_behind_do_no_harm(caller, granted):
    worker = caller(granted=granted)
    text = """
    import evener, threading, time
    def stay(ctx):
        while True:
            ctx.cancelled()
            evener.context()
            time.sleep(0.001)
    def fail():
        raise ValueError("in a thread")
    def f(x):
        for target, args in ((stay, (evener.context(),)), (threading.Event().wait, ()), (fail, ())):
            threading.Thread(target=target, args=args).start()
        return x
    """
    function, same = worker.learn(text), worker.learn("def f(x): return x")
    for turn in range(5):
        assert worker.ask(function, turn).result == turn
        for _ in range(100):
            assert worker.ask(same, turn).result == turn
    code, _, errors = worker.leave()
    assert code == 0
    assert errors.count("ValueError: in a thread") == 5


def test_a_terminate_ends_a_call(caller):
    worker = caller()
    function = worker.learn("import time\ndef f():\n  print('begun')\n  time.sleep(60)")
    worker.send(call(function))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(15) == -signal.SIGTERM


def test_an_interrupt_is_not_for_the_call(caller):
    worker = caller()
    function = worker.learn("import time\ndef f():\n  print('begun', flush=True)\n  time.sleep(0.3)\n  return 1")
    worker.send(call(function))
    assert worker.line() == "begun\n"
    worker.process.send_signal(signal.SIGINT)
    assert worker.outcome().result == 1


def test_an_exit_inside_a_call_loses_the_worker(caller):
    worker = caller()
    worker.send(call(worker.learn("import os\ndef f(): os._exit(9)")))
    assert worker.gone()[0] == 9


def test_a_signal_handler_of_a_call_may_raise_in_the_next(caller):
    worker = caller()
    text = """
    import signal, time
    def ring(*_): raise TimeoutError("alarm")
    def f(pause):
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        time.sleep(pause)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return pause
    """
    function = worker.learn(text)
    assert worker.ask(function, 5).raised["type"] == "TimeoutError"
    assert worker.ask(function, 0).result == 0


def test_a_call_that_nobody_waits_for_may_go_on(caller):
    worker = caller(granted=True)
    function = worker.learn("import time\ndef f():\n  print('begun', flush=True)\n  time.sleep(0.2)\n  return 1")
    worker.send(call(function))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL))
    assert worker.outcome().verb != FAIL
    before = time.monotonic()
    assert worker.leave()[0] == 0
    assert time.monotonic() - before < 5


def test_the_package_of_the_worker_starts_no_client(caller):
    worker = caller(env={"PYTHONPATH": str(SOURCES)})
    text = (
        "import sys\ndef f():\n  import evener\n  return [name for name in sys.modules if name.startswith('evener.')]"
    )
    assert worker.ask(worker.learn(text)).result == ["evener._worker"]
    assert sys.modules["conftest"]
