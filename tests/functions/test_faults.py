"""Workers that die, hang or run out of memory, and calls that are cancelled: who suffers, how soon, who does not."""

import concurrent.futures
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import evener
import pytest

from functions import work
from harness import Process, until
from harness.signs import Signs

# How soon a call whose worker died is done again.
SOON = 1.0


@pytest.fixture
def restored(engine, tmp_path_factory):
    """Before and after the test, the engine has two workers, each of which has done something."""
    _warm(engine, Signs(tmp_path_factory.mktemp("warm")))
    yield engine
    _warm(engine, Signs(tmp_path_factory.mktemp("warm")))


def _warm(engine, signs):
    calls = [engine.function(_wait).submit(signs) for _ in range(2)]
    signs.wait_notes("begun", 2)
    signs.open("go")
    evener.wait(calls, 20)
    _idle(engine)


def _idle(engine):
    until(
        lambda: len(engine.client.workers()) == 2 and not any(worker.busy for worker in engine.client.workers()),
        "two idle workers",
    )


def _wait(signs, name="begun"):
    signs.note(name, os.getpid())
    signs.wait_for("go")
    return os.getpid()


def _die(signs, times, how, marker="died"):
    """Die in the first `times` tries."""
    tries = evener.context().tries
    signs.note("tries", f"{tries} {os.getpid()} {time.monotonic()}")
    if tries <= times:
        signs.note(marker, os.getpid())
        how()
    return tries


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _exit():
    os._exit(7)


def _crash():
    import faulthandler  # noqa: PLC0415

    faulthandler.disable()
    print("last words", file=sys.stderr)
    ctypes.string_at(0)


def _close_everything():
    os.closerange(0, 1000)
    time.sleep(60)


@pytest.mark.parametrize(
    ("how", "saying"),
    [(_kill, "SIGKILL"), (_exit, "code 7"), (_crash, "SIGSEGV"), (_close_everything, "")],
    ids=["SIGKILL", "exit", "segfault", "closes everything"],
)
def test_a_worker_that_dies_costs_its_call_and_nothing_else(restored, signs, how, saying):
    engine = restored
    before = engine.pids()
    held = engine.function(_wait).submit(signs)
    other = int(signs.wait_notes("begun")[0])
    future = engine.function(_die).submit(signs, 9, how)
    error = future.exception(20)
    assert type(error) is evener.WorkerDied
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    assert error.code == "worker-died"
    [died] = signs.notes("died")
    assert future.worker == int(died)
    assert saying in error.certificate
    if how is _crash:
        assert "last words" in error.stderr
        assert "last words" in error.certificate
    # The other worker is the same, its call goes on, and the dead one has a successor.
    until(lambda: len(engine.client.workers()) == 2 and engine.pids() != before, "the successor")
    after = engine.pids()
    assert set(before) - set(after) == {int(died)}
    assert other in after
    signs.open("go")
    assert held.result(20) == other
    assert len(signs.notes("tries")) == 1


@pytest.mark.parametrize("how", [_kill, _exit])
def test_retries_begin_within_a_second_on_another_worker(restored, signs, how):
    engine = restored
    future = engine.function(_die, retries=2).submit(signs, 2, how)
    assert future.result(20) == 3
    tries = [line.split() for line in signs.notes("tries")]
    assert [int(number) for number, _pid, _time in tries] == [1, 2, 3]
    assert len({pid for _number, pid, _time in tries}) == 3
    times = [float(when) for _number, _pid, when in tries]
    assert times[1] - times[0] < SOON
    assert times[2] - times[1] < SOON


def test_retries_are_not_more_than_allowed(restored, signs):
    error = restored.function(_die, retries=2).submit(signs, 99, _kill).exception(20)
    assert type(error) is evener.WorkerDied
    assert len(signs.notes("tries")) == 3
    assert "3" in str(error)


def test_a_kill_from_outside_is_noticed_at_once(restored, signs):
    future = restored.function(_wait).submit(signs)
    pid = int(signs.wait_notes("begun")[0])
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    error = future.exception(20)
    assert time.monotonic() - killed < SOON
    assert type(error) is evener.WorkerDied
    assert "SIGKILL" in error.certificate


def test_an_idle_worker_that_is_killed_costs_no_call(restored):
    engine = restored
    dying = [Process.at(pid) for pid in engine.pids()]
    for one in dying:
        one.kill()
    # A call that is on its way to one that is dead is one that may have begun.
    until(lambda: not {one.pid for one in dying} & set(engine.pids()), "that the engine knows")
    futures = [engine.client.submit(work.square, x) for x in range(50)]
    assert [future.result(20) for future in futures] == [x * x for x in range(50)]


def test_exceptions_are_never_tried_again(restored, signs):
    def fail():
        signs.note("tries")
        raise ValueError("as always")

    with pytest.raises(ValueError, match="as always"):
        restored.function(fail, retries=5).run()
    assert len(signs.notes("tries")) == 1


def test_a_group_that_dies_is_sent_again_one_by_one_if_retries_allow(restored):
    def poison(x):
        if x == 13:
            os._exit(13)
        return x

    results = list(restored.function(poison, retries=1).map(range(40), chunksize=20, return_exceptions=True))
    assert [x for x in results if not isinstance(x, Exception)] == [x for x in range(40) if x != 13]
    assert type(results[13]) is evener.WorkerDied
    without = list(restored.function(poison).map(range(40), chunksize=20, return_exceptions=True))
    assert without[20:] == list(range(20, 40))
    assert {type(error) for error in without[:20]} == {evener.WorkerDied}


def test_a_poisonous_call_among_many_good_ones_hurts_nobody(restored):
    def some(x):
        if x == 500:
            os._exit(1)
        return x

    futures = [restored.function(some).submit(x) for x in range(1000)]
    for x, future in enumerate(futures):
        if x == 500:
            assert type(future.exception(30)) is evener.WorkerDied
        else:
            assert future.result(30) == x


# Timeouts


@pytest.mark.parametrize("busy", ["sleeping", "computing", "deaf"])
def test_a_call_that_takes_too_long_is_stopped_and_its_worker_replaced(start_shared, signs, busy):
    engine = start_shared(default="workers: 2, grace: 100ms")

    def hang(signs):
        signs.note("begun", os.getpid())
        if busy == "deaf":
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        while True:
            if busy != "computing":
                time.sleep(0.01)

    held = engine.function(_wait).submit(signs, "other")
    other = int(signs.wait_notes("other")[0])
    future = engine.function(hang, timeout=0.3, output="capture").submit(signs)
    began = time.monotonic()
    error = future.exception(20)
    assert 0.2 < time.monotonic() - began < 3
    assert type(error) is evener.CallTimeout
    assert isinstance(error, TimeoutError)
    assert error.code == "stage-timeout"
    [hung] = signs.notes("begun")
    until(lambda: not Process.at(int(hung)), "the end of the worker that hung", within=5)
    until(lambda: len(engine.client.workers()) == 2, "its successor")
    assert other in engine.pids()
    signs.open("go")
    assert held.result(20) == other


def test_a_call_within_its_timeout_keeps_its_worker(restored):
    before = restored.pids()
    function = restored.function(work.sleep, timeout=20)
    assert [function.run(0.01) for _ in range(10)] == [0.01] * 10
    assert restored.pids() == before


def test_waiting_does_not_count_towards_the_timeout(restored, signs):
    engine = restored
    held = [engine.function(_wait).submit(signs) for _ in range(2)]
    signs.wait_notes("begun", 2)
    # It waits for longer than it may run.
    future = engine.function(work.sleep, timeout=0.3).submit(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.5)
    signs.open("go")
    assert future.result(20) == 0.01
    evener.wait(held, 20)


# Memory


def test_a_worker_that_runs_out_of_memory_is_lost_and_the_certificate_says_so(start_shared, signs):
    engine = start_shared(default="workers: 2, memory: 300MiB")
    before = engine.pids()
    held = engine.function(_wait).submit(signs)
    other = int(signs.wait_notes("begun")[0])

    def hog():
        return len(bytearray(1 << 30))

    error = engine.function(hog).submit().exception(20)
    assert type(error) is evener.WorkerDied
    assert "memory" in error.certificate
    until(lambda: len(engine.client.workers()) == 2 and engine.pids() != before, "the successor")
    assert set(before) & set(engine.pids()) == {other}
    signs.open("go")
    assert held.result(20) == other
    # A MemoryError that the function catches is its own affair.

    def careful():
        try:
            return hog()
        except MemoryError:
            return "too much"

    assert engine.function(careful).run() == "too much"


# Cancelling


def test_a_call_that_waits_is_cancelled_at_once(restored, signs):
    engine = restored
    held = [engine.function(_wait).submit(signs) for _ in range(2)]
    signs.wait_notes("begun", 2)
    waiting = [engine.function(_wait).submit(signs, "never") for _ in range(20)]
    began = time.monotonic()
    assert all(future.cancel() for future in waiting)
    assert time.monotonic() - began < 2
    for future in waiting:
        assert future.cancelled()
        assert future.done()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(0)
        # Once more is the same.
        assert future.cancel()
        assert future.cancel(kill=True)
    signs.open("go")
    evener.wait(held, 20)
    assert engine.client.run(work.square, 2) == 4
    assert signs.notes("never") == []


def test_a_call_that_runs_is_not_cancelled_without_kill(restored, signs):
    future = restored.function(_wait).submit(signs)
    signs.wait_notes("begun")
    assert future.cancel() is False
    assert not future.cancelled()
    assert future.running()
    signs.open("go")
    assert future.result(20) == future.worker
    assert future.cancel() is False
    assert future.cancel(kill=True) is False


def test_a_function_that_looks_can_end_in_its_own_way(restored, signs):
    before = restored.pids()

    def look():
        context = evener.context()
        signs.note("begun")
        while not context.cancelled():
            time.sleep(0.005)
        signs.note("cleaned up")
        return "too late"

    future = restored.function(look).submit()
    signs.wait_notes("begun")
    assert future.cancel(kill=True)
    assert future.cancelled()
    signs.wait_notes("cleaned up")
    _idle(restored)
    # It came back by itself, so nobody was killed.
    assert restored.pids() == before


def test_check_raises_in_a_function_that_is_cancelled(restored, signs):
    before = restored.pids()

    def look():
        signs.note("begun")
        try:
            while True:
                evener.context().check()
                time.sleep(0.005)
        finally:
            signs.note("cleaned up")

    future = restored.function(look).submit()
    signs.wait_notes("begun")
    assert future.cancel(kill=True)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(1)
    signs.wait_notes("cleaned up")
    _idle(restored)
    assert restored.pids() == before


def _ignore_signals_and_wait(signs):
    signal.signal(signal.SIGTERM, lambda *_: signs.note("SIGTERM", time.monotonic()))
    signs.note("begun", os.getpid())
    while True:
        time.sleep(0.01)


def test_a_function_that_does_not_look_is_terminated_and_then_killed(start_shared, signs):
    engine = start_shared(default="workers: 2, grace: 300ms")
    held = engine.function(_wait).submit(signs, "other")
    other = int(signs.wait_notes("other")[0])
    future = engine.function(_ignore_signals_and_wait).submit(signs)
    stubborn = Process.at(int(signs.wait_notes("begun")[0]))
    asked = time.monotonic()
    assert future.cancel(kill=True)
    # The caller waits for none of that.
    assert time.monotonic() - asked < 0.25
    assert future.cancelled()
    assert stubborn.is_alive
    [termed] = signs.wait_notes("SIGTERM")
    assert 0.25 < float(termed) - asked < 2
    until(lambda: not stubborn.is_alive, "SIGKILL", within=5)
    assert 1.0 < time.monotonic() - float(termed) < 3
    until(lambda: len(engine.client.workers()) == 2, "the successor")
    assert other in engine.pids()
    signs.open("go")
    assert held.result(20) == other


def test_sigterm_is_enough_for_most(start_shared, signs):
    engine = start_shared(default="workers: 1, grace: 100ms")
    future = engine.function(_wait).submit(signs)
    worker = Process.at(int(signs.wait_notes("begun")[0]))
    assert future.cancel(kill=True)
    until(lambda: not worker.is_alive, "the end of the worker", within=0.9)
    assert engine.client.run(work.square, 3) == 9


def test_a_map_that_is_closed_lets_what_runs_go_on(restored, signs):
    results = restored.function(_wait, timeout=60).map([signs] * 50)
    pids = signs.wait_notes("begun", 2)
    results.close()
    assert restored.pids() == sorted(map(int, pids), key=restored.pids().index)
    signs.open("go")
    _idle(restored)
    assert len(signs.notes("begun")) <= 4


def test_a_wait_in_a_coroutine_that_is_cancelled_cancels_the_call(restored, signs):
    import asyncio  # noqa: PLC0415

    held = [restored.function(_wait).submit(signs) for _ in range(2)]
    signs.wait_notes("begun", 2)

    async def main():
        future = restored.function(_wait).submit(signs, "never")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_awaited(future), 0.05)
        return future

    future = asyncio.run(main())
    until(future.cancelled, "a cancelled future")
    signs.open("go")
    evener.wait(held, 20)
    assert restored.client.run(work.square, 2) == 4
    assert signs.notes("never") == []


async def _awaited(future):
    return await future


def test_cancels_that_race_with_the_end_settle_one_way_or_the_other(restored):
    function = restored.function(work.square)
    for round_ in range(300):
        future = function.submit(round_)
        if round_ % 3:
            time.sleep(0)
        if future.cancel():
            assert future.cancelled()
        else:
            assert future.result(20) == round_ * round_


# The engine


@pytest.mark.parametrize("mode", ["private", "shared"])
def test_an_engine_that_is_killed_fails_every_future_within_two_seconds(request, mode, tmp_path):
    engine = request.getfixturevalue(f"start_{mode}")()
    signs = Signs(tmp_path)
    family = engine.family()
    futures = [engine.function(_wait).submit(signs) for _ in range(1000)]
    results = engine.function(work.sleep).map([60] * 100)
    errors = []

    def run():
        try:
            engine.client.run(work.sleep, 60)
        except evener.EngineLost as error:
            errors.append(error)

    running = threading.Thread(target=run)
    running.start()
    signs.wait_notes("begun", 2)
    killed = time.monotonic()
    engine.process.kill()
    done, not_done = evener.wait(futures, 2)
    assert not not_done
    assert time.monotonic() - killed < 2
    assert {type(future.exception(0)) for future in done} == {evener.EngineLost}
    with pytest.raises(evener.EngineLost):
        next(results)
    running.join(2)
    assert len(errors) == 1
    assert isinstance(errors[0], concurrent.futures.BrokenExecutor)
    if mode == "private":
        assert "SIGKILL" in str(errors[0])
    with pytest.raises(evener.EngineLost):
        engine.client.submit(work.square, 2)
    until(lambda: not any(one.is_alive for one in family), "the end of the engine and its workers", within=2)
    engine.client.close()


def test_the_default_client_starts_another_engine_when_its_own_is_lost(script):
    started = script(
        """
        import os, signal, sys, time
        import evener

        @evener.function
        def who():
            return os.getpid()

        first = who.run()
        waiting = evener.function(time.sleep).submit(60)
        print("ready", flush=True)
        sys.stdin.readline()
        assert type(waiting.exception(5)) is evener.EngineLost
        assert who.run() != first
        print("again", flush=True)
        sys.stdin.readline()
        assert list(evener.function(abs).map(range(-3, 0))) == [3, 2, 1]
        """,
        stdin=subprocess.PIPE,
    )
    for word in ("ready", "again"):
        started.wait_out(word)
        [engine] = started.engines()
        engine.kill()
        until(lambda engine=engine: not engine.is_alive, "the end of the engine")
        started.process.stdin.write(b"\n")
        started.process.stdin.flush()
    started.succeed()
    started.process.stdin.close()


def test_a_drain_lets_what_was_let_in_finish_and_refuses_the_rest(start_shared, signs):
    engine = start_shared(default="workers: 2", service="drain: 20s\n")
    running = [engine.function(_wait).submit(signs) for _ in range(2)]
    pids = sorted(map(int, signs.wait_notes("begun", 2)))
    waiting = [engine.client.submit(work.square, x) for x in range(50)]
    # The answer comes behind all that was sent before: so they are with the engine.
    assert running[0].cancel() is False
    engine.node.send(signal.SIGTERM)
    engine.node.wait_log("draining")
    later = [engine.client.submit(work.square, 2) for _ in range(3)]
    for future in later:
        error = future.exception(5)
        assert type(error) is evener.EngineLost
        assert error.code == "draining"
    assert not any(future.done() for future in running)
    signs.open("go")
    assert sorted(future.result(20) for future in running) == pids
    assert [future.result(20) for future in waiting] == [x * x for x in range(50)]
    assert engine.node.wait_exit() == 0
    engine.node.assert_nothing_survives()
    with pytest.raises(evener.EngineLost):
        engine.client.run(work.square, 2)


def test_what_is_not_done_when_the_drain_is_over_is_told_so(start_shared, signs):
    engine = start_shared(default="workers: 2, grace: 100ms", service="drain: 300ms\n")
    futures = [engine.function(_wait).submit(signs) for _ in range(20)]
    signs.wait_notes("begun", 2)
    engine.node.send(signal.SIGTERM)
    for future in futures:
        error = future.exception(5)
        assert type(error) is evener.EngineLost
        assert error.code == "draining"
    assert engine.node.wait_exit() == 0
    engine.node.assert_nothing_survives()
    assert len(signs.notes("begun")) == 2
