"""The executor: as those of the standard library where that says how, and beyond."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import math
import threading
import time

import pytest

import evener
from client import fake

gate = threading.Event()
begun = threading.Semaphore(0)
state = threading.local()


@pytest.fixture(autouse=True)
def closed_gate():
    gate.clear()
    while begun.acquire(blocking=False):
        pass
    yield
    gate.set()


def waits(x=None):
    begun.release()
    gate.wait(20)
    return x


def fails(x):
    raise ValueError(x)


def odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


# What is said here of both is what the standard library promises.


@pytest.fixture(params=["evener", "threads"])
def make(request, node):
    """Make an executor of two workers: ours, and one that the standard library has."""
    made = []

    def make(**options):
        kind = evener.Executor if request.param == "evener" else concurrent.futures.ThreadPoolExecutor
        made.append(kind(max_workers=2, **options))
        return made[-1]

    yield make
    gate.set()
    for executor in made:
        executor.shutdown()


def test_submit_gives_a_future(make):
    executor = make()
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor.submit(pow, 2, 5).result(10) == 32
    assert executor.submit(int, "11", base=2).result(10) == 3
    assert isinstance(executor.submit(fails, 3).exception(10), ValueError)


def test_arguments_may_have_any_name(make):
    def named(**keywords):
        return keywords

    executor = make()
    assert executor.submit(named, fn=1, self=2).result(10) == {"fn": 1, "self": 2}


def test_map_gives_results_in_order(make):
    executor = make()
    assert list(executor.map(pow, range(10), itertools.repeat(2))) == [x * x for x in range(10)]
    assert list(executor.map(abs, range(-25, 0), chunksize=10)) == list(range(25, 0, -1))
    assert list(executor.map(abs, [])) == []
    results = executor.map(odd_fails, range(4))
    assert next(results) == 0
    with pytest.raises(ValueError):
        next(results)


def test_map_sends_all_at_once(make):
    executor = make()
    taken = []
    results = executor.map(waits, (taken.append(x) or x for x in range(40)))
    assert taken == list(range(40))
    gate.set()
    assert list(results) == list(range(40))


def test_map_raises_what_its_input_raises_at_once(make):
    def items():
        yield 1
        raise KeyError("input")

    with pytest.raises(KeyError):
        make().map(abs, items())


def test_map_has_a_timeout(make):
    executor = make()
    results = executor.map(waits, range(3), timeout=0.02)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(results)


def test_shutdown_refuses_and_waits(make):
    executor = make()
    futures = [executor.submit(waits, x) for x in range(4)]
    threading.Timer(0.02, gate.set).start()
    executor.shutdown()
    assert [future.done() for future in futures] == [True] * 4
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 3)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(pow, [2], [3])
    executor.shutdown()


def test_shutdown_need_not_wait(make):
    executor = make()
    futures = [executor.submit(waits, x) for x in range(4)]
    executor.shutdown(wait=False)
    assert not futures[3].done()
    gate.set()
    assert [future.result(10) for future in futures] == [0, 1, 2, 3]


def test_shutdown_can_cancel_what_has_not_begun(make):
    executor = make()
    futures = [executor.submit(waits, x) for x in range(10)]
    assert begun.acquire(timeout=10)
    assert begun.acquire(timeout=10)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    executor.shutdown(wait=True)
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 8


def test_a_with_block_waits(make):
    with make() as executor:
        future = executor.submit(time.sleep, 0.02)
    assert future.done()


def test_asyncio_takes_it(make):
    executor = make()

    async def main():
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, math.factorial, 5) == 120
        assert await asyncio.gather(*(loop.run_in_executor(executor, abs, -x) for x in range(50))) == list(range(50))
        with pytest.raises(ValueError):
            await loop.run_in_executor(executor, fails, 1)
        assert await loop.run_in_executor(executor, functools.partial(pow, 2), 3) == 8

    asyncio.run(main())


def test_an_initializer_runs_before_the_calls(make):
    executor = make(initializer=_remember, initargs=(7,))
    assert [executor.submit(_remembered).result(10) for _ in range(5)] == [7] * 5


def _remember(value):
    state.value = value


def _remembered():
    return state.value


def test_a_failing_initializer_breaks_it(make):
    executor = make(initializer=fails, initargs=(1,))
    future = executor.submit(pow, 2, 3)
    assert isinstance(future.exception(10), concurrent.futures.BrokenExecutor)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        executor.submit(pow, 2, 3)


def test_bad_arguments_are_refused(make):
    kind = type(make())
    for bad in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            kind(max_workers=bad)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        kind(initializer=3)


# What follows is ours.


def _until(condition):
    pause = threading.Event()
    for _ in range(10_000):
        if condition():
            return True
        pause.wait(0.001)
    return False


def test_futures_are_those_of_evener(node):
    with evener.Executor() as executor:
        future = executor.submit(fake.say, "hello")
        assert isinstance(future, evener.Future)
        future.result(10)
        assert future.stdout == "hello"


def test_no_more_calls_than_its_share_are_with_the_engine(engine):
    node = engine(workers=8)
    with evener.Executor(max_workers=2) as executor:
        futures = [executor.submit(waits, x) for x in range(6)]
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        assert node.submitted == 2
        assert futures[5].cancel()
        assert futures[5].cancelled()
        assert not futures[0].cancel()
        gate.set()
        assert [future.result(10) for future in futures[:5]] == list(range(5))
        assert node.submitted == 5
        gate.clear()
        results = executor.map(waits, range(4))
        assert node.submitted == 7
        gate.set()
        assert list(results) == list(range(4))
        gate.clear()
        held = executor.map(waits, range(6))
        while begun.acquire(timeout=0.0):
            pass
        assert _until(lambda: len(node.running) == 2)
        executor.shutdown(wait=False, cancel_futures=True)
        gate.set()
        assert next(held) == 0


def test_what_waits_for_its_turn_fails_with_the_engine(engine):
    node = engine(workers=8)
    executor = evener.Executor(max_workers=1)
    futures = [executor.submit(waits, x) for x in range(500)]
    results = executor.map(waits, range(3))
    node.lose()
    assert [type(future.exception(10)) for future in futures] == [evener.EngineLost] * 500
    with pytest.raises(evener.EngineLost):
        next(results)
    executor.shutdown()


def test_a_client_can_be_given_and_stays_open(node):
    client = evener.Client()
    with evener.Executor(client=client) as executor:
        assert executor.submit(pow, 2, 3).result(10) == 8
    assert client.run(pow, 2, 2) == 4


def test_a_private_engine_of_its_own_ends_with_it(bridge, monkeypatch):
    engines = []

    class Engine:
        def __init__(self, workers):
            self.workers, self.url, self.stopped = workers, f"unix:/private/{len(engines)}", 0
            fake.nodes[self.url] = fake.Node(workers=workers)
            engines.append(self)

        def stop(self):
            self.stopped += 1

        def ending(self):
            return ""

    monkeypatch.setattr("evener._engine.Engine", Engine)
    with evener.Executor(max_workers=3) as executor:
        assert executor.submit(pow, 2, 3).result(10) == 8
        assert (engines[0].workers, engines[0].stopped) == (3, 0)
    assert engines[0].stopped
    # Without waiting, it ends with the last call.
    executor = evener.Executor(max_workers=1)
    future = executor.submit(waits, 3)
    executor.shutdown(wait=False)
    assert engines[1].stopped == 0
    gate.set()
    assert future.result(10) == 3
    until = threading.Event()
    while not engines[1].stopped:
        until.wait(0.001)
    # One that was never used starts nothing.
    with evener.Executor(max_workers=1):
        pass
    assert len(engines) == 2


def test_decorated_functions_keep_their_options(node):
    function = evener.function(timeout=3.0, retries=2)(abs)
    with evener.Executor() as executor:
        assert executor.submit(function, -2).result(10) == 2
        assert list(executor.map(function, [-1, -2])) == [1, 2]
    assert node.orders == [("default", False, 2, 3.0, 0, False)] * 3


def test_options_are_those_of_functions(node):
    with evener.Executor(timeout=1.5, retries=4, priority=-3, output="discard") as executor:
        executor.submit(pow, 2, 3).result(10)
    assert node.orders == [("default", False, 4, 1.5, -3, True)]
    with pytest.raises(ValueError, match="output"):
        evener.Executor(output="loud")


def test_a_buffersize_bounds_what_is_taken(node):
    taken = []
    with evener.Executor() as executor:
        results = executor.map(waits, (taken.append(x) or x for x in itertools.count()), buffersize=3)
        assert taken == [0, 1, 2]
        gate.set()
        assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
        assert len(taken) <= 7
        results.close()
        for bad, error in [(0, ValueError), (1.5, TypeError)]:
            with pytest.raises(error, match="buffersize"):
                executor.map(abs, [], buffersize=bad)
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(abs, [], chunksize=0)


def test_a_dead_worker_fails_its_call_alone(node):
    with evener.Executor() as executor:
        assert isinstance(executor.submit(fake.die).exception(10), evener.WorkerDied)
        assert executor.submit(pow, 2, 3).result(10) == 8


def test_an_initializer_failure_in_a_map_breaks_it_too(node):
    executor = evener.Executor(initializer=fails, initargs=(1,))
    results = executor.map(pow, [2], [3])
    with pytest.raises(evener.InitializerFailed) as caught:
        next(results)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(evener.InitializerFailed):
        executor.submit(pow, 2, 3)


def test_an_initializer_that_cannot_travel_is_named(node):
    with pytest.raises(evener.SerializationError, match=r"the initializer fails.*_thread\.lock"):
        evener.Executor(initializer=fails, initargs=(threading.Lock(),))


def test_what_cannot_travel_is_found_on_the_future(node):
    with evener.Executor() as executor:
        assert isinstance(executor.submit(abs, threading.Lock()).exception(10), evener.SerializationError)
        results = executor.map(abs, [-1, threading.Lock()])
        assert next(results) == 1
        with pytest.raises(evener.SerializationError):
            next(results)


@pytest.mark.parametrize("most", [None, 1])
def test_it_goes_on_with_another_engine_after_a_loss(engine, node, most):
    with evener.Executor(max_workers=most) as executor:
        assert executor.submit(odd_fails, 2).result(10) == 2
        node.lose()
        engine()
        assert executor.submit(odd_fails, 4).result(10) == 4
        assert list(executor.map(odd_fails, [6, 8])) == [6, 8]


def test_modules_are_imported_for_whatever_is_submitted(node):
    with evener.Executor(modules=["colorsys"]) as executor:
        assert executor.submit(lambda: colorsys.__name__).result(10) == "colorsys"  # noqa: F821
