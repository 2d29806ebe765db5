"""Async functions: several jobs in one worker at the same time, as tasks of one loop."""

from __future__ import annotations

import json
import threading

import pytest

from conftest import (
    ABORT,
    ADD,
    BATCH,
    BYE,
    BYTES,
    CANCEL,
    CANCELLED,
    CHUNK,
    CREDIT,
    DECODE,
    ENCODE,
    END,
    ERROR,
    FAIL,
    GET,
    JSON,
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
import asyncio
waiting = {}
async def f(value):
    waiting.setdefault(value, []).append(loop := asyncio.get_running_loop().create_future())
    if len(waiting[value]) == value:
        for each in waiting.pop(value): each.set_result(None)
    await loop
    return value
"""
WAIT = """
import asyncio
async def f(value):
    print("begun", value, flush=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled", value, flush=True)
        raise
"""
ENDLESS = """
async def f(value):
    try:
        while True:
            yield "x" * value
    finally:
        print("closed", flush=True)
"""


@pytest.fixture
def begin(start):
    """Start a worker of async functions."""

    def begin(source, count=8, target="m:f", **options):
        return start(source, target, *(("--concurrency", str(count)) if count else ()), **options)

    return begin


def outcomes(worker, count):
    found = {outcome.job: outcome for outcome in (worker.outcome() for _ in range(count))}
    assert len(found) == count
    return found


def test_jobs_run_at_the_same_time(begin):
    worker = begin(MEET)
    for count in (8, 2, 1, 5):
        worker.send(*(job(b"%d" % count, job=number) for number in range(count)))
        assert [found.value for found in outcomes(worker, count).values()] == [count] * count
    assert worker.leave() == (0, "", "")


@pytest.mark.parametrize(
    "source",
    [
        "async def f(value): return [value]\n",
        "async def f(value, ctx): return [value] if ctx.tries == 1 and not ctx.cancelled() else None\n",
        "class f:\n  async def __call__(self, value): return [value]\n",
        "import functools\nasync def g(x, value): return [value]\nf = functools.partial(g, 1)\n",
    ],
)
@pytest.mark.parametrize("count", [None, 1, 3])
def test_what_is_async(begin, source, count):
    worker = begin(source, count, ready=False)
    extension = worker.ready().extension
    assert extension["stream"] is True
    # It grants no credit.
    worker.send(frame(CREDIT, job=0, attempt=0))
    for value in (b"1", b'"x"', b"null"):
        outcome = worker.do(value)
        assert (outcome.verb, outcome.value) == (NEXT, [json.loads(value)])


def test_a_decorated_function_is_async_where_that_is_said(begin):
    source = """
import functools
def plainly(function):
    @functools.wraps(function)
    def call(value): return function(value)
    return call
@plainly
async def f(value): return [value]
"""
    assert begin(source).do(b"1").value == [1]


@pytest.mark.parametrize(
    ("source", "arguments", "says"),
    [
        (
            "def f(value): pass",
            ("--concurrency", "4"),
            "m:f is no async function, which `concurrency` is for; use `threads`",
        ),
        ("def f(value): yield 1", ("--concurrency", "4"), "use `threads` in its place"),
        ("class f:\n  def __call__(self, value): pass", ("--concurrency", "1"), "use `threads` in its place"),
        ("async def f(value): pass", ("--threads", "4"), "use `concurrency` in their place"),
        ("async def f(values): pass", ("--batch",), "cannot do a `batch`"),
    ],
)
def test_what_does_not_go_together_is_refused_at_the_start(start, source, arguments, says):
    worker = start(source, "m:f", *arguments, ready=False)
    first = worker.frame()
    assert first.kind == BYE
    assert says in first.extension["error"]
    assert worker.gone()[0] == 1


@pytest.mark.parametrize("arguments", [("0",), ("x",), ("2", "--threads", "2"), ("2", "--batch")])
def test_what_is_no_concurrency(start, arguments):
    assert start(WAIT, "m:f", "--concurrency", *arguments, ready=False).gone()[0] == 2


def test_a_class_is_made_in_the_loop(begin):
    source = """
import asyncio
class f:
    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.task = asyncio.ensure_future(self.later())
    async def later(self): return "later"
    async def __call__(self, value):
        return [self.loop is asyncio.get_running_loop(), await self.task]
"""
    assert begin(source).do(b"1").value == [True, "later"]


def test_a_class_that_cannot_be_made_says_so(begin):
    source = "class f:\n  def __init__(self): raise ValueError('gone')\n  async def __call__(self, value): pass\n"
    worker = begin(source, ready=False)
    assert worker.frame().extension["error"] == "ValueError: gone"
    code, _, errors = worker.gone()
    assert code == 1
    assert "_worker.py" not in errors
    assert "asyncio" not in errors


def test_cancel_raises_in_one_job(begin):
    worker = begin(WAIT)
    worker.send(*(job(b"%d" % number, job=number) for number in (1, 2, 3)))
    assert sorted(worker.line() for _ in range(3)) == ["begun 1\n", "begun 2\n", "begun 3\n"]
    for number in (2, 3, 1):
        worker.send(frame(CANCEL, job=number, attempt=2), frame(CANCEL, job=9), frame(CANCEL, job=number))
        outcome = worker.outcome()
        assert (outcome.job, outcome.verb, outcome.number) == (number, FAIL, CANCELLED)
        assert worker.line() == f"cancelled {number}\n"


def test_cancel_behind_its_job_means_that_it_is_not_begun(begin):
    worker = begin(WAIT)
    for number in range(20):
        worker.send(job(b"1", job=number), frame(CANCEL, job=number))
        outcome = worker.outcome()
        assert (outcome.job, outcome.number) == (number, CANCELLED)
    assert worker.process.poll() is None


def test_a_job_may_go_on_after_it_was_cancelled(begin):
    source = """
import asyncio
async def f(value, ctx):
    print("begun", flush=True)
    try: await asyncio.sleep(60)
    except asyncio.CancelledError: pass
    await asyncio.sleep(0.01)
    return ctx.cancelled()
"""
    worker = begin(source)
    worker.send(job(b"1"))
    worker.line()
    worker.send(frame(CANCEL))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.value) == (NEXT, True)


def test_a_cancellation_of_its_own_making_is_an_error(begin):
    worker = begin("import asyncio\nasync def f(value): raise asyncio.CancelledError\n")
    outcome = worker.do(b"1")
    assert (outcome.number, outcome.extension["type"]) == (ERROR, "asyncio.exceptions.CancelledError")


def test_one_that_computes_asks_its_context(begin):
    worker = begin("async def f(value, ctx):\n  print('begun', flush=True)\n  while True: ctx.check()\n")
    worker.send(job(b"1", job=1))
    worker.line()
    # A job that comes meanwhile is begun afterwards, though it was read in between.
    worker.send(job(b"2", job=2), frame(CANCEL, job=1))
    assert worker.outcome().number == CANCELLED
    worker.line()
    worker.send(frame(CANCEL, job=2))
    assert (worker.outcome().job, worker.process.poll()) == (2, None)


def test_each_has_its_own_outcome(begin):
    source = """
import evener
async def f(value):
    if value == 1: raise evener.Abort(404, "no")
    if value == 2: raise ValueError("bad")
    if value == 3: return {1}
    if value == 4: raise SystemExit(3)
    if value == 5: raise evener.Cancelled
    return evener.Response("early", 203)
"""
    worker = begin(source)
    worker.send(*(job(b"%d" % number, job=number) for number in range(1, 7)), job(b"{", job=7))
    found = outcomes(worker, 7)
    assert [found[n].number for n in range(1, 8)] == [ABORT, ERROR, ENCODE, ERROR, CANCELLED, 203, DECODE]
    assert found[2].extension["message"] == "bad"
    assert "_worker.py" not in found[2].extension["traceback"]
    assert worker.process.poll() is None


def test_an_exit_of_a_task_of_the_job_is_the_jobs(begin):
    source = """
import asyncio, sys
async def leave(): sys.exit(3)
async def f(value):
    if value: await asyncio.create_task(leave())
    return "still here"
"""
    worker = begin(source)
    assert worker.do(b"1").extension["type"] == "SystemExit"
    assert worker.do(b"0").value == "still here"


def test_large_values(begin):
    worker = begin("async def f(value): return value\n")
    texts = [str(number) * (LIMIT + 100_000) for number in range(4)]
    # A node reads while it writes.
    jobs = [job(text.encode(), TEXT, job=number) for number, text in enumerate(texts)]
    threading.Thread(target=worker.send, args=jobs).start()
    found = outcomes(worker, 4)
    assert [found[number].value for number in range(4)] == texts


SOURCES = {
    "async generator": "async def f(value):\n  for item in value: yield item\n",
    "with context": "async def f(value, ctx):\n  for item in value: yield item\n",
    "returned": "async def g(value):\n  for item in value: yield item\nasync def f(value): return g(value)\n",
    "plain and returned": "async def f(value): return (item for item in value)\n",
    "class": "class f:\n  async def __call__(self, value):\n    for item in value: yield item\n",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_items_are_chunks_for_jobs_that_stream_and_a_list_for_others(begin, source):
    worker = begin(source)
    items = ["é", {"a": [1, None]}, None, 2.5, ""]
    payload = json.dumps(items).encode()
    for attempt in (1, 2):
        worker.send(job(payload, attempt=attempt, also=STREAM))
        found = [worker.whole(CHUNK) for _ in items]
        assert [(each.content, each.value) for each in found] == list(zip((TEXT, JSON, JSON, JSON, TEXT), items))
        assert worker.outcome().verb == END
        assert worker.do(payload).value == items
    assert worker.leave() == (0, "", "")


def test_large_items(begin):
    worker = begin("async def f(value):\n  yield b'x' * 200_000\n  yield ['y' * 600_000]\n")
    worker.send(job(b"1", also=STREAM))
    found = worker.whole(CHUNK)
    assert (found.content, len(found.payload)) == (BYTES, 200_000)
    assert worker.whole(CHUNK).value == ["y" * 600_000]
    assert worker.outcome().verb == END


def test_chunks_wait_for_credit_and_hold_up_no_other(begin):
    worker = begin(
        ENDLESS + "class g:\n  async def __call__(self, value): return f(value) if value else 'other'\n", target="m:g"
    )
    worker.send(job(b"65536", also=STREAM))
    for _ in range(4):
        assert worker.frame().kind == CHUNK
    worker.send(job(b"0", job=8))
    assert worker.outcome().value == "other"
    worker.send(frame(CREDIT, job=9, number=65536), frame(CREDIT, number=1))
    assert worker.frame().kind == CHUNK
    worker.send(frame(CREDIT, number=65536 * 2))
    assert [worker.frame().kind for _ in range(2)] == [CHUNK] * 2
    worker.send(frame(CANCEL))
    assert worker.outcome().number == CANCELLED
    assert worker.line() == "closed\n"


@pytest.mark.parametrize("flags", [0, STREAM])
def test_cancel_ends_a_generator_that_never_waits(begin, flags):
    worker = begin(ENDLESS.replace("    try:", "    print('begun', flush=True)\n    try:"))
    worker.send(job(b"0", also=flags), frame(CANCEL, attempt=2))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL))
    while (found := worker.frame()).kind == CHUNK:
        assert flags
    assert (found.kind, found.number) == (OUTCOME, CANCELLED)
    assert worker.line() == "closed\n"


def test_cancel_raises_where_a_generator_waits(begin):
    source = WAIT.replace("await asyncio.sleep(60)", "yield 1\n        await asyncio.sleep(60)")
    worker = begin(source)
    worker.send(job(b"5", also=STREAM))
    assert worker.line() == "begun 5\n"
    assert worker.frame().value == 1
    worker.send(frame(CANCEL))
    assert worker.outcome().number == CANCELLED
    assert worker.line() == "cancelled 5\n"


def test_a_cleanup_that_fails_is_logged(begin):
    worker = begin("async def f(value):\n  try:\n    while True: yield 1\n  finally: raise ValueError('untidy')\n")
    worker.send(job(b"1", also=STREAM))
    worker.frame()
    worker.send(frame(CANCEL))
    while (found := worker.frame()).kind == CHUNK:
        pass
    assert found.number == CANCELLED
    assert "ValueError: untidy" in worker.leave()[2]


@pytest.mark.parametrize("flags", [0, STREAM])
def test_raising_half_way_fails(begin, flags):
    worker = begin("async def f(value):\n  yield 1\n  if value: yield {1}\n  else: raise ValueError('half-way')\n")
    for value, number in ((b"0", ERROR), (b"1", ENCODE)):
        worker.send(job(value, also=flags))
        if flags:
            assert worker.frame().kind == CHUNK
        outcome = worker.outcome()
        assert (outcome.verb, outcome.number) == (FAIL, number)


@pytest.mark.parametrize("flags", [0, STREAM])
def test_a_response_cannot_be_yielded(begin, flags):
    worker = begin("import evener\nasync def f(value):\n  yield evener.Response(1)\n  print('not reached')\n")
    worker.send(job(b"null", also=flags))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number, outcome.extension["place"]) == (FAIL, ENCODE, "item[0]")
    assert outcome.extension["detail"].startswith("evener.Response cannot be yielded; let a function")
    assert worker.leave()[1:] == ("", "")


def test_each_asks_for_itself(begin):
    worker = begin("async def f(value, ctx): return ctx.state.add('k', value)\n")
    worker.send(*(job(b"%d" % number, job=number) for number in range(1, 5)))
    for _ in range(4):
        question = worker.frame()
        assert (question.verb, question.extension["amount"]) == (ADD, question.job)
        worker.answer(question, VALUE, b"%d" % (10 * question.job))
        assert worker.outcome().value == 10 * question.job


def test_other_frames_may_come_before_an_answer(begin):
    worker = begin("async def f(value, ctx): return ctx.state.get('k') if value else 'other'\n")
    worker.send(job(b"1", job=1))
    question = worker.asked(GET)
    worker.send(job(b"0", job=2), job(b"0", job=3), frame(CANCEL, job=1), frame(BYE, job=0, attempt=0))
    worker.answer(question, VALUE, b"7")
    found = outcomes(worker, 3)
    assert [found[number].value for number in (1, 2, 3)] == [7, "other", "other"]
    assert worker.gone()[0] == 0


def test_threads_of_a_job_ask_too(begin):
    source = """
import asyncio
async def f(value, ctx):
    run = asyncio.get_running_loop().run_in_executor
    return await asyncio.gather(*(run(None, ctx.state.get, f"k{n}") for n in range(5)))
"""
    worker = begin(source)
    worker.send(job(b"1"))
    for _ in range(5):
        question = worker.frame()
        worker.answer(question, VALUE, json.dumps(question.extension["key"]).encode())
    assert worker.outcome().value == [f"k{n}" for n in range(5)]


def test_after_bye_all_jobs_end(begin):
    worker = begin("import asyncio\nasync def f(value):\n  await asyncio.sleep(value)\n  return value\n")
    worker.send(job(b"0.3", job=1), job(b"0.1", job=2), frame(BYE, job=0, attempt=0))
    assert [worker.outcome().value for _ in range(2)] == [0.1, 0.3]
    assert worker.gone() == (0, "", "")


def test_bye_without_a_job(begin):
    worker = begin(MEET)
    worker.send(frame(BYE, job=0, attempt=0))
    assert worker.gone() == (0, "", "")


def test_the_node_that_goes_away_cancels_all(begin):
    worker = begin(WAIT)
    worker.send(job(b"1", job=1), job(b"2", job=2))
    assert sorted(worker.line() for _ in range(2)) == ["begun 1\n", "begun 2\n"]
    code, output, _ = worker.leave()
    assert (code, sorted(output.splitlines())) == (0, ["cancelled 1", "cancelled 2"])


def test_memory_that_runs_out_ends_the_worker(begin):
    source = "import asyncio\nasync def f(value):\n  if value: raise MemoryError('much')\n  await asyncio.sleep(60)\n"
    worker = begin(source)
    worker.send(job(b"0", job=1), job(b"1", job=2))
    outcome = worker.outcome()
    assert (outcome.job, outcome.verb, outcome.number) == (2, FAIL, MEMORY)
    assert outcome.extension["message"] == "much"
    assert worker.frame().kind == BYE
    assert worker.gone()[0] == 1


@pytest.mark.parametrize("malformed", [frame(99), job(b"1", also=BATCH)])
def test_malformed_frames_end_it(begin, malformed):
    worker = begin(WAIT)
    worker.send(job(b"1", job=1))
    assert worker.line() == "begun 1\n"
    worker.send(malformed)
    code, _, errors = worker.gone()
    assert code == 2
    assert "the node sent a frame" in errors


def test_a_fork_is_not_the_worker(begin):
    worker = begin("import os\nasync def f(value):\n  return [os.fork() > 0, value]\n")
    for number in range(3):
        assert worker.do(b"%d" % number).value == [True, number]
    worker.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        worker.frame()


def test_many_jobs(begin):
    worker = begin("import asyncio\nasync def f(value):\n  await asyncio.sleep(0)\n  return value\n", 100)
    for start in range(0, 3000, 100):
        numbers = range(start, start + 100)
        worker.send(*(job(b"%d" % number, job=number) for number in numbers))
        assert {number: found.value for number, found in outcomes(worker, 100).items()} == {n: n for n in numbers}
