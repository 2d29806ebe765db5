"""Futures: those of the standard library, and what they have beyond them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import io
import pickle
import sys
import threading
import weakref

import pytest

import evener
from client import fake

gate = threading.Event()
begun = threading.Semaphore(0)


@pytest.fixture(autouse=True)
def closed_gate():
    gate.clear()
    while begun.acquire(blocking=False):
        pass
    yield
    gate.set()


@evener.function
def square(x):
    return x * x


@evener.function
def waits(x=None):
    begun.release()
    gate.wait(20)
    return x


@evener.function(output="capture")
def talks():
    fake.say("one ")
    fake.say("zwei é".encode()[:-1])
    begun.release()
    gate.wait(20)
    fake.say("é".encode()[1:])
    fake.say("err\xff".encode("latin-1"), 2)
    return fake.worker()


@evener.function(output="capture")
def fails(error):
    fake.say("said")
    raise error


def occupy(node):
    """Have every worker hold a call; returns the futures."""
    held = [waits.submit(n) for n in range(2)]
    for _ in held:
        assert begun.acquire(timeout=10)
    return held


def test_it_is_a_future_of_the_standard_library(node):
    future = square.submit(4)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(10) == 16
    assert future.exception(10) is None
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert "finished returned int" in repr(future)


def test_wait_and_as_completed_of_the_standard_library_take_it(node):
    held = occupy(node)
    quick = waits.submit(9)
    done, not_done = concurrent.futures.wait([*held, quick], timeout=0)
    assert (done, not_done) == (set(), {*held, quick})
    with pytest.raises(concurrent.futures.TimeoutError):
        next(concurrent.futures.as_completed(held, timeout=0))
    gate.set()
    assert sorted(f.result() for f in concurrent.futures.as_completed([*held, quick], timeout=10)) == [0, 1, 9]
    assert evener.wait(held, return_when=concurrent.futures.FIRST_COMPLETED).not_done == set()
    assert {f.result() for f in evener.as_completed(held)} == {0, 1}


def test_wait_returns_when_the_first_is_cancelled_or_fails(node):
    held = occupy(node)
    waiting = square.submit(1)
    threading.Timer(0.05, waiting.cancel).start()
    done, _ = concurrent.futures.wait([waiting, *held], timeout=10, return_when=concurrent.futures.FIRST_COMPLETED)
    assert done == {waiting}
    failing = fails.submit(ValueError())
    gate.set()
    done, _ = concurrent.futures.wait([failing], timeout=10, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert done == {failing}


def test_it_mixes_with_other_futures(node):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        futures = [square.submit(2), threads.submit(pow, 3, 2)]
        assert {f.result() for f in concurrent.futures.as_completed(futures, timeout=10)} == {4, 9}


def test_result_waits_no_longer_than_it_is_told(node):
    (held, _) = occupy(node)
    with pytest.raises(concurrent.futures.TimeoutError):
        held.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        held.exception(0)
    gate.set()
    assert held.result(10) == 0


def test_callbacks_run_once_when_it_is_done_and_at_once_afterwards(node, caplog):
    heard = []
    (held, _) = occupy(node)
    held.add_done_callback(lambda f: 1 / 0)
    held.add_done_callback(lambda f: heard.append((f, threading.current_thread().name)))
    gate.set()
    held.result(10)
    square.submit(1).result(10)
    assert heard == [(held, "evener-session")]
    held.add_done_callback(heard.append)
    assert heard[1:] == [held]
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_that_exits_does_not_stop_the_session(node, caplog):
    (held, other) = occupy(node)
    held.add_done_callback(lambda f: sys.exit("no"))
    gate.set()
    assert (held.result(10), other.result(10)) == (0, 1)
    assert square.submit(3).result(10) == 9
    assert "SystemExit" in caplog.text


def test_a_callback_may_submit_and_cancel(node):
    later = concurrent.futures.Future()

    def on(_future):
        more = square.submit(5)
        assert not more.cancel(kill=True) or more.cancelled()
        later.set_result(square.submit(6))

    square.submit(1).add_done_callback(on)
    assert later.result(10).result(10) == 36


def test_a_call_that_waits_is_cancelled_at_once(node):
    occupy(node)
    waiting = square.submit(1)
    assert waiting.cancel()
    assert (waiting.cancelled(), waiting.done()) == (True, True)
    assert waiting.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    assert node.ready == []


def test_a_call_that_runs_is_only_cancelled_with_kill(node):
    (held, other) = occupy(node)
    assert not held.cancel()
    assert held.running()
    assert held.cancel(kill=True)
    assert held.cancelled()
    gate.set()
    assert other.result(10) == 1
    assert not other.cancel()
    assert not other.cancel(kill=True)


def test_output_is_there_as_it_comes_and_whole_at_the_end(node):
    future = talks.submit()
    assert begun.acquire(timeout=10)
    assert future.worker is None
    other = square.submit(1)
    other.result(10)
    assert future.stdout == "one zwei "
    assert future.running()
    gate.set()
    assert future.result(10) == future.worker
    assert (future.stdout, future.stderr) == ("one zwei é", "err\\xff")
    assert (other.stdout, other.stderr) == ("", "")


def test_an_error_has_its_output_and_the_future_has_its_worker(node):
    future = fails.submit(ValueError("no"))
    error = future.exception(10)
    assert (type(error), error.args, error.stdout, error.stderr) == (ValueError, ("no",), "said", "")
    assert future.worker
    with pytest.raises(ValueError, match="no"):
        future.result()


def test_attributes_that_an_error_has_are_its_own(node):
    import subprocess

    error = fails.submit(subprocess.CalledProcessError(1, "x", "theirs")).exception(10)
    assert error.stdout == "theirs"


def test_it_is_done_before_anyone_asks_in_any_thread(node):
    futures = [square.submit(n) for n in range(2_000)]
    assert [future.result(10) for future in futures] == [n * n for n in range(2_000)]


def test_many_threads_may_wait_for_one(node):
    (held, _) = occupy(node)
    results = []
    threads = [threading.Thread(target=lambda: results.append(held.result(10))) for _ in range(5)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert results == [0] * 5


def test_an_error_that_was_raised_does_not_keep_its_future(node):
    future = fails.submit(ValueError())
    with pytest.raises(ValueError):
        future.result(10)
    gone = weakref.ref(future)
    # The session's thread has done with the one when the next is done.
    square.submit(1).result(10)
    gc.disable()
    try:
        del future
        assert gone() is None
    finally:
        gc.enable()


def test_it_cannot_be_sent(node):
    future = square.submit(1)
    with pytest.raises(TypeError, match=r"send its \.result"):
        pickle.dumps(future)
    with pytest.raises(evener.SerializationError, match=r"the argument 'x' of 'square'.*its \.result"):
        square.submit(future)


def test_it_can_be_awaited(node):
    async def main():
        assert await square.submit(3) == 9
        assert await asyncio.gather(*(square.submit(n) for n in range(100))) == [n * n for n in range(100)]
        done = square.submit(4)
        done.result(10)
        assert await done == 16
        with pytest.raises(ValueError, match="no"):
            await fails.submit(ValueError("no"))
        with pytest.raises(RuntimeError, match="StopIteration"):
            await fails.submit(StopIteration(1))
        loop = asyncio.get_running_loop()
        held = waits.submit(1)
        assert begun.acquire(timeout=10)
        loop.call_later(0.01, gate.set)
        assert await held == 1
        assert await asyncio.wrap_future(square.submit(5)) == 25

    asyncio.run(main())


def test_a_wait_that_is_cancelled_cancels_the_call(node):
    occupy(node)
    cancelled = threading.Event()

    async def main():
        future = square.submit(1)
        future.add_done_callback(lambda f: cancelled.set())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_result(future), 0.01)
        return future

    async def _result(future):
        return await future

    future = asyncio.run(main())
    assert cancelled.wait(10)
    assert future.cancelled()


def test_a_loop_that_ended_does_not_trouble_the_future(node, caplog):
    async def main():
        future = waits.submit(7)
        task = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        task.cancel()
        return future

    async def _await(future):
        return await future

    future = asyncio.run(main())
    gate.set()
    assert future.cancelled() or future.result(10) == 7
    assert caplog.text == ""


def test_echo_is_written_before_the_future_is_done(node, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    future = talks.options(output="echo").submit()
    gate.set()
    future.result(10)
    assert out.getvalue() == "one zwei é"


def test_one_made_by_hand_works_like_any_other():
    future = evener.Future()
    assert future.set_running_or_notify_cancel()
    future.set_result(3)
    assert future.result() == 3
    other = evener.Future()
    assert other.cancel()
    assert other.cancelled()
