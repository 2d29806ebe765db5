"""Functions that yield: chunks for the client, or one list."""

from __future__ import annotations

import json
import threading

import pytest

from conftest import (
    BYTES,
    CANCEL,
    CANCELLED,
    CHUNK,
    CREDIT,
    ENCODE,
    END,
    ERROR,
    FAIL,
    JSON,
    LIMIT,
    NEXT,
    NOTHING,
    OUTCOME,
    STREAM,
    TEXT,
    frame,
    job,
)

COUNT = "def f(value):\n  for number in range(value): yield number\n"
ENDLESS = """
def f(value{}):
    try:
        while True:
            yield "x" * value
    finally:
        print("closed")
"""


def streamed(payload=b"null", **fields):
    return job(payload, also=STREAM, **fields)


def answer(worker, credit=True):
    """All chunks, as pairs of content and value, and the outcome."""
    chunks = []
    while True:
        first = worker.frame()
        if first.kind == OUTCOME:
            return chunks, first
        assert (first.kind, first.verb, first.number) == (CHUNK, 0, 0)
        payload, more = first.payload, first.flags
        while more:
            part = worker.frame()
            assert (part.job, part.attempt, part.content) == (first.job, first.attempt, NOTHING)
            payload, more = payload + part.payload, part.flags
        if "size" in first.extension:
            assert first.extension["size"] == len(payload)
        if credit:
            worker.send(frame(CREDIT, job=first.job, attempt=first.attempt, number=len(payload)))
        chunks.append((first.content, first._replace(payload=payload).value))


@pytest.fixture(params=["alone", "watched", "threads"])
def begin(request, start):
    """Start a worker, which may have granted credit for jobs ahead, or have threads for several jobs."""

    def begin(source, **options):
        threads = ("--threads", "2") if request.param == "threads" else ()
        worker = start(source, "m:f", *threads, **options)
        if request.param == "watched":
            worker.grant()
        return worker

    return begin


SOURCES = {
    "generator": "def f(value):\n  yield from value\n",
    "with context": "def f(value, ctx):\n  assert not ctx.cancelled()\n  yield from value\n",
    "returned": "def f(value):\n  return (item for item in value)\n",
    "class": "class f:\n  def __call__(self, value):\n    yield from value\n",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_items_are_chunks_for_jobs_that_stream_and_a_list_for_others(begin, source):
    worker = begin(source)
    items = ["é", {"a": [1, None]}, None, 2.5, ""]
    payload = json.dumps(items).encode()
    contents = [(TEXT, "é"), (JSON, {"a": [1, None]}), (JSON, None), (JSON, 2.5), (TEXT, "")]
    for attempt in (1, 2):
        worker.send(streamed(payload, attempt=attempt))
        chunks, outcome = answer(worker)
        assert chunks == contents
        assert (outcome.verb, outcome.number, outcome.content, outcome.attempt) == (END, 0, NOTHING, attempt)
        outcome = worker.do(payload, attempt=attempt)
        assert (outcome.verb, outcome.value) == (NEXT, items)
    worker.send(streamed(b"[]"))
    assert answer(worker)[0] == []
    assert worker.leave() == (0, "", "")


def test_a_worker_says_that_it_heeds_the_flag(start):
    worker = start(COUNT, ready=False)
    assert worker.ready().extension["stream"] is True


def test_bytes_are_sent_as_such(begin):
    worker = begin("def f(value):\n  yield b'\\xff'\n  yield bytearray(b'a')\n")
    worker.send(streamed())
    assert answer(worker)[0] == [(BYTES, b"\xff"), (BYTES, b"a")]


def test_a_function_that_returns_answers_a_job_that_streams_as_any_other(begin):
    worker = begin("import evener\ndef f(value): return evener.Response('no') if value else 5\n")
    for payload, value in ((b"0", 5), (b"1", "no")):
        worker.send(streamed(payload))
        assert worker.outcome().value == value


def test_a_large_job_streams_too(begin):
    worker = begin("def f(value):\n  yield len(value)\n")
    worker.send(streamed(b"x" * (2 * LIMIT + 5), content=TEXT))
    assert answer(worker)[0] == [(JSON, 2 * LIMIT + 5)]


@pytest.mark.parametrize("content", [TEXT, BYTES])
def test_large_text_and_bytes_are_cut_between_characters(begin, content):
    worker = begin("def f(value):\n  yield value\n")
    whole = ("é€" * 150_000).encode() + b"a" * 7
    worker.send(streamed(whole, content=content))
    chunks, outcome = answer(worker)
    assert outcome.verb == END
    assert len(chunks) > 2
    assert {kind for kind, _ in chunks} == {content}
    empty = "" if content == TEXT else b""
    assert empty.join(piece for _, piece in chunks) == (whole.decode() if content == TEXT else whole)


def test_large_json_comes_in_parts(begin):
    worker = begin("def f(value):\n  yield ['x' * 600_000]\n  yield 1\n")
    worker.send(streamed())
    assert answer(worker)[0] == [(JSON, ["x" * 600_000]), (JSON, 1)]


def test_chunks_wait_for_credit(begin):
    worker = begin(ENDLESS.format(""))
    worker.send(streamed(b"65536"))
    for _ in range(4):
        assert worker.frame().kind == CHUNK
    worker.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        worker.frame()
    # Credit for other jobs and attempts is nobody's.
    worker.send(frame(CREDIT, job=8, number=65536), frame(CREDIT, attempt=2, number=65536))
    with pytest.raises(TimeoutError):
        worker.frame()
    worker.send(frame(CREDIT, number=1))
    assert worker.frame().kind == CHUNK
    with pytest.raises(TimeoutError):
        worker.frame()
    worker.send(frame(CREDIT, number=65536 * 2))
    assert [worker.frame().kind for _ in range(2)] == [CHUNK] * 2
    worker.send(frame(CANCEL))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number) == (FAIL, CANCELLED)
    assert worker.line() == "closed\n"


@pytest.mark.parametrize("context", ["", ", ctx"])
@pytest.mark.parametrize("flags", [0, STREAM])
def test_cancel_closes_the_generator(begin, context, flags):
    worker = begin(ENDLESS.format(context))
    for attempt in (1, 2):
        # Without credit the worker waits; with empty chunks it never does.
        for size in (b"100000", b"0") if flags else (b"0",):
            worker.send(job(size, also=flags, attempt=attempt), frame(CANCEL, attempt=attempt + 1))
            if flags:
                worker.frame()
            worker.send(frame(CANCEL, attempt=attempt))
            outcome = answer(worker, credit=False)[1]
            assert (outcome.verb, outcome.number, outcome.attempt) == (FAIL, CANCELLED, attempt)
            if flags or attempt > 1:
                break
    assert worker.process.poll() is None


def test_a_job_after_one_that_was_cancelled_streams(begin):
    worker = begin("def f(value):\n  for _ in range(value): yield 'x' * 1000\n")
    for name in range(20):
        worker.send(streamed(b"1000000", job=name))
        worker.frame()
        worker.send(frame(CANCEL, job=name))
        assert answer(worker, credit=False)[1].number == CANCELLED
        worker.send(streamed(b"3", job=name))
        chunks, outcome = answer(worker)
        assert (len(chunks), outcome.verb) == (3, END)


def test_a_cleanup_that_fails_is_logged_and_the_job_is_cancelled(begin):
    source = "def f(value):\n  try:\n    while True: yield 1\n  finally: raise ValueError('untidy')\n"
    worker = begin(source)
    worker.send(streamed())
    worker.frame()
    worker.send(frame(CANCEL))
    assert answer(worker, credit=False)[1].number == CANCELLED
    assert "ValueError: untidy" in worker.leave()[2]


@pytest.mark.parametrize("flags", [0, STREAM])
def test_raising_half_way_fails(begin, flags):
    worker = begin("def f(value):\n  yield 1\n  raise ValueError('half-way')\n")
    worker.send(job(b"null", also=flags))
    chunks, outcome = answer(worker)
    assert len(chunks) == bool(flags)
    assert (outcome.verb, outcome.number) == (FAIL, ERROR)
    assert (outcome.extension["type"], outcome.extension["message"]) == ("ValueError", "half-way")
    assert "_worker.py" not in outcome.extension["traceback"]


def test_an_item_that_cannot_travel_fails(begin):
    worker = begin("def f(value):\n  yield 1\n  yield {1}\n")
    worker.send(streamed())
    chunks, outcome = answer(worker)
    assert chunks == [(JSON, 1)]
    assert (outcome.verb, outcome.number, outcome.extension["place"]) == (FAIL, ENCODE, "item[1]")
    assert worker.do().extension["place"] == "result[1]"


@pytest.mark.parametrize("flags", [0, STREAM])
@pytest.mark.parametrize("made", ["Response('x')", "Goto('x')"])
def test_what_answers_by_itself_cannot_be_yielded(begin, flags, made):
    worker = begin(f"import evener\ndef f(value):\n  yield 1\n  yield evener.{made}\n  print('not reached')\n")
    worker.send(job(b"null", also=flags))
    chunks, outcome = answer(worker)
    assert len(chunks) == bool(flags)
    assert (outcome.verb, outcome.number, outcome.extension["place"]) == (FAIL, ENCODE, "item[1]")
    assert outcome.extension["detail"].startswith(f"evener.{made.partition('(')[0]} cannot be yielded; let a function")
    assert worker.leave()[1:] == ("", "")


def test_the_node_that_goes_away_ends_a_stream(begin):
    worker = begin(ENDLESS.format(""))
    worker.send(streamed(b"300000"))
    worker.frame()
    code, output, _ = worker.leave()
    assert (code, output) == (0, "closed\n")


def test_other_threads_may_ask_for_cancellation_while_chunks_wait(begin):
    source = """
import threading, time
def f(value, ctx):
    asked = []
    def ask():
        while not ctx.cancelled():
            asked.append(1)
        asked.append("told")
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        while True: yield "x" * 100_000
    finally:
        thread.join()
        print(asked[-1])
"""
    worker = begin(source)
    worker.send(streamed())
    received = [worker.frame() for _ in range(3)]
    timer = threading.Timer(0.1, worker.send, [frame(CREDIT, number=100_000)])
    timer.start()
    assert [each.kind for each in [*received, worker.frame()]] == [CHUNK] * 4
    worker.send(frame(CANCEL))
    assert worker.outcome().number == CANCELLED
    assert worker.line() == "told\n"
