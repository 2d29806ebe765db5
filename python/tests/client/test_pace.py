"""How groups are sized."""

from __future__ import annotations

from evener._pace import Pace


def learnt(each_ns, rounds=20, left=None, workers=2, value_bytes=4):
    """A pace that has seen a function of this speed for a while; the sizes of its groups."""
    pace = Pace(workers, left)
    sizes = []
    for _ in range(rounds):
        size = pace.next_size()
        sizes.append(size)
        pace.learn(size, int(each_ns * size), 20 * size, value_bytes * size, worker=len(sizes) % workers)
    return sizes


def test_it_begins_with_single_calls_and_grows_by_steps():
    sizes = learnt(100)
    assert sizes[0] == 1
    assert all(after <= 4 * max(sizes[:place]) for place, after in enumerate(sizes) if place)
    assert sizes[-1] == 10_000


def test_a_group_runs_for_some_milliseconds():
    assert learnt(10_000)[-1] == 800
    assert learnt(100_000)[-1] == 80


def test_calls_of_a_millisecond_travel_alone():
    assert set(learnt(1_000_000)) == {1}
    assert set(learnt(1e9)) == {1}


def test_a_group_holds_about_a_mebibyte():
    assert learnt(100, value_bytes=10_000)[-1] == 104


def test_what_a_worker_does_first_does_not_count_once_more_is_known():
    pace = Pace(2, None)
    pace.learn(1, 500_000_000, 20, 4, worker=1)
    assert pace.next_size() == 1
    pace.learn(1, 10_000, 20, 4, worker=1)
    assert pace.next_size() == 4
    pace.learn(1, 500_000_000, 20, 4, worker=2)
    assert pace.next_size() == 4


def test_a_function_that_turns_slow_is_noticed():
    pace = Pace(2, None)
    for worker in (1, 2, 1, 2):
        pace.learn(1_000, 1_000_000, 20_000, 4_000, worker)
    assert pace.next_size() == 4_000
    pace.learn(4_000, 8_000_000_000, 80_000, 16_000, 1)
    assert pace.next_size() == 1


def test_groups_shrink_towards_the_end():
    pace = Pace(4, 10_000)
    for worker in (1, 1, 2, 2):
        pace.learn(4_000, 400_000, 80_000, 16_000, worker)
    sizes = []
    left = 10_000
    while left:
        size = min(pace.next_size(), left)
        pace.sent(size)
        sizes.append(size)
        left -= size
    assert sizes[0] == 10_000 // 8 + 1
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
