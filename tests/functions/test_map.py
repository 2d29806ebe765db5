"""Many calls at once: order, laziness, what is cancelled, and exceptions among the results."""

import gc
import itertools
import time

import evener
import pytest

from functions import work
from harness import until


def test_results_come_in_the_order_of_the_input(remote):
    square = remote(work.square)
    assert list(square.map(range(1000))) == [x * x for x in range(1000)]
    assert list(square.map([])) == []
    assert list(remote(work.power).map([2, 3, 4], [3, 2])) == [8, 9]
    assert list(remote(work.power).starmap([(2, 3), [3, 2], (5,)])) == [8, 9, 25]


@pytest.mark.parametrize("chunksize", [1, 7, 1000])
def test_a_chunksize_changes_nothing_about_the_results(remote, chunksize):
    square = remote(work.square)
    assert list(square.map(range(100), chunksize=chunksize)) == [x * x for x in range(100)]
    assert sorted(square.map(range(100), chunksize=chunksize, ordered=False)) == [x * x for x in range(100)]


def test_without_order_results_come_as_they_are_done(remote, signs):
    def work_or_wait(x):
        if x == 0:
            signs.wait_for("go")
        return x

    results = remote(work_or_wait).map(range(20), ordered=False)
    # The first one stands still while the others pass it by.
    first = list(itertools.islice(results, 19))
    assert sorted(first) == list(range(1, 20))
    signs.open("go")
    assert list(results) == [0]


def test_calls_begin_before_the_first_result_is_asked_for(remote, signs):
    results = remote(lambda x: signs.note("begun", x) or x).map(range(4))
    signs.wait_notes("begun", 2)
    assert list(results) == [0, 1, 2, 3]


def test_an_endless_input_is_taken_only_as_far_as_needed(remote):
    taken = itertools.count()
    results = remote(work.square).map(each for each in taken)
    assert list(itertools.islice(results, 50)) == [x * x for x in range(50)]
    results.close()
    used = next(taken)
    # Groups grow while the calls turn out quick, but the input is never far ahead.
    assert 50 <= used < 100_000
    with pytest.raises(StopIteration):
        next(results)
    assert next(taken) == used + 1


def test_a_slow_function_is_not_far_behind_its_input(remote):
    taken = itertools.count()
    results = remote(work.sleep).map(0.005 for _ in taken)
    assert list(itertools.islice(results, 5)) == [0.005] * 5
    assert next(taken) < 60
    results.close()


def test_the_first_result_that_is_late_does_not_stop_the_workers(remote, signs):
    def work_or_wait(x):
        if x == 0:
            signs.wait_for("go")
        signs.note("done", x)
        return x

    results = remote(work_or_wait).map(range(100))
    taken = []
    # Whoever asks for the first result has to wait, and meanwhile the others are done.
    import threading  # noqa: PLC0415

    thread = threading.Thread(target=lambda: taken.extend(results))
    thread.start()
    signs.wait_notes("done", 99)
    assert taken == []
    signs.open("go")
    thread.join(20)
    assert taken == list(range(100))


def _odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_an_exception_is_raised_in_its_place_and_the_rest_comes(remote, chunksize):
    results = remote(_odd_fails).map(range(30), chunksize=chunksize)
    for x in range(30):
        if x % 2:
            with pytest.raises(ValueError, match=f"^{x}$") as caught:
                next(results)
            assert isinstance(caught.value.__cause__, evener.RemoteTraceback)
        else:
            assert next(results) == x
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_exceptions_can_take_the_place_of_results(remote, chunksize):
    results = list(remote(_odd_fails).map(range(30), return_exceptions=True, chunksize=chunksize))
    assert [x for x in results if not isinstance(x, Exception)] == list(range(0, 30, 2))
    assert [error.args for error in results[1::2]] == [(x,) for x in range(1, 30, 2)]
    assert {type(error) for error in results[1::2]} == {ValueError}


def test_what_the_input_raises_comes_after_the_results_before_it(remote):
    def items():
        yield from range(10)
        raise OSError("the input ended")

    results = remote(work.square).map(items())
    assert list(itertools.islice(results, 10)) == [x * x for x in range(10)]
    with pytest.raises(OSError, match="the input ended"):
        next(results)


@pytest.mark.parametrize("end", ["close", "drop"])
def test_what_has_not_begun_when_the_iterator_ends_never_begins(engine, signs, end):
    def note(x):
        signs.note("begun", x)
        signs.wait_for("go")
        return x

    # With a timeout the calls travel one by one.
    results = engine.function(note, timeout=50).map(range(1000))
    signs.wait_notes("begun", 2)
    if end == "close":
        results.close()
    else:
        del results
        gc.collect()
    signs.open("go")
    # Behind all that was sent: what comes last is not before what came first.
    assert engine.client.run(work.square, 2) == 4
    until(lambda: not any(worker.busy for worker in engine.client.workers()), "workers that are idle")
    assert len(signs.notes("begun")) <= 4


def test_items_that_cannot_travel_fail_in_their_places(remote):
    bad = (each for each in ())
    results = list(remote(work.echo).map([1, bad, 3], return_exceptions=True))
    assert results[0] == ((1,), {})
    assert isinstance(results[1], evener.SerializationError)
    assert "generator" in str(results[1])
    assert results[2] == ((3,), {})


def test_maps_side_by_side_do_not_get_in_each_others_way(remote):
    square = remote(work.square)
    pairs = list(zip(square.map(range(500)), square.map(range(500, 1000)), strict=True))
    assert pairs == [(x * x, (x + 500) ** 2) for x in range(500)]


def test_a_hundred_thousand_tiny_calls_are_quick_because_they_travel_together(engine):
    before = sum(worker.jobs_done for worker in engine.client.workers())
    assert sum(engine.function(work.square).map(range(100_000))) == sum(x * x for x in range(100_000))
    jobs = until(
        lambda: (
            not any(worker.busy for worker in engine.client.workers())
            and sum(worker.jobs_done for worker in engine.client.workers()) - before
        ),
        "workers that are idle",
    )
    assert jobs < 10_000


def test_calls_of_a_millisecond_travel_alone(engine):
    before = sum(worker.jobs_done for worker in engine.client.workers())
    assert len(list(engine.function(work.sleep).map([0.002] * 60))) == 60
    until(
        lambda: sum(worker.jobs_done for worker in engine.client.workers()) - before == 60, "sixty jobs that were done"
    )


def test_large_items_and_results_come_whole(remote):
    items = [bytes([place]) * 3_000_000 for place in range(12)]
    assert list(remote(lambda data: data[::-1]).map(items)) == items


def test_a_map_ends_soon_after_its_last_call(remote):
    began = time.monotonic()
    assert list(remote(work.sleep).map([0.1] * 8)) == [0.1] * 8
    assert time.monotonic() - began < 2


class _Reports:
    """Stands where tqdm does."""

    made = ()

    def __init__(self, total=None, desc=None):
        self.total, self.desc, self.counts, self.closed = total, desc, [], False
        type(self).made += (self,)

    def update(self, count):
        self.counts.append(count)

    def close(self):
        self.closed = True


def test_progress_counts_with_tqdm_where_it_is_installed(remote, monkeypatch):
    monkeypatch.setattr("tqdm.auto.tqdm", _Reports)
    monkeypatch.setattr(_Reports, "made", ())
    assert len(list(remote(work.square).map(range(500), progress=True))) == 500
    assert len(list(remote(work.square).map((x for x in range(5)), progress="five"))) == 5
    first, second = _Reports.made
    assert (first.total, first.desc, sum(first.counts), first.closed) == (500, "square", 500, True)
    assert (second.total, second.desc, sum(second.counts), second.closed) == (None, "five", 5, True)


def test_a_bar_of_tqdm_is_shown_on_standard_error(remote, capfd):
    assert len(list(remote(work.square).map(range(100), progress="squares"))) == 100
    out, err = capfd.readouterr()
    assert out == ""
    assert "squares: 100%" in err
    assert "100/100" in err
