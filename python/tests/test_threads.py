"""Several jobs in one worker at the same time, each in a thread."""

from __future__ import annotations

import threading
import time

import pytest

from conftest import (
    ABORT,
    ADD,
    BYE,
    CANCEL,
    CANCELLED,
    CHUNK,
    CREDIT,
    DECODE,
    ENCODE,
    END,
    ERROR,
    FAIL,
    LIMIT,
    MEMORY,
    NEXT,
    OUTCOME,
    STREAM,
    TEXT,
    VALUE,
    frame,
    job,
)

# Jobs that wait until as many of them are there as they say.
MEET = """
import threading
barriers = {n: threading.Barrier(n, timeout=10) for n in range(2, 9)}
def f(value):
    barriers[value].wait()
    return threading.current_thread().name
"""
# Jobs that say that they have begun, and wait to be cancelled.
WAIT = """
import time
def f(value, ctx):
    print("begun", value, flush=True)
    try:
        while True:
            ctx.check()
            time.sleep(0.001)
    finally:
        print("left", value, flush=True)
"""


@pytest.fixture
def begin(start):
    """Start a worker with threads."""

    def begin(source, count=4, target="m:f", **options):
        return start(source, target, "--threads", str(count), **options)

    return begin


def outcomes(worker, count):
    found = {outcome.job: outcome for outcome in (worker.outcome() for _ in range(count))}
    assert len(found) == count
    return found


def lines(worker, count):
    return sorted(worker.line() for _ in range(count))


def test_jobs_run_at_the_same_time(begin):
    worker = begin(MEET)
    for count in (4, 2, 3):
        worker.send(*(job(b"%d" % count, job=number) for number in range(count)))
        names = [outcome.value for outcome in outcomes(worker, count).values()]
        assert len(set(names)) == count
        assert set(names) <= {f"evener-{number}" for number in range(1, 5)}
    assert worker.leave() == (0, "", "")


def test_outcomes_come_in_any_order(begin):
    worker = begin("import time\ndef f(value):\n  time.sleep(value)\n  return value\n")
    worker.send(job(b"0.3", job=1), job(b"0", job=2))
    assert [worker.outcome().job for _ in range(2)] == [2, 1]


def test_threads_are_started_as_they_are_needed(begin):
    worker = begin("import threading\ndef f(value): return threading.active_count()\n", 8)
    assert [worker.do(b"1").value for _ in range(5)] == [2] * 5


def test_more_jobs_than_threads_wait(begin):
    worker = begin("import threading\ndef f(value): return threading.current_thread().name\n", 2)
    worker.send(*(job(b"1", job=number) for number in range(50)))
    assert {outcome.value for outcome in outcomes(worker, 50).values()} <= {"evener-1", "evener-2"}


def test_what_it_says_and_that_it_grants_no_credit(begin):
    worker = begin(MEET, ready=False)
    extension = worker.ready().extension
    assert (extension["stream"], extension["context"]) == (True, False)
    worker.send(frame(CREDIT, job=0, attempt=0), job(b"2", job=1), job(b"2", job=2))
    assert len(outcomes(worker, 2)) == 2


def test_a_class_has_one_instance_for_all_threads(begin):
    source = """
import threading
class f:
    made = 0
    def __init__(self):
        f.made += 1
        self.barrier = threading.Barrier(3, timeout=10)
        self.main = threading.current_thread() is threading.main_thread()
    def __call__(self, value, ctx):
        self.barrier.wait()
        return [f.made, self.main, ctx.tries]
"""
    worker = begin(source)
    worker.send(*(job(b"0", job=number, number=number) for number in range(1, 4)))
    assert [found.value for _, found in sorted(outcomes(worker, 3).items())] == [[1, True, n] for n in range(1, 4)]


def test_cancel_is_for_one_job(begin):
    worker = begin(WAIT)
    worker.send(*(job(b"%d" % number, job=number) for number in (1, 2, 3)))
    assert lines(worker, 3) == ["begun 1\n", "begun 2\n", "begun 3\n"]
    for number in (2, 3, 1):
        worker.send(frame(CANCEL, job=number, attempt=2), frame(CANCEL, job=9), frame(CANCEL, job=number))
        outcome = worker.outcome()
        assert (outcome.job, outcome.verb, outcome.number) == (number, FAIL, CANCELLED)
        assert worker.line() == f"left {number}\n"


def test_a_job_that_is_cancelled_while_it_waits_for_a_thread_is_not_begun(begin):
    worker = begin(WAIT, 1)
    worker.send(job(b"1", job=1), job(b"2", job=2))
    assert worker.line() == "begun 1\n"
    worker.send(frame(CANCEL, job=2))
    worker.send(frame(CANCEL, job=1))
    assert {outcome.number for outcome in outcomes(worker, 2).values()} == {CANCELLED}
    assert worker.leave()[1] == "left 1\n"


def test_each_has_its_own_outcome(begin):
    source = """
import evener
def f(value):
    if value == 1: raise evener.Abort(404, "no")
    if value == 2: raise ValueError("bad")
    if value == 3: return {1}
    if value == 4: raise SystemExit(3)
    return evener.Response("early", 203)
"""
    worker = begin(source)
    worker.send(*(job(b"%d" % number, job=number) for number in range(1, 6)), job(b"{", job=6))
    found = outcomes(worker, 6)
    assert [found[number].number for number in range(1, 7)] == [ABORT, ERROR, ENCODE, ERROR, 203, DECODE]
    assert found[2].extension["message"] == "bad"
    assert "_worker.py" not in found[2].extension["traceback"]
    assert worker.process.poll() is None


def test_large_values_do_not_mix(begin):
    worker = begin("def f(value): return value\n")
    texts = [str(number) * (LIMIT + 100_000) for number in range(4)]
    # A node reads while it writes.
    jobs = [job(text.encode(), TEXT, job=number) for number, text in enumerate(texts)]
    threading.Thread(target=worker.send, args=jobs).start()
    found = outcomes(worker, 4)
    assert [found[number].value for number in range(4)] == texts


def test_values_are_encoded_at_the_same_time(begin):
    # One object in many encodings at once is no circle.
    source = """
shared = {str(n): [n, {'a': [n]}] for n in range(3000)}
def f(value): return [shared, value, {'a': {1}}][: 2 if value % 7 else 3]
"""
    worker = begin(source, 8)
    for _ in range(5):
        worker.send(*(job(b"%d" % number, job=number) for number in range(8)))
        found = outcomes(worker, 8)
        for number in range(8):
            if number % 7:
                assert found[number].value[1] == number
            else:
                assert found[number].number == ENCODE
                assert found[number].extension["place"] == 'result[2]["a"]'


def test_generators_stream_at_the_same_time(begin):
    worker = begin("def f(value):\n  for number in range(5): yield [value, number]\n  yield 'x' * 1000\n")
    worker.send(*(job(b"%d" % number, job=number, also=STREAM) for number in range(4)))
    chunks = {number: [] for number in range(4)}
    ended = 0
    while ended < 4:
        found = worker.frame()
        if found.kind == OUTCOME:
            assert found.verb == END
            ended += 1
        else:
            assert found.kind == CHUNK
            chunks[found.job].append(found.value)
    for number in range(4):
        assert chunks[number] == [*([number, index] for index in range(5)), "x" * 1000]


def test_one_that_waits_for_credit_holds_up_no_other(begin):
    worker = begin("def f(value):\n  while value:\n    yield 'x' * 100_000\n  yield 1\n")
    worker.send(job(b"1", job=1, also=STREAM))
    for _ in range(3):
        assert worker.frame().kind == CHUNK
    for number in range(2, 10):
        worker.send(job(b"0", job=number, also=STREAM))
        found = worker.frame()
        assert (found.kind, found.job, found.value) == (CHUNK, number, 1)
        assert worker.outcome().verb == END
    worker.send(frame(CREDIT, job=1, number=100_000))
    assert worker.frame().job == 1
    worker.send(frame(CANCEL, job=1))
    assert worker.outcome().number == CANCELLED


def test_each_asks_for_itself(begin):
    worker = begin("def f(value, ctx): return ctx.state.add('k', value)\n")
    worker.send(*(job(b"%d" % number, job=number) for number in range(1, 5)))
    for question in [worker.frame() for _ in range(4)]:
        assert (question.verb, question.extension["amount"]) == (ADD, question.job)
        worker.answer(question, VALUE, b"%d" % (10 * question.job))
    found = outcomes(worker, 4)
    assert [found[number].value for number in range(1, 5)] == [10, 20, 30, 40]


def test_after_bye_all_jobs_end(begin):
    worker = begin("import time\ndef f(value):\n  time.sleep(value)\n  return value\n")
    worker.send(job(b"0.3", job=1), job(b"0.1", job=2), frame(BYE, job=0, attempt=0))
    assert [worker.outcome().value for _ in range(2)] == [0.1, 0.3]
    assert worker.gone() == (0, "", "")


def test_bye_without_a_job(begin):
    worker = begin(MEET)
    worker.send(frame(BYE, job=0, attempt=0))
    assert worker.gone() == (0, "", "")


def test_the_node_that_goes_away_lets_jobs_tidy_up(begin):
    worker = begin(WAIT)
    worker.send(job(b"1", job=1), job(b"2", job=2))
    assert lines(worker, 2) == ["begun 1\n", "begun 2\n"]
    code, output, _ = worker.leave()
    assert (code, sorted(output.splitlines())) == (0, ["left 1", "left 2"])


def test_memory_that_runs_out_ends_the_worker(begin):
    worker = begin("import time\ndef f(value):\n  if value: raise MemoryError('much')\n  time.sleep(60)\n")
    worker.send(job(b"0", job=1), job(b"1", job=2))
    outcome = worker.outcome()
    assert (outcome.job, outcome.verb, outcome.number) == (2, FAIL, MEMORY)
    assert outcome.extension["message"] == "much"
    assert worker.frame().kind == BYE
    assert worker.gone()[0] == 1


def test_malformed_frames_end_it(begin):
    worker = begin(WAIT)
    worker.send(job(b"1", job=1))
    assert worker.line() == "begun 1\n"
    worker.send(frame(99))
    code, _, errors = worker.gone()
    assert code == 2
    assert "the node sent a frame of kind 99" in errors


def test_a_fork_is_not_the_worker(begin):
    worker = begin("import os\ndef f(value):\n  return [os.fork() > 0, value]\n")
    for number in range(3):
        assert worker.do(b"%d" % number).value == [True, number]
    worker.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        worker.frame()


def test_many_jobs(begin):
    worker = begin("def f(value, ctx):\n  assert not ctx.cancelled()\n  return value\n", 8)
    for start in range(0, 2000, 8):
        numbers = range(start, start + 8)
        worker.send(*(job(b"%d" % number, job=number) for number in numbers))
        assert {number: found.value for number, found in outcomes(worker, 8).items()} == {n: n for n in numbers}


def test_a_logger_writes_each_line_once(begin):
    worker = begin("def f(value, ctx): ctx.log.info('line %s', value)\n", 8)
    worker.send(*(job(b"%d" % number, job=number) for number in range(8)))
    outcomes(worker, 8)
    assert sorted(worker.leave()[2].splitlines()) == [f"<6>line {number}" for number in range(8)]


@pytest.mark.parametrize("arguments", [("0",), ("x",), ("",), ("-1",), ("2", "--batch"), ("1000000",)])
def test_what_is_no_number_of_threads(start, arguments):
    worker = start(MEET, "m:f", "--threads", *arguments, ready=False)
    code, _, errors = worker.gone()
    assert code == 2
    assert "usage" in errors


def test_a_thread_that_computes_lets_the_others_be_told(begin):
    source = """
def f(value, ctx):
    count = 0
    while not ctx.cancelled(): count += 1
    return count > 0
"""
    worker = begin(source)
    worker.send(job(b"1", job=1), job(b"1", job=2))
    time.sleep(0.05)
    worker.send(frame(CANCEL, job=1), frame(CANCEL, job=2))
    assert [(found.verb, found.value) for found in outcomes(worker, 2).values()] == [(NEXT, True)] * 2
