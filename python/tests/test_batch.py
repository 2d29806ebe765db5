"""Jobs in batches: one call with all of their values, and an outcome for each."""

from __future__ import annotations

import json
import time

import pytest

from conftest import (
    ABORT,
    BATCH,
    BYE,
    CANCEL,
    CANCELLED,
    CREDIT,
    DECODE,
    ENCODE,
    ERROR,
    FAIL,
    GOTO,
    JOB,
    JSON,
    LIMIT,
    MEMORY,
    NEXT,
    RECALL,
    RESPOND,
    RETURNED,
    STREAM,
    TEXT,
    frame,
    job,
)

DOUBLE = "def f(values): return [[len(values), value] for value in values]\n"


@pytest.fixture
def begin(start):
    """Start a worker that gets its jobs in batches."""

    def begin(source, target="m:f", **options):
        return start(source, target, "--batch", **options)

    return begin


def batch(*values, first=1, last=True):
    """The JOBs of a batch, of which the last may be missing."""
    count = len(values)
    flags = [BATCH] * (count - last) + [0] * last
    return b"".join(
        job(json.dumps(value).encode(), job=first + index, also=flag)
        for index, (value, flag) in enumerate(zip(values, flags))
    )


def outcomes(worker, count):
    found = {outcome.job: outcome for outcome in (worker.outcome() for _ in range(count))}
    assert len(found) == count
    return found


def test_a_batch_is_one_call(begin):
    worker = begin(DOUBLE)
    for count in (1, 3, 500):
        worker.send(batch(*range(count)))
        found = outcomes(worker, count)
        assert [found[1 + index].value for index in range(count)] == [[count, index] for index in range(count)]
        assert {(outcome.kind, outcome.verb, outcome.attempt) for outcome in found.values()} == {(7, NEXT, 1)}
        assert len({outcome.nanoseconds for outcome in found.values()}) == 1
    # Two at once stay two.
    worker.send(batch(1, 2) + batch(3, first=3) + batch(4, 5, first=4))
    assert [outcome.value for outcome in outcomes(worker, 5).values()] == [[2, 1], [2, 2], [1, 3], [2, 4], [2, 5]]
    assert worker.leave() == (0, "", "")


def test_what_a_worker_of_batches_says(begin):
    worker = begin(DOUBLE, ready=False)
    extension = worker.ready().extension
    assert (extension["stream"], extension["context"]) == (False, False)
    # It grants no credit.
    worker.send(frame(CREDIT, job=0, attempt=0), batch(1))
    assert worker.outcome().value == [1, 1]


@pytest.mark.parametrize(
    "source",
    [
        "class f:\n  def __init__(self): self.calls = 0\n  def __call__(self, values):\n"
        "    self.calls += 1\n    return [self.calls for _ in values]\n",
        "def f(values): return tuple(1 for _ in values)\n",
        "def f(values):\n  for _ in values: yield 1\n",
        "def f(values): return (1 for _ in values)\n",
    ],
)
def test_a_class_a_tuple_and_a_generator_do_as_well(begin, source):
    worker = begin(source)
    worker.send(batch("a", "b"))
    assert [outcome.value for outcome in outcomes(worker, 2).values()] == [1, 1]


def test_each_item_has_its_own_outcome(begin):
    source = """
import evener
def f(values):
    return [
        "text", evener.Response("no", 404), evener.Goto("there", 5), evener.Abort(418, "tea"), KeyError("k"), {1}, None,
        SystemExit(3), evener.Cancelled(), MemoryError("m"),
    ]
"""
    worker = begin(source)
    worker.send(batch(*range(10)))
    found = list(outcomes(worker, 10).values())
    assert [(each.verb, each.number) for each in found] == [
        (NEXT, 0),
        (RESPOND, 404),
        (GOTO, 0),
        (FAIL, ABORT),
        (FAIL, ERROR),
        (FAIL, ENCODE),
        (NEXT, 0),
        (FAIL, ERROR),
        (FAIL, CANCELLED),
        (FAIL, ERROR),
    ]
    assert (found[0].value, found[2].value, found[6].value) == ("text", 5, None)
    assert found[3].extension == {"status": 418, "detail": "tea"}
    assert found[4].extension["type"] == "KeyError"
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        ("raise ValueError('all')", ERROR, "all"),
        ("raise evener.Abort(404, 'all')", ABORT, "all"),
        ("return [1]", ENCODE, "a batch of 3 needs a list of 3 results, not of 1"),
        ("return [1] * 4", ENCODE, "not of 4"),
        ("return 'abc'", ENCODE, "not this str"),
        ("return None", ENCODE, "not this NoneType"),
        ("return {1: 2, 3: 4, 5: 6}", ENCODE, "not this dict"),
        ("yield 1", ENCODE, "not of 1"),
    ],
)
def test_a_wrong_length_and_an_exception_fail_all(begin, body, reason, text):
    worker = begin(f"import evener\ndef f(values):\n  {body}\n")
    for _ in range(2):
        worker.send(batch(1, 2, 3))
        for outcome in outcomes(worker, 3).values():
            assert (outcome.verb, outcome.number) == (FAIL, reason)
            assert text in str(outcome.extension)


def test_items_that_do_not_decode_leave_the_batch(begin):
    worker = begin(DOUBLE)
    worker.send(job(b"{", job=1, also=BATCH), job(b"1", job=2, also=BATCH), job(b"\xff", TEXT, job=3))
    found = outcomes(worker, 3)
    assert [found[number].number for number in (1, 3)] == [DECODE, DECODE]
    assert found[2].value == [1, 1]
    worker.send(job(b"{", job=1))
    assert worker.outcome().number == DECODE
    worker.send(batch(5))
    assert worker.outcome().value == [1, 5]


def test_requests_and_large_values_come_in_batches(begin):
    worker = begin("def f(values): return [v.path if hasattr(v, 'path') else v for v in values]\n")
    large = "x" * (3 * LIMIT)
    request = {"request": {"method": "GET", "path": "/p", "params": {}, "query": [], "headers": [], "client": ""}}
    worker.send(
        job(b"", 3, request, verb=1, job=1, also=BATCH),
        job(large.encode(), TEXT, job=2, also=BATCH),
        job(b"1", job=3, also=BATCH),
        job(large.encode(), TEXT, job=4),
    )
    assert [outcome.value for outcome in outcomes(worker, 4).values()] == ["/p", large, 1, large]


@pytest.mark.parametrize(("kind", "verb", "number"), [(CANCEL, FAIL, CANCELLED), (RECALL, RETURNED, 0)])
def test_what_is_withdrawn_before_the_call_leaves_the_batch(begin, kind, verb, number):
    worker = begin(DOUBLE)
    worker.send(batch(1, 2, last=False))
    worker.send(frame(kind, job=1))
    outcome = worker.outcome()
    assert (outcome.job, outcome.verb, outcome.number) == (1, verb, number)
    worker.send(batch(3, first=3))
    assert [each.value for each in outcomes(worker, 2).values()] == [[2, 2], [2, 3]]
    # All of it: the function is not called.
    worker.send(batch(1, last=False), frame(kind, job=1), batch(2, first=2), frame(kind, job=2), batch(9, first=3))
    found = outcomes(worker, 3)
    assert [found[name].verb for name in (1, 2)] == [verb, verb]
    assert found[3].value == [1, 9]


@pytest.mark.parametrize("kind", [CANCEL, RECALL])
def test_a_last_job_that_is_withdrawn_between_its_parts_ends_its_batch(begin, kind):
    worker = begin(DOUBLE)
    large = job(b"x" * (2 * LIMIT + 1), TEXT, job=2)
    for size in (40 + LIMIT, 80 + 2 * LIMIT):
        worker.send(batch(1, last=False), large[:size])
        worker.send(frame(kind, job=2))
        found = outcomes(worker, 2)
        assert found[1].value == [1, 1]
        assert found[2].verb in (FAIL, RETURNED)
    # One in the middle does not.
    middle = job(b"x" * (2 * LIMIT + 1), TEXT, job=2, also=BATCH)
    worker.send(batch(1, last=False), middle[: 40 + LIMIT], frame(kind, job=2))
    assert worker.outcome().job == 2
    worker.send(batch(3, first=3))
    assert [each.value for each in outcomes(worker, 2).values()] == [[2, 1], [2, 3]]


def test_contexts_are_a_list_and_tell_who_is_cancelled(begin):
    source = """
import time
def f(values, contexts):
    print("begun", flush=True)
    end = time.monotonic() + 10
    while not contexts[1].cancelled() and time.monotonic() < end: time.sleep(0.001)
    return [[ctx.cancelled(), ctx.tries, ctx.job_id] for ctx in contexts]
"""
    worker = begin(source, ready=False)
    assert worker.ready().extension["context"] is True
    worker.send(
        job(b"1", job=1, also=BATCH, number=4, extension={"job_id": "a"}), job(b"2", job=2, extension={"job_id": "b"})
    )
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL, job=2))
    assert [each.value for each in outcomes(worker, 2).values()] == [[False, 4, "a"], [True, 1, "b"]]


def test_the_socket_may_say_bye_behind_a_batch(begin):
    worker = begin(DOUBLE)
    worker.send(batch(1, 2), frame(BYE, job=0, attempt=0))
    assert [each.value for each in outcomes(worker, 2).values()] == [[2, 1], [2, 2]]
    assert worker.gone() == (0, "", "")


def test_a_node_that_goes_away_leaves_an_open_batch_undone(begin):
    worker = begin("def f(values):\n  print('called')\n  return values\n")
    worker.send(batch(1, 2, last=False))
    time.sleep(0.05)
    assert worker.leave() == (0, "", "")


def test_memory_that_runs_out_ends_the_worker(begin):
    worker = begin("def f(values): raise MemoryError('much')\n")
    worker.send(batch(1, 2))
    outcome = worker.outcome()
    assert (outcome.job, outcome.verb, outcome.number) == (1, FAIL, MEMORY)
    assert worker.frame().kind == BYE
    assert worker.gone()[0] == 1


def test_malformed_frames_end_it(begin):
    for text in (frame(JOB, b"1", content=JSON, flags=STREAM), frame(JOB, b"1", content=JSON, flags=8)):
        worker = begin(DOUBLE)
        worker.send(text)
        assert worker.gone()[0] == 2


def test_functions_do_not_come_in_batches(start):
    worker = start("", "--functions", "--batch", ready=False)
    assert worker.gone()[0] == 2
