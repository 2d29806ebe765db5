"""What the standard library promises of an executor, asked of Evener's and of its own; and where Evener's differs."""

import asyncio
import concurrent.futures
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

import evener
import pytest

from functions import tasks
from harness import until
from harness.engine import client_of, private_client

KINDS = ["standard", "private", "shared"]
EVENER = KINDS[1:]


@pytest.fixture(scope="module")
def clients(runtime, start_shared):
    """A client in each mode, which the executors of the tests share."""
    with private_client(runtime) as private:
        yield {"private": private, "shared": start_shared(default="workers: 2, grace: 200ms").client}


@pytest.fixture
def make(request, clients):
    """Makes executors of one kind; all of them are shut down at the end."""
    made = []

    def executor(max_workers=2, **options):
        if request.param == "standard":
            new = concurrent.futures.ProcessPoolExecutor(
                max_workers, mp_context=multiprocessing.get_context("forkserver"), **options
            )
        else:
            new = evener.Executor(max_workers, client=clients[request.param], **options)
        made.append(new)
        return new

    executor.kind = request.param
    yield executor
    for each in made:
        each.shutdown(wait=True, cancel_futures=True)


every = pytest.mark.parametrize("make", KINDS, indirect=True)
own = pytest.mark.parametrize("make", EVENER, indirect=True)


# Submit


@every
def test_submit_gives_a_future_of_the_result(make):
    pool = make()
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(pow, 2, 10)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(20) == 1024
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert future.exception() is None
    assert future.cancel() is False


@every
def test_arguments_may_have_any_name(make):
    future = make().submit(tasks.keywords, 1, fn=2, self=3, function=4)
    assert future.result(20) == ((1,), {"fn": 2, "self": 3, "function": 4})


@every
def test_an_exception_is_on_the_future_and_has_a_cause(make):
    future = make().submit(tasks.fail, "why")
    error = future.exception(20)
    assert (type(error), error.args) == (tasks.Failure, ("why",))
    assert "tasks.py" in str(error.__cause__)
    with pytest.raises(tasks.Failure, match="why"):
        future.result()


@every
def test_an_argument_that_cannot_be_pickled_is_an_error(make):
    pool = make()
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pool.submit(len, threading.Lock()).result(20)
    assert pool.submit(len, "abc").result(20) == 3


@every
def test_a_result_that_cannot_be_pickled_is_an_error(make):
    pool = make()
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        pool.submit(tasks.lock).result(20)
    assert pool.submit(len, "abc").result(20) == 3


@every
def test_work_runs_in_other_processes_and_no_more_than_asked(make):
    pool = make(2)
    pids = {future.result(20) for future in [pool.submit(tasks.slow_pid) for _ in range(12)]}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


@every
def test_no_more_run_at_a_time_than_asked(make, signs):
    pool = make(1)
    first, second = (pool.submit(tasks.wait, signs, name) for name in ("first", "second"))
    signs.wait_notes("first")
    assert signs.notes("second") == []
    signs.open("go")
    assert (first.result(20), second.result(20)) == ("first", "second")


@every
def test_results_come_in_any_amount(make):
    pool = make()
    futures = [pool.submit(pow, x, 2) for x in range(500)]
    assert [future.result(20) for future in futures] == [x * x for x in range(500)]
    assert len(pool.submit(bytes, 20_000_000).result(20)) == 20_000_000


# Waiting


@every
def test_result_and_exception_wait_no_longer_than_told(make, signs):
    future = make().submit(tasks.wait, signs, "call")
    for wait in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            wait(timeout=0.01)
    signs.open("go")
    assert future.result(20) == "call"


@every
def test_callbacks_are_told_once_with_the_future(make, signs):
    told = []
    future = make().submit(tasks.wait, signs, "call")
    future.add_done_callback(told.append)
    future.add_done_callback(lambda _future: told.append("second"))
    assert told == []
    signs.open("go")
    future.result(20)
    until(lambda: told == [future, "second"], "both callbacks")
    future.add_done_callback(lambda _future: told.append("late"))
    assert told == [future, "second", "late"]


@every
def test_a_callback_that_raises_is_no_harm_to_the_others(make, signs, caplog):
    told = []
    future = make().submit(tasks.wait, signs, "call")
    future.add_done_callback(lambda _future: 1 / 0)
    future.add_done_callback(told.append)
    signs.open("go")
    until(lambda: told == [future], "the second callback")
    assert "ZeroDivisionError" in caplog.text


@every
def test_wait_knows_when_to_return(make, signs):
    pool = make()
    blocked = pool.submit(tasks.wait, signs, "call")
    quick, failing = pool.submit(pow, 2, 3), pool.submit(tasks.fail, "why")
    done, not_done = concurrent.futures.wait([blocked, quick], 20, FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {blocked})
    done, not_done = concurrent.futures.wait([blocked, failing], 20, FIRST_EXCEPTION)
    assert (done, not_done) == ({failing}, {blocked})
    done, not_done = concurrent.futures.wait([blocked, quick], 0.01, ALL_COMPLETED)
    assert (done, not_done) == ({quick}, {blocked})
    signs.open("go")
    done, not_done = concurrent.futures.wait([blocked, quick, failing], 20)
    assert not_done == set()


@every
def test_as_completed_gives_the_done_ones_first(make, signs):
    pool = make()
    blocked = pool.submit(tasks.wait, signs, "call")
    quick = pool.submit(pow, 2, 3)
    found = concurrent.futures.as_completed([blocked, quick], 20)
    assert next(found) is quick
    signs.open("go")
    assert list(found) == [blocked]
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([pool.submit(time.sleep, 0.3)], 0.01))


@every
def test_asyncio_takes_it(make):
    pool = make()

    async def main():
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, pow, 2, 3) == 8
        with pytest.raises(tasks.Failure):
            await loop.run_in_executor(pool, tasks.fail, "why")
        return await asyncio.gather(*(loop.run_in_executor(pool, pow, x, 2) for x in range(50)))

    assert asyncio.run(main()) == [x * x for x in range(50)]


# Map


@every
@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_gives_results_in_order(make, chunksize):
    pool = make()
    assert list(pool.map(pow, range(20), range(20), chunksize=chunksize)) == [x**x for x in range(20)]
    assert list(pool.map(abs, [], chunksize=chunksize)) == []
    # The shortest of the iterables ends it.
    assert list(pool.map(pow, [2, 3, 4], [2, 2], chunksize=chunksize)) == [4, 9]


@every
def test_map_takes_all_items_and_begins_at_once(make, signs):
    pool = make()
    taken = []
    results = pool.map(tasks.note, [signs] * 10, (taken.append(x) or x for x in range(10)))
    assert taken == list(range(10))
    signs.wait_notes("begun", 10)
    assert list(results) == list(range(10))


@every
def test_map_raises_in_the_place_of_the_result(make):
    results = make().map(tasks.fail_at_three, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(tasks.Failure):
        next(results)


@every
def test_map_has_a_timeout_for_all_of_it(make, signs):
    results = make().map(tasks.wait_if, [signs] * 2, [False, True], timeout=1.5)
    assert next(results) is False
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    signs.open("go")


@every
def test_map_refuses_a_chunksize_below_one(make):
    with pytest.raises(ValueError, match="chunksize"):
        make().map(abs, [1], chunksize=0)


# Cancelling


@every
def test_what_waits_can_be_cancelled_and_what_runs_cannot(make, signs):
    pool = make(1)
    running = pool.submit(tasks.wait, signs, "running")
    signs.wait_notes("running")
    # The standard library hands one more out than it has workers, and calls that running.
    waiting = [pool.submit(tasks.wait, signs, f"waiting {place}") for place in range(5)]
    assert running.cancel() is False
    assert waiting[-1].cancel() is True
    assert waiting[-1].cancelled()
    assert waiting[-1].done()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting[-1].result(0)
    told = []
    waiting[-1].add_done_callback(told.append)
    assert told == [waiting[-1]]
    signs.open("go")
    assert [future.result(20) for future in waiting[:-1]] == [f"waiting {place}" for place in range(4)]
    assert concurrent.futures.wait(waiting, 20).not_done == set()
    assert signs.notes("waiting 4") == []


# The end


@every
def test_shutdown_waits_and_then_refuses(make):
    pool = make()
    futures = [pool.submit(tasks.nap, x) for x in range(6)]
    pool.shutdown()
    assert [future.done() for future in futures] == [True] * 6
    assert [future.result() for future in futures] == list(range(6))
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pow, 2, 3)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(abs, [1])
    pool.shutdown()


@every
def test_shutdown_need_not_wait(make, signs):
    pool = make()
    future = pool.submit(tasks.wait, signs, "call")
    pool.shutdown(wait=False)
    assert not future.done()
    with pytest.raises(RuntimeError):
        pool.submit(pow, 2, 3)
    signs.open("go")
    assert future.result(20) == "call"


@every
def test_shutdown_can_cancel_what_waits(make, signs):
    pool = make(1)
    running = pool.submit(tasks.wait, signs, "running")
    signs.wait_notes("running")
    waiting = [pool.submit(tasks.wait, signs, f"waiting {place}") for place in range(10)]
    threading.Timer(0, lambda: until(lambda: waiting[-1].cancelled(), "a cancel") and signs.open("go")).start()
    pool.shutdown(wait=True, cancel_futures=True)
    assert running.result(0) == "running"
    assert all(future.done() for future in waiting)
    cancelled = [future.cancelled() for future in waiting]
    # Those that were with a worker already may be done.
    assert cancelled == sorted(cancelled)
    assert cancelled[-1]
    assert cancelled.count(False) <= 2


@every
def test_a_with_block_waits(make):
    with make() as pool:
        future = pool.submit(tasks.nap, 7)
    assert future.done()
    assert future.result() == 7
    with pytest.raises(RuntimeError):
        pool.submit(pow, 2, 3)


@every
def test_a_with_block_lets_exceptions_through(make):
    with pytest.raises(LookupError):
        with make() as pool:
            future = pool.submit(tasks.nap, 7)
            raise LookupError
    assert future.done()


# The beginning


@every
def test_the_initializer_runs_once_in_each_process_before_its_calls(make, signs):
    pool = make(2, initializer=tasks.begin, initargs=(signs, "given"))
    results = [future.result(20) for future in [pool.submit(tasks.began) for _ in range(20)]]
    assert set(results) == {"given"}
    pids = signs.notes("initialized")
    assert len(pids) == len(set(pids)) <= 2


@every
def test_an_initializer_that_fails_breaks_the_executor(make):
    pool = make(1, initializer=tasks.fail, initargs=("the initializer",))
    futures = [pool.submit(pow, 2, 3)]
    assert isinstance(futures[0].exception(20), concurrent.futures.BrokenExecutor)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        until(lambda: pool.submit(pow, 2, 3) and False, "a refusal")


@every
def test_wrong_arguments_are_refused(make):
    for workers in (0, -1):
        with pytest.raises(ValueError, match="max_workers"):
            make(workers)
    with pytest.raises(TypeError, match="initializer"):
        make(1, initializer=3)


@every
def test_a_worker_that_dies_is_a_broken_executor(make):
    pool = make(1)
    error = pool.submit(os._exit, 3).exception(20)
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    if make.kind == "standard":
        with pytest.raises(concurrent.futures.BrokenExecutor):
            pool.submit(pow, 2, 3).result(20)
    else:
        # Here the executors differ on purpose: only that call is lost.
        assert type(error) is evener.WorkerDied
        assert pool.submit(pow, 2, 3).result(20) == 8


@pytest.mark.parametrize(
    "made", ["concurrent.futures.ProcessPoolExecutor(2)", "evener.Executor(2)", "evener.Executor()"]
)
def test_the_program_waits_for_its_executor(script, made):
    started = script(
        f"""
        import concurrent.futures, os, time
        import evener

        def work(x):
            time.sleep(0.05)
            os.write(1, f"{{x}}\\n".encode())

        if __name__ == "__main__":
            pool = {made}
            futures = [pool.submit(work, x) for x in range(6)]
            print("end", flush=True)
        """
    )
    lines = started.succeed().split()
    assert sorted(lines) == [*map(str, range(6)), "end"]
    assert started.err == ""
    started.assert_nothing_survives()


# What only Evener's has


@own
def test_functions_need_not_be_importable(make):
    factor = 3
    pool = make()
    assert pool.submit(lambda x: factor * x, 2).result(20) == 6
    assert list(pool.map(lambda x: factor * x, range(5))) == [0, 3, 6, 9, 12]


@own
def test_its_futures_have_output_and_worker_and_can_be_awaited(make):
    pool = make(output="capture")
    future = pool.submit(print, "hello")
    future.result(20)
    assert future.stdout == "hello\n"
    assert future.worker

    async def main():
        return await pool.submit(pow, 2, 3)

    assert asyncio.run(main()) == 8


@own
def test_what_runs_can_be_killed(make, signs):
    pool = make()
    future = pool.submit(tasks.wait, signs, "call")
    signs.wait_notes("call")
    assert future.cancel(kill=True)
    assert future.cancelled()
    signs.open("go")
    assert pool.submit(pow, 2, 3).result(20) == 8


@own
def test_retries_and_timeouts_are_options(make, signs):
    assert make(retries=1).submit(tasks.die_once, signs).result(20) == "alive"
    with pytest.raises(evener.CallTimeout):
        make(timeout=0.1).submit(time.sleep, 60).result(20)
    # The standard library's words for it.
    assert issubclass(evener.CallTimeout, TimeoutError)


@own
def test_a_buffersize_bounds_what_is_taken(make):
    taken = []
    results = make().map(abs, (taken.append(x) or x for x in range(1000)), buffersize=10)
    assert len(taken) == 10
    assert next(results) == 0
    assert len(taken) <= 12
    assert list(results) == list(range(1, 1000))


@own
def test_two_executors_keep_their_initializers_apart(make, signs):
    first = make(initializer=tasks.begin, initargs=(signs, "first"))
    second = make(initializer=tasks.begin, initargs=(signs, "second"))
    plain = make()
    for _ in range(10):
        assert plain.submit(pow, 2, 3).result(20) == 8
        first.submit(tasks.began).result(20)
        second.submit(tasks.began).result(20)
    assert len(signs.notes("initialized")) <= 4


def test_an_executor_with_workers_of_its_own_ends_its_engine(script):
    started = script(
        """
        import os, sys, time
        import evener

        pool = evener.Executor(3)
        node = pool.submit(os.getppid).result()
        with evener.Executor(1) as other:
            assert other.submit(os.getppid).result() != node
        print("one ended", flush=True)
        sys.stdin.readline()
        pool.shutdown()
        print("both ended", flush=True)
        sys.stdin.readline()
        """,
        stdin=-1,
    )
    for words, engines in (("one ended", 1), ("both ended", 0)):
        started.wait_out(words)
        until(lambda engines=engines: len(started.engines()) == engines, f"{engines} engines")
        started.process.stdin.write(b"\n")
        started.process.stdin.flush()
    started.succeed()
    started.process.stdin.close()


def test_executors_of_two_programs_share_an_engine(start_shared, signs):
    engine = start_shared(default="workers: 4")
    with client_of(engine.node) as other:
        pools = [evener.Executor(1, client=client) for client in (engine.client, other)]
        held = [pool.submit(tasks.wait, signs, f"held {place}") for place, pool in enumerate(pools)]
        for place in range(2):
            signs.wait_notes(f"held {place}")
        # Each has its share, and what it holds back does not take workers from others.
        more = [pool.submit(tasks.wait, signs, "more") for pool in pools]
        assert engine.client.run(pow, 2, 3) == 8
        assert signs.notes("more") == []
        signs.open("go")
        assert [future.result(20) for future in held + more] == ["held 0", "held 1", "more", "more"]
        for pool in pools:
            pool.shutdown()
