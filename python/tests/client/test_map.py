"""Maps: lazy, in order, bounded, grouped; with exceptions in their places."""

from __future__ import annotations

import concurrent.futures
import gc
import io
import itertools
import threading

import pytest

import evener
from client import fake
from evener import _feed, _map

gate = threading.Event()
begun = threading.Semaphore(0)
seen = []


@pytest.fixture(autouse=True)
def fresh():
    gate.clear()
    seen.clear()
    while begun.acquire(blocking=False):
        pass
    yield
    gate.set()


@evener.function
def square(x):
    return x * x


@evener.function
def add(x, y):
    return x + y


@evener.function
def waits(x):
    begun.release()
    gate.wait(20)
    return x


@evener.function
def first_waits(x):
    seen.append(x)
    if x == 0:
        gate.wait(20)
    return x


@evener.function
def odd_fails(x):
    seen.append(x)
    if x % 2:
        raise ValueError(x)
    return x


def test_results_come_in_order(node):
    assert list(square.map(range(5_000))) == [x * x for x in range(5_000)]
    assert max(node.groups) > 100
    assert list(add.map([1, 2, 3], itertools.count(10))) == [11, 13, 15]
    assert list(add.starmap((x, 1) for x in range(1_000))) == [x + 1 for x in range(1_000)]
    assert list(square.map([])) == []
    assert list(square.map(iter(()), [1])) == []


def test_without_order_results_come_as_they_are_done(node):
    results = first_waits.map(range(6), ordered=False, chunksize=1)
    assert sorted(next(results) for _ in range(5)) == [1, 2, 3, 4, 5]
    gate.set()
    assert list(results) == [0]
    assert sorted(square.map(range(3_000), ordered=False)) == [x * x for x in range(3_000)]


def test_calls_begin_before_the_first_result_is_taken(node):
    results = waits.map(range(3))
    assert begun.acquire(timeout=10)
    gate.set()
    assert list(results) == [0, 1, 2]


def test_the_input_is_taken_only_as_the_window_allows(node):
    taken = []

    def items():
        for x in itertools.count():
            taken.append(x)
            yield x

    results = waits.map(items(), chunksize=1)
    assert len(taken) == _map._WINDOW * 2
    gate.set()
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(taken) < 10 + 2 * _map._WINDOW * 2
    results.close()
    assert list(results) == []


def test_an_endless_input_of_quick_calls_stays_bounded(node):
    taken = itertools.count()
    results = square.map(taken)
    for x in range(20_000):
        assert next(results) == x * x
    # One group at most for each place in the window.
    assert next(taken) < 20_000 + 10_000 * _map._WINDOW * 2 * 2
    del results


def test_workers_go_on_while_the_first_result_is_late(node):
    results = first_waits.map(range(300), chunksize=1)
    threading.Thread(target=lambda: (_until(lambda: len(seen) == 300), gate.set())).start()
    assert list(results) == list(range(300))


def _until(condition):
    waiting = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        waiting.wait(0.001)
    raise AssertionError("it never came to that")


def test_an_exception_is_raised_in_its_place_and_the_rest_is_there(node):
    results = odd_fails.map(range(4))
    assert next(results) == 0
    with pytest.raises(ValueError, match="1"):
        next(results)
    assert next(results) == 2
    with pytest.raises(ValueError, match="3"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert sorted(seen) == [0, 1, 2, 3]


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_exceptions_may_take_the_place_of_results(node, chunksize):
    results = list(odd_fails.map(range(1_000), return_exceptions=True, chunksize=chunksize))
    assert [type(result) for result in results] == [int, ValueError] * 500
    assert [result.args for result in results[1::2]] == [(x,) for x in range(1, 1_000, 2)]
    assert isinstance(results[1].__cause__, evener.RemoteTraceback)
    assert results[1].stdout == ""


@pytest.mark.parametrize("chunksize", [1, 2, 4])
def test_iteration_goes_on_behind_each_exception_of_a_group(node, chunksize):
    results = odd_fails.map(range(6), chunksize=chunksize)
    heard = []
    while True:
        try:
            heard.append(next(results))
        except StopIteration:
            break
        except ValueError as error:
            heard.append(-error.args[0])
    assert heard == [0, -1, 2, -3, 4, -5]


@evener.function
def stops(x):
    raise StopIteration(x)


def test_a_stop_iteration_does_not_end_the_loop_in_silence(node):
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(stops.map([1]))
    assert [type(e) for e in stops.map([1, 2], return_exceptions=True)] == [StopIteration] * 2


def test_what_the_input_raises_comes_after_the_results_before_it(node):
    def items():
        yield from range(50)
        raise KeyError("input")

    results = square.map(items())
    assert [next(results) for _ in range(50)] == [x * x for x in range(50)]
    with pytest.raises(KeyError, match="input"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_item_that_cannot_travel_fails_in_its_place(node):
    items = [1, 2, threading.Lock(), 4]
    for chunksize in (1, 2, 4, None):
        results = list(square.map(items, return_exceptions=True, chunksize=chunksize))
        assert [results[0], results[1], results[3]] == [1, 4, 16]
        assert isinstance(results[2], evener.SerializationError)
        assert "the argument 'x' of 'square'" in str(results[2])


def test_an_item_that_is_no_tuple_of_arguments_fails_in_its_place(node):
    for chunksize in (1, 3):
        results = list(add.starmap([(1, 2), 3, [4, 5]], return_exceptions=True, chunksize=chunksize))
        assert (results[0], type(results[1]), results[2]) == (3, TypeError, 9)


def test_closing_cancels_what_has_not_begun(node):
    results = waits.map(range(100))
    assert begun.acquire(timeout=10)
    assert begun.acquire(timeout=10)
    results.close()
    assert node.ready == []
    assert list(results) == []
    results.close()


def test_dropping_the_iterator_cancels_as_well(node):
    results = waits.map(range(100))
    assert begun.acquire(timeout=10)
    assert begun.acquire(timeout=10)
    del results
    gc.collect()
    assert node.ready == []


def test_a_chunksize_is_kept_to(node):
    assert list(square.map(range(25), chunksize=10)) == [x * x for x in range(25)]
    assert node.groups == [10, 10, 5]
    for bad, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="chunksize"):
            square.map([1], chunksize=bad)
    with pytest.raises(TypeError, match="at least one iterable"):
        square.map()


def test_a_function_with_a_timeout_is_not_grouped(node):
    timed = square.options(timeout=2.0)
    assert list(timed.map(range(300))) == [x * x for x in range(300)]
    assert node.groups == []
    assert list(timed.map(range(30), chunksize=10))[-1] == 29 * 29
    assert [order for order in node.orders if order[1]] == [("default", True, 0, 20.0, 0, False)] * 3


@evener.function
def deadly(x):
    seen.append(x)
    if x == 5 and seen.count(5) < 3:
        fake.die()
    return x


def test_a_group_that_dies_is_sent_again_one_by_one_if_retries_allow(node):
    results = list(deadly.options(retries=2).map(range(10), chunksize=10))
    assert results == list(range(10))
    singles = [order for order in node.orders if not order[1]]
    assert singles == [("default", False, 1, None, 0, False)] * 10
    assert seen.count(5) == 3


@pytest.mark.parametrize("ordered", [True, False])
def test_a_group_that_dies_amid_others_leaves_the_order(node, ordered):
    results = list(deadly.options(retries=2).map(range(30), chunksize=10, ordered=ordered))
    assert (results if ordered else sorted(results)) == list(range(30))


def test_a_group_that_dies_without_retries_is_dead_for_each(node):
    results = list(deadly.map(range(20), chunksize=10, return_exceptions=True))
    assert [type(result) for result in results[:10]] == [evener.WorkerDied] * 10
    assert results[0].certificate == "exit code 1"
    assert results[10:] == list(range(10, 20))


def test_an_engine_that_is_lost_fails_all_that_was_sent_and_ends_the_map(node):
    results = waits.map(itertools.count())
    assert begun.acquire(timeout=10)
    node.lose()
    for _ in range(_map._WINDOW * 2):
        with pytest.raises(evener.EngineLost):
            next(results)
    # The input goes on; what was taken of it meanwhile could not be sent.
    with pytest.raises(evener.EngineLost):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_slow_input_does_not_hold_back_results(node, monkeypatch):
    monkeypatch.setattr(_feed, "_GATHER", 0.0)
    monkeypatch.setattr(_feed, "_SLOW", 0.0)
    taken = []

    def items():
        for x in range(100):
            taken.append(x)
            yield x

    results = square.map(items())
    while len(taken) < 100:
        before = len(taken)
        next(results)
        # It waited for the workers at most, not for a whole window of items.
        assert len(taken) <= before + _map._WINDOW * 2
    assert list(results)[-1] == 99 * 99


@evener.function(output="echo")
def says(x):
    fake.say(f"{x}\n")
    if x == 3:
        raise ValueError(x)


def test_groups_print_as_calls_do(node, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    results = list(says.map(range(6), chunksize=6, return_exceptions=True))
    assert out.getvalue() == "0\n1\n2\n3\n4\n5\n"
    assert results[3].stdout == "0\n1\n2\n3\n4\n5\n"


def test_large_inputs_are_cut_into_smaller_groups(node, monkeypatch):
    monkeypatch.setattr(_feed, "_LARGE", 10_000)
    items = [bytes(1_000 + x) for x in range(500)]
    function = evener.function(len)
    assert list(function.map(items)) == list(range(1_000, 1_500))
    assert max(node.groups) <= 10


def test_progress_counts_what_is_done(node, monkeypatch):
    counted = []

    class Bar:
        def __init__(self, total, desc):
            counted.append((total, desc))

        def update(self, count):
            counted.append(count)

        def close(self):
            counted.append("closed")

    import types

    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    assert len(list(square.map(range(200), progress=True))) == 200
    assert counted[0] == (200, "square")
    assert counted[-1] == "closed"
    assert sum(counted[1:-1]) == 200
    counted.clear()
    list(square.map(iter(range(3)), progress="horses"))
    assert counted[0] == (None, "horses")


def test_progress_without_tqdm_is_a_line_in_a_terminal(node, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    import sys

    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr("evener._progress._EVERY", 0.0)
    monkeypatch.setattr("sys.stderr", Terminal())
    list(square.map(range(10), progress=True))
    assert "square: 10/10 (" in sys.stderr.getvalue()
    monkeypatch.setattr("sys.stderr", io.StringIO())
    list(square.map(range(10), progress=True))
    assert sys.stderr.getvalue() == ""


def test_cancelled_groups_say_so(node):
    results = waits.map(range(10), chunksize=1, return_exceptions=True)
    for session in node.sessions:
        for number in list(session.calls):
            session.cancel(number, False)
    gate.set()
    kinds = [type(result) for result in results]
    assert concurrent.futures.CancelledError in kinds
    assert len(kinds) == 10
