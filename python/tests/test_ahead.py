"""Jobs that a worker holds beyond the one at hand: they stay in order, and it is exact which of them has begun."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

import pytest

from conftest import (
    AHEAD,
    BYE,
    BYTES,
    CANCEL,
    CANCELLED,
    CREDIT,
    FAIL,
    JSON,
    LIMIT,
    MEMORY,
    NEXT,
    NO_DEADLINE,
    NOTHING,
    RECALL,
    RETURNED,
    frame,
    job,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc or asks the kernel")

# Takes as long as a job says, by sleeping or by computing, and says which jobs it has begun.
WORK = """
import time
begun = []
def f(value):
    if value == "begun":
        return begun
    name, sleep, compute = value
    begun.append(name)
    print(name)
    end = time.perf_counter() + compute
    while time.perf_counter() < end:
        pass
    time.sleep(sleep)
    return name
"""
WORK_WITH_CONTEXT = WORK.replace("def f(value)", "def f(value, ctx)")


def work(name, sleep=0.0, compute=0.0, **fields):
    return job(json.dumps([name, sleep, compute]).encode(), job=name, **fields)


@pytest.fixture
def granted(start):
    """Start a worker that has granted credit."""

    def granted(source, *arguments, **options):
        worker = start(source, *arguments, **options)
        worker.grant()
        return worker

    return granted


def begun(worker):
    return worker.do(b'"begun"', job=10_000).value


# Credit


@pytest.mark.parametrize("source", [WORK, WORK_WITH_CONTEXT])
def test_credit_is_granted_as_often_as_it_is_asked_for(start, source):
    worker = start(source)
    for name in range(3):
        worker.grant()
        assert worker.do(json.dumps([name, 0, 0]).encode()).value == name
    # In one piece with a job: it is answered first, since the job has not begun.
    worker.send(work(3) + frame(CREDIT, job=0, attempt=0))
    assert worker.frame().kind == CREDIT
    assert worker.outcome().value == 3
    assert worker.leave()[0] == 0


def test_credit_that_comes_during_the_first_job_is_granted_after_it(start):
    text = "import time\ndef f(value, ctx):\n  print('begun')\n  while not ctx.cancelled(): pass\n  return 1\n"
    worker = start(text)
    worker.send(job(b"1"))
    assert worker.line() == "begun\n"
    worker.send(frame(CREDIT, job=0, attempt=0))
    time.sleep(0.05)
    worker.send(frame(CANCEL))
    assert worker.outcome().value == 1
    assert worker.frame().kind == CREDIT


def test_credit_is_granted_again_while_a_job_runs(granted):
    worker = granted(WORK)
    worker.send(work(1, sleep=5))
    assert worker.line() == "1\n"
    worker.socket.settimeout(1)
    worker.grant()


def test_there_is_no_watch_before_credit(start):
    worker = start("import sys, threading\ndef f(value): return len(sys._current_frames()), threading.active_count()")
    assert worker.do().value == [1, 1]
    worker.send(job(b"1"), job(b"1"))
    assert [worker.outcome().value, worker.outcome().value] == [[1, 1]] * 2
    for _ in range(2):
        worker.grant()
        time.sleep(0.2)
        # Nor do those who count their threads see it.
        assert worker.do().value == [2, 1]
    assert worker.leave() == (0, "", "")


def test_jobs_ahead_without_credit_are_done_in_order(start):
    worker = start(WORK_WITH_CONTEXT)
    worker.send(b"".join(work(name) for name in range(50)))
    assert [worker.outcome().job for _ in range(50)] == list(range(50))
    worker.send(work(50, compute=0.1), work(51), work(52), frame(CANCEL, job=51), frame(RECALL, job=52))
    outcomes = {outcome.job: outcome for outcome in (worker.outcome() for _ in range(3))}
    assert outcomes[50].value == 50
    assert (outcomes[51].verb, outcomes[51].number) == (FAIL, CANCELLED)
    assert outcomes[52].verb == RETURNED
    assert begun(worker) == list(range(51))


# Order


@pytest.mark.parametrize("source", [WORK, WORK_WITH_CONTEXT])
@pytest.mark.parametrize("whole", [True, False])
def test_jobs_are_done_in_order(granted, source, whole):
    worker = granted(source)
    jobs = [work(name, attempt=name + 3, sleep=0.03 if name % 7 == 0 else 0) for name in range(AHEAD + 1)]
    for message in [b"".join(jobs)] if whole else jobs:
        worker.send(message)
    outcomes = [worker.outcome() for _ in jobs]
    assert [(outcome.job, outcome.attempt) for outcome in outcomes] == [(name, name + 3) for name in range(len(jobs))]
    assert begun(worker) == list(range(len(jobs)))


@linux
def test_an_outcome_is_written_before_the_next_job_begins(granted):
    # TIOCOUTQ: how much the worker has written that nobody has read yet.
    worker = granted(
        "import fcntl, termios\ndef f(value):\n  return fcntl.ioctl(3, termios.TIOCOUTQ, bytes(4))[::-1]\n"
    )
    worker.send(b"".join(job(b"1", job=name) for name in range(AHEAD + 1)))
    time.sleep(0.3)
    waiting = [worker.outcome().payload for _ in range(AHEAD + 1)]
    assert waiting == sorted(set(waiting))


def test_the_hands_are_kept_full(granted):
    worker = granted("def f(value): return value")
    sent = 0
    for done in range(20_000):
        while sent < min(done + 8, 20_000):
            worker.send(job(str(sent).encode(), job=sent))
            sent += 1
        outcome = worker.outcome()
        assert (outcome.job, outcome.payload) == (done, str(done).encode())


def test_frames_ahead_may_arrive_in_any_pieces(granted):
    worker = granted("def f(value): return len(value)")
    randomness = random.Random(3)
    for _ in range(40):
        sizes = [randomness.choice([0, 1, 4_000, 65_496, 70_000, 300_000, 600_000]) for _ in range(5)]
        message = b"".join(job(bytes(size), BYTES, job=name) for name, size in enumerate(sizes))
        while message:
            count = randomness.choice([1, 7, 40, 41, 65_536, 300_000, len(message)])
            worker.send(message[:count])
            message = message[count:]
        assert [worker.outcome().value for _ in sizes] == sizes


def test_the_deadline_runs_while_a_job_waits(granted):
    worker = granted("import time\ndef f(value, ctx):\n  time.sleep(value)\n  return ctx.remaining()\n")
    worker.send(job(b"0.3"), job(b"0", nanoseconds=5 * 10**9), job(b"0", nanoseconds=10**8), job(b"0"))
    left = [worker.outcome().value for _ in range(4)]
    assert left[0] is None
    assert 4 < left[1] <= 4.71
    assert left[2:] == [0, None]
    assert NO_DEADLINE == 2**64 - 1


# Recalling and cancelling what waits


@pytest.mark.parametrize("source", [WORK, WORK_WITH_CONTEXT])
@pytest.mark.parametrize("way", ["sleep", "compute"])
def test_what_waits_is_given_back_while_a_long_job_runs(granted, source, way):
    worker = granted(source)
    worker.send(work(1, **{way: 2}), work(2), work(3, attempt=9), work(4), work(5))
    assert worker.line() == "1\n"
    for _ in range(2):
        sent = time.monotonic()
        worker.send(frame(RECALL, job=3, attempt=9), frame(CANCEL, job=5), frame(RECALL, job=2))
        outcomes = [worker.outcome() for _ in range(3)]
        assert time.monotonic() - sent < 1
        for outcome, name, attempt in ((outcomes[0], 3, 9), (outcomes[2], 2, 1)):
            assert (outcome.verb, outcome.job, outcome.attempt) == (RETURNED, name, attempt)
            assert (outcome.number, outcome.nanoseconds, outcome.content) == (0, 0, NOTHING)
            assert (outcome.extension, outcome.payload) == ({}, b"")
        assert (outcomes[1].verb, outcomes[1].number, outcomes[1].job) == (FAIL, CANCELLED, 5)
        # The same ones may come again.
        worker.send(work(3, attempt=9), work(5), work(2))
    worker.send(frame(RECALL, job=2), frame(RECALL, job=2))
    assert worker.outcome().verb == RETURNED
    assert [worker.outcome().value for _ in range(4)] == [1, 4, 3, 5]
    assert begun(worker) == [1, 4, 3, 5]


def test_what_waits_is_given_back_after_a_job_that_lets_nobody_run(granted):
    worker = granted("def f(value):\n  print(value)\n  return sum(range(value))\n")
    worker.send(job(b"40000000", job=1), job(b"1", job=2), job(b"2", job=3))
    assert worker.line() == "40000000\n"
    worker.send(frame(RECALL, job=2))
    outcomes = [worker.outcome() for _ in range(3)]
    assert sorted((outcome.job, outcome.verb) for outcome in outcomes) == [(1, NEXT), (2, RETURNED), (3, NEXT)]
    assert worker.leave()[1] == "2\n"


def test_what_was_read_in_one_piece_is_given_back(granted):
    worker = granted(WORK)
    worker.send(work(1) + work(2) + frame(RECALL, job=1) + work(3) + frame(CANCEL, job=3) + frame(RECALL, job=9))
    outcomes = [worker.outcome() for _ in range(3)]
    assert [(outcome.job, outcome.verb) for outcome in outcomes] == [(1, RETURNED), (3, FAIL), (2, NEXT)]
    assert begun(worker) == [2]


def test_a_recall_of_what_has_begun_or_is_unknown_does_nothing(granted):
    worker = granted(WORK)
    worker.send(work(1, sleep=0.3), work(2))
    assert worker.line() == "1\n"
    # The one at hand, one of another attempt, one that never was.
    worker.send(frame(RECALL, job=1), frame(RECALL, job=2, attempt=2), frame(CANCEL, job=2, attempt=2))
    worker.send(frame(RECALL, job=7), frame(CANCEL, job=7))
    assert [worker.outcome().value, worker.outcome().value] == [1, 2]
    worker.send(frame(RECALL, job=1), frame(RECALL, job=2), frame(CANCEL, job=2))
    assert begun(worker) == [1, 2]


def test_the_one_at_hand_is_cancelled_and_the_others_are_done(granted):
    worker = granted(
        "import time\ndef f(value, ctx):\n  if value:\n    print(value)\n"
        "    while not ctx.cancelled(): time.sleep(value)\n    ctx.check()\n  return ctx.cancelled()\n"
    )
    for pause in (b"1e-9", b"0.1"):
        worker.send(job(pause, job=1, attempt=5), job(b"0", job=2), job(b"0", job=3))
        worker.line()
        worker.send(frame(CANCEL, job=1, attempt=4), frame(RECALL, job=2))
        assert (worker.outcome().verb) == RETURNED
        worker.send(frame(CANCEL, job=1, attempt=5))
        outcome = worker.outcome()
        assert (outcome.job, outcome.verb, outcome.number) == (1, FAIL, CANCELLED)
        outcome = worker.outcome()
        assert (outcome.job, outcome.value) == (3, False)


def test_a_cancel_that_only_the_watch_has_seen_is_told(granted):
    worker = granted("import time\ndef f(value, ctx):\n  time.sleep(value)\n  return ctx.cancelled()\n")
    worker.send(job(b"0.3", job=1), job(b"0.1", job=2))
    time.sleep(0.05)
    worker.send(frame(CANCEL, job=1))
    assert [worker.outcome().value, worker.outcome().value] == [True, False]


@pytest.mark.parametrize("kind", [RECALL, CANCEL])
@pytest.mark.parametrize("behind", [False, True])
def test_a_job_is_given_back_before_all_of_it_is_there(granted, kind, behind):
    worker = granted("import time\ndef f(value):\n  if type(value) is float: time.sleep(value)\n  return value")
    if behind:
        worker.send(job(b"1.5", job=1))
    parts = job(b"x" * LIMIT * 3, BYTES, job=5, attempt=4)
    worker.send(parts[: 40 + LIMIT], frame(kind, job=5, attempt=3), frame(kind, job=6, attempt=4))
    worker.send(parts[40 + LIMIT : 2 * (40 + LIMIT)], frame(kind, job=5, attempt=4))
    worker.socket.settimeout(1)
    outcome = worker.outcome()
    assert (outcome.job, outcome.attempt) == (5, 4)
    assert (outcome.verb, outcome.number) == ((RETURNED, 0) if kind == RECALL else (FAIL, CANCELLED))
    # A node that had not begun to send it says so much of a job that it no longer means to send.
    worker.send(frame(2, flags=1, job=6), frame(kind, job=6))
    assert worker.outcome().job == 6
    worker.socket.settimeout(15)
    worker.send(job(b"2", job=7))
    assert [worker.outcome().value for _ in range(1 + behind)] == [1.5, 2][1 - behind :]


@pytest.mark.parametrize(("rounds", "longest"), [(250, 0.003), (40, 0.08)])
@pytest.mark.parametrize("way", ["sleep", "compute"])
@pytest.mark.parametrize("source", [WORK, WORK_WITH_CONTEXT])
def test_a_recall_that_races_with_the_beginning(granted, rounds, longest, way, source):
    worker = granted(source)
    randomness = random.Random(rounds)
    seen = {NEXT: 0, RETURNED: 0, FAIL: 0}
    expected = []
    name = 0
    for _ in range(rounds):
        length = randomness.uniform(0, longest)
        first, names = name, range(name + 1, name + 4)
        name += 4
        worker.send(work(first, **{way: length}), *(work(other) for other in names))
        time.sleep(max(0, length + randomness.uniform(-0.001, 0.0005)))
        kinds = [randomness.choice([RECALL, RECALL, CANCEL]) for _ in names]
        worker.send(b"".join(frame(kind, job=other) for kind, other in zip(reversed(kinds), reversed(names))))
        outcomes = [worker.outcome() for _ in range(4)]
        assert sorted(outcome.job for outcome in outcomes) == [first, *names]
        for outcome in outcomes:
            seen[outcome.verb] += 1
            if outcome.verb == NEXT:
                assert outcome.value == outcome.job
                expected.append(outcome.job)
            else:
                assert outcome.verb == (RETURNED if kinds[outcome.job - first - 1] == RECALL else FAIL)
    # Neither twice nor without having begun, and in order.
    assert begun(worker) == expected
    assert expected == sorted(expected)
    assert seen[RETURNED] > 0
    assert seen[NEXT] >= rounds


# Leaving


@pytest.mark.parametrize("half", [False, True])
def test_the_end_of_the_stream_with_jobs_held(granted, half):
    worker = granted(WORK)
    worker.send(work(1, sleep=0.3), work(2), work(3))
    assert worker.line() == "1\n"
    if half:
        worker.socket.shutdown(1)
        assert worker.outcome().value == 1
        assert worker.gone() == (0, "", "")
    else:
        assert worker.leave() == (0, "", "")


def test_bye_with_jobs_held(granted):
    worker = granted(WORK)
    worker.send(work(1, sleep=0.1), work(2), frame(BYE), frame(RECALL, job=2))
    assert sorted((outcome.job, outcome.verb) for outcome in (worker.outcome(), worker.outcome())) == [
        (1, NEXT),
        (2, RETURNED),
    ]
    assert worker.gone()[0] == 0
    worker = granted(WORK)
    worker.send(work(1, sleep=0.1), work(2), work(3, sleep=0.1), frame(BYE))
    assert [worker.outcome().value for _ in range(3)] == [1, 2, 3]
    assert worker.gone()[0] == 0


def test_a_malformed_frame_behind_jobs(granted):
    worker = granted(WORK)
    worker.send(work(1, sleep=0.1), work(2), frame(99), work(3))
    assert [worker.outcome().value for _ in range(2)] == [1, 2]
    code, output, errors = worker.gone()
    assert (code, output) == (2, "1\n2\n")
    assert "a frame of kind 99" in errors


def test_out_of_memory_with_jobs_held(granted):
    worker = granted("import time\ndef f(value):\n  time.sleep(0.1)\n  print(value)\n  raise MemoryError('much')")
    worker.send(work(1), work(2), work(3))
    outcome = worker.outcome()
    assert (outcome.job, outcome.verb, outcome.number) == (1, FAIL, MEMORY)
    assert worker.frame().kind == BYE
    assert worker.gone()[:2] == (1, "[1, 0.0, 0.0]\n")


def test_leaving_is_not_held_up_by_the_watch(granted):
    worker = granted("import atexit\natexit.register(print, 'cleaned up')\ndef f(value): return value")
    assert worker.do(b"1").value == 1
    before = time.monotonic()
    assert worker.leave() == (0, "cleaned up\n", "")
    assert time.monotonic() - before < 1


# The watch


def other_threads(worker):
    """How often each thread but the first was given a processor, as the kernel counts."""
    tasks = Path(f"/proc/{worker.process.pid}/task")
    lines = {
        task.name: [line for line in (task / "status").read_text().splitlines() if "voluntary_ctxt" in line]
        for task in tasks.iterdir()
        if task.name != str(worker.process.pid)
    }
    return {name: sum(int(line.split()[1]) for line in found) for name, found in lines.items()}


@linux
def test_the_watch_rests_when_there_is_nothing_to_do(granted):
    worker = granted(WORK)
    worker.socket.settimeout(1)
    for turn in range(2):
        worker.send(work(1, sleep=0.5))
        assert worker.line() == "1\n"
        early = other_threads(worker)
        time.sleep(0.3)
        assert all(count > early[name] + 3 for name, count in other_threads(worker).items())
        assert worker.outcome().value == 1
        time.sleep(2)
        early = other_threads(worker)
        assert len(early) == 1
        time.sleep(0.5)
        assert other_threads(worker) == early
        worker.send(work(2, sleep=0.7), work(3))
        assert worker.line() == "2\n"
        worker.send(frame(RECALL, job=3))
        outcome = worker.outcome()
        assert (outcome.job, outcome.verb) == (3, RETURNED), turn
        assert worker.outcome().value == 2


def test_threads_may_ask_at_any_time(granted):
    worker = granted(
        """
import threading, time
stop = threading.Event()
seen = {}
def watch(ctx, value):
    while not stop.is_set():
        if ctx.cancelled():
            seen[value] = True
    seen["ended"] = True
def f(value, ctx):
    if value == "last":
        stop.set()
        for thread in threads:
            thread.join()
        return seen
    if value < 3:
        print(value)
        threads.append(threading.Thread(target=watch, args=(ctx, value)))
        threads[-1].start()
        time.sleep(0.1)
    return value
threads = []
"""
    )
    worker.send(b"".join(job(str(name).encode(), job=name) for name in range(15)))
    assert worker.line() == "0\n"
    worker.send(frame(CANCEL, job=0))
    assert [worker.outcome().value for _ in range(15)] == list(range(15))
    # Those who hold a context of long ago are not kept waiting while the worker is idle.
    time.sleep(0.2)
    assert worker.do(b'"last"').value == {"0": True, "ended": True}


def test_a_forked_process_does_not_answer_for_jobs_ahead(granted):
    worker = granted(
        """
import os, sys, time
def f(value, ctx):
    how, pause = value
    time.sleep(pause)
    pid = os.fork()
    if pid == 0:
        ctx.cancelled()
        if how == "exit":
            sys.exit(7)
        if how == "raise":
            raise ValueError("in the child")
        return "from the child"
    time.sleep(pause)
    return os.waitpid(pid, 0)[1] >> 8
"""
    )
    codes = {"exit": 7, "raise": 1, "return": 1}
    randomness = random.Random(5)
    for _ in range(4):
        ways = [randomness.choice(list(codes)) for _ in range(AHEAD)]
        pauses = [randomness.choice([0, 0, 0, 0.04, 0.06]) for _ in ways]
        jobs = [job(json.dumps(both).encode(), job=name) for name, both in enumerate(zip(ways, pauses))]
        worker.send(b"".join(jobs))
        outcomes = [worker.outcome() for _ in ways]
        assert [(outcome.job, outcome.value) for outcome in outcomes] == [
            (name, codes[way]) for name, way in enumerate(ways)
        ]
    assert worker.leave()[0] == 0


def test_a_process_pool_works_with_jobs_ahead(granted):
    worker = granted(
        """
import multiprocessing
def square(x):
    return x * x
def f(values):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(square, values)
"""
    )
    worker.send(b"".join(job(b"[1,2,3]") for _ in range(4)))
    assert [worker.outcome().value for _ in range(4)] == [[1, 4, 9]] * 4
    assert worker.leave()[0] == 0


# Large ones


def test_large_results_stay_in_one_piece(granted):
    worker = granted("import time\ndef f(value):\n  time.sleep(value[0])\n  return bytes([value[1]]) * value[2]\n")
    randomness = random.Random(11)
    for _ in range(12):
        values = [[randomness.choice([0, 0, 0.05]), name, randomness.choice([9, 1_000_000])] for name in range(AHEAD)]
        worker.send(b"".join(job(json.dumps(value).encode(), job=value[1]) for value in values))
        gone = randomness.sample(range(1, AHEAD), 6)
        for name in gone:
            worker.send(frame(randomness.choice([RECALL, CANCEL]), job=name))
        # The worker may be stuck in the middle of an outcome by now.
        time.sleep(randomness.choice([0, 0.03, 0.1]))
        outcomes = [worker.outcome() for _ in values]
        assert sorted(outcome.job for outcome in outcomes) == list(range(AHEAD))
        for outcome in outcomes:
            if outcome.verb == NEXT:
                assert outcome.payload == bytes([outcome.job]) * values[outcome.job][2]
            else:
                assert outcome.job in gone


def test_large_jobs_wait_as_well(granted):
    worker = granted("import time\ndef f(value):\n  time.sleep(0.15)\n  return len(value)\n")
    payloads = [os.urandom(size) for size in (2_000_000, 3, 700_000, LIMIT + 1, 65_496)]
    for name, payload in enumerate(payloads):
        worker.send(job(payload, BYTES, job=name))
    worker.send(frame(RECALL, job=2))
    outcomes = {outcome.job: outcome for outcome in (worker.outcome() for _ in payloads)}
    assert outcomes.pop(2).verb == RETURNED
    assert {name: outcome.value for name, outcome in outcomes.items()} == {
        name: len(payloads[name]) for name in (0, 1, 3, 4)
    }


@pytest.mark.parametrize("content", [JSON, NOTHING])
def test_a_job_that_does_not_decode_has_an_outcome_in_its_turn(granted, content):
    worker = granted("def f(value): return value")
    worker.send(job(b"1", job=1), job(b"{" if content else b"", content, job=2), job(b"3", job=3))
    outcomes = [worker.outcome() for _ in range(3)]
    assert [(outcome.job, outcome.verb) for outcome in outcomes] == [
        (1, NEXT),
        (2, FAIL if content else NEXT),
        (3, NEXT),
    ]
