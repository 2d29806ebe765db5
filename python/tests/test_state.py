"""What jobs keep for each other: `ctx.state`, with a node that the test plays, and as tests of stage code make it."""

from __future__ import annotations

import json
import time

import pytest

import evener
from conftest import (
    ADD,
    BATCH,
    BYE,
    CANCEL,
    CANCELLED,
    CHUNK,
    COMPARE,
    DELETE,
    DONE,
    END,
    ERROR,
    FAIL,
    GET,
    LIMIT,
    NO,
    REFUSED,
    SET,
    STATE,
    STREAM,
    VALUE,
    frame,
    job,
)

# Runs the code that is sent, with the state as `s`.
EVAL = """
import evener
def f(value, ctx):
    s = ctx.state
    return eval(value)
"""


@pytest.fixture(params=["alone", "watched", "threads"])
def begin(request, start):
    """Start a worker, which may have granted credit for jobs ahead, or have threads for several jobs."""

    def begin(source=EVAL, **options):
        threads = ("--threads", "2") if request.param == "threads" else ()
        worker = start(source, "m:f", *threads, **options)
        if request.param == "watched":
            worker.grant()
        return worker

    return begin


def ask(worker, code):
    worker.send(job(json.dumps(code).encode()))


def test_get(begin):
    worker = begin()
    ask(worker, "[s.get('k'), s.get('k', 5), s.get('ключ')]")
    for key in ("k", "k"):
        question = worker.asked(GET, key)
        assert (question.job, question.attempt) == (7, 1)
        worker.answer(question, NO)
    worker.answer(worker.asked(GET, "ключ"), VALUE, b' {"a": [1, null]}')
    assert worker.outcome().value == [None, 5, {"a": [1, None]}]


def test_set_and_delete(begin):
    worker = begin()
    ask(worker, "[s.set('k', {'ä': (1, None)}), s.set('k', 'text', ttl=1.5), s.delete('k'), s.delete('k')]")
    worker.answer(worker.asked(SET, payload='{"ä":[1,null]}'.encode()), DONE)
    worker.answer(worker.asked(SET, payload=b'"text"', ttl=1.5), DONE)
    worker.answer(worker.asked(DELETE), DONE)
    worker.answer(worker.asked(DELETE), NO)
    assert worker.outcome().value == [None, None, True, False]


def test_add(begin):
    worker = begin()
    ask(worker, "[s.add('k'), s.add('k', -2.5, ttl=60), s.add('k', 2**63 - 1)]")
    worker.answer(worker.asked(ADD, amount=1), VALUE, b"1")
    worker.answer(worker.asked(ADD, amount=-2.5, ttl=60), VALUE, b"-1.5")
    worker.answer(worker.asked(ADD, amount=2**63 - 1), VALUE, b"9223372036854775807")
    assert worker.outcome().value == [1, -1.5, 2**63 - 1]


def test_compare_and_set(begin):
    worker = begin()
    ask(worker, "[s.compare_and_set('k', None, 1), s.compare_and_set('k', {'a': 1}, [2], ttl=3)]")
    worker.answer(worker.asked(COMPARE, payload=b"1"), DONE)
    worker.answer(worker.asked(COMPARE, payload=b'{"a":1}[2]', expected=7, ttl=3), NO)
    assert worker.outcome().value == [True, False]


@pytest.mark.parametrize(
    ("before", "expected", "sent"),
    [
        # The very bytes that get gave, if the object is what they are.
        ("s.get('k')", "{'a': 1.0}", b'{ "a" : 1 }'),
        ("s.get('k')", "{'a': 2}", b'{"a":2}'),
        # Those of another key do not count.
        ("s.get('other')", "{'a': 1}", b'{"a":1}'),
        ("s.get('k').clear()", "{}", b"{}"),
        ("s.get('k').clear()", "{'a': 1}", b'{ "a" : 1 }'),
    ],
)
def test_what_get_gave_is_sent_back_as_it_was(begin, before, expected, sent):
    worker = begin()
    ask(worker, f"[{before}, s.compare_and_set('k', {expected}, 0)][1]")
    question = worker.frame()
    assert question.verb == GET
    worker.answer(question, VALUE, b'{ "a" : 1 }')
    worker.answer(worker.asked(COMPARE, payload=sent + b"0", expected=len(sent)), DONE)
    assert worker.outcome().value is True


@pytest.mark.parametrize("expected", ["None", "0", "[]"])
def test_the_default_that_get_gave_stands_for_nothing(begin, expected):
    worker = begin()
    ask(worker, f"[s.get('k', {expected}), s.compare_and_set('k', {expected}, 1)]")
    worker.answer(worker.asked(GET), NO)
    worker.answer(worker.asked(COMPARE, payload=b"1"), DONE)
    assert worker.outcome().value[1] is True


def test_a_null_that_get_gave_is_a_value(begin):
    worker = begin()
    ask(worker, "[s.get('k'), s.compare_and_set('k', None, 1), s.compare_and_set('k', 1, 2)]")
    worker.answer(worker.asked(GET), VALUE, b"null")
    worker.answer(worker.asked(COMPARE, payload=b"null1", expected=4), DONE)
    worker.answer(worker.asked(COMPARE, payload=b"12", expected=1), DONE)
    assert worker.outcome().value == [None, True, True]


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("s.get(1)", "TypeError", "a key of the state is a str, not a int"),
        ("s.compare_and_set([], 1, 2)", "TypeError", "a key of the state is a str, not a list"),
        ("s.delete('x' * 1025)", "ValueError", "at most 1024 bytes, and this one has 1025"),
        ("s.get('\\ud800')", "ValueError", "lone surrogate"),
        ("s.set('k', 1, ttl=0)", "ValueError", "greater than 0, not 0"),
        ("s.set('k', 1, ttl=-1)", "ValueError", "greater than 0, not -1"),
        ("s.set('k', 1, ttl=float('nan'))", "ValueError", "greater than 0, not nan"),
        ("s.add('k', ttl=10**400)", "ValueError", "greater than 0"),
        ("s.compare_and_set('k', 1, 2, ttl='1s')", "TypeError", "ttl is a number of seconds"),
        ("s.set('k', 1, ttl=True)", "TypeError", "ttl is a number of seconds"),
        ("s.add('k', '1')", "TypeError", "amount is a number"),
        ("s.add('k', True)", "TypeError", "amount is a number"),
        ("s.add('k', 2**63)", "ValueError", "amount does not fit into 64 bits"),
        ("s.add('k', float('inf'))", "ValueError", "amount is a number that JSON has, not inf"),
        ("s.set('k', {'a': {1}})", "ValueError", 'value["a"]: a set'),
        ("s.set('k', b'x')", "ValueError", "value: bytes"),
        ("s.compare_and_set('k', {'a': float('nan')}, 1)", "ValueError", 'expected["a"]: the number is NaN'),
        ("s.set('k', 'x' * 262143)", "ValueError", "at most 262144 bytes of JSON, not 262145"),
        ("s.compare_and_set('k', 'x' * 200000, 'x' * 100000)", "ValueError", "at most 262144 bytes"),
    ],
)
def test_arguments_are_checked_before_the_node_is_asked(start, code, kind, text):
    outcome = start(EVAL).do(json.dumps(code).encode())
    assert (outcome.verb, outcome.number, outcome.extension["type"]) == (FAIL, ERROR, kind)
    assert text in outcome.extension["message"]


def test_the_largest_values_travel(begin):
    worker = begin()
    ask(worker, "[s.set('x' * 1024, 'y' * 262142), s.get('k') == 'z' * 262142]")
    worker.answer(worker.asked(SET, "x" * 1024, b'"' + b"y" * (LIMIT - 2) + b'"'), DONE)
    worker.answer(worker.asked(GET), VALUE, b'"' + b"z" * (LIMIT - 2) + b'"')
    assert worker.outcome().value == [None, True]


def test_a_refusal_is_an_error_that_may_be_caught(begin):
    worker = begin(
        "import evener\ndef f(value, ctx):\n  try: ctx.state.set('k', 1)\n"
        "  except evener.StateRefused as error: print(error)\n  ctx.state.add('k')\n"
    )
    worker.send(job(b"1"))
    worker.answer(worker.asked(SET, payload=b"1"), REFUSED, detail="the state is full")
    worker.answer(worker.asked(ADD, amount=1), REFUSED, detail="what is there is not a number")
    outcome = worker.outcome()
    assert (outcome.number, outcome.extension["type"]) == (ERROR, "evener.StateRefused")
    assert outcome.extension["message"] == "what is there is not a number"
    assert worker.line() == "the state is full\n"


def test_the_installed_package_has_the_same_error(start):
    # Its `StateRefused` is another class than the runtime's.
    from conftest import SOURCES

    source = (
        "import evener\ndef f(value, ctx):\n  try: ctx.state.get('k')\n"
        "  except evener.StateRefused as error: return [str(error), evener.__file__]\n"
    )
    worker = start(source, env={"PYTHONPATH": str(SOURCES)})
    worker.send(job(b"1"))
    worker.answer(worker.asked(GET), REFUSED, detail="no")
    assert worker.outcome().value == ["no", str(SOURCES / "evener" / "__init__.py")]


def test_a_class_has_it(begin):
    worker = begin("class f:\n  def __call__(self, value, ctx): return ctx.state.get('k')\n")
    for number in range(3):
        worker.send(job(b"1", job=number))
        question = worker.asked(GET)
        assert question.job == number
        worker.answer(question, VALUE, b"%d" % number)
        assert worker.outcome().value == number


def test_a_generator_has_it(begin):
    worker = begin("def f(value, ctx):\n  yield 1\n  yield ctx.state.add('k')\n")
    worker.send(job(b"1", also=STREAM))
    assert worker.whole(CHUNK).value == 1
    worker.answer(worker.asked(ADD, amount=1), VALUE, b"2")
    assert worker.whole(CHUNK).value == 2
    assert worker.outcome().verb == END
    worker.send(job(b"1"))
    worker.answer(worker.asked(ADD, amount=1), VALUE, b"3")
    assert worker.outcome().value == [1, 3]


def test_a_batch_has_it(start):
    source = "def f(values, contexts): return [ctx.state.add('k', value) for value, ctx in zip(values, contexts)]\n"
    worker = start(source, "m:f", "--batch")
    worker.send(job(b"5", job=1, also=BATCH), job(b"6", job=2))
    for number, amount in ((1, 5), (2, 6)):
        question = worker.asked(ADD, amount=amount)
        assert question.job == number
        worker.answer(question, VALUE, b"%d" % (10 * amount))
    assert sorted(worker.outcome().value for _ in range(2)) == [50, 60]


def test_a_call_has_it(caller):
    worker = caller()
    function = worker.learn("import evener\ndef f(): return evener.context().state.add('k')")
    from conftest import call

    worker.send(call(function))
    worker.answer(worker.asked(ADD, amount=1), VALUE, b"4")
    assert worker.outcome().result == 4


def test_cancel_and_credit_may_come_before_the_answer(begin):
    worker = begin("def f(value, ctx):\n  found = ctx.state.get('k')\n  return [found, ctx.cancelled()]\n")
    worker.send(job(b"1"))
    question = worker.asked(GET)
    worker.send(frame(CANCEL))
    worker.answer(question, VALUE, b"1")
    assert worker.outcome().value == [1, True]


def test_an_answer_may_come_in_two_reads(begin):
    worker = begin()
    ask(worker, "s.get('k')")
    question = worker.asked(GET)
    text = frame(STATE, b'"' + b"x" * 200_000 + b'"', b"", 0, 1, VALUE, 2**64 - 1, 0, question.number)
    for start, end in ((0, 20), (20, 100), (100, 150_000), (150_000, len(text))):
        worker.send(text[start:end])
        time.sleep(0.02)
    assert worker.outcome().value == "x" * 200_000


def test_threads_of_a_job_may_ask_at_the_same_time(begin):
    source = """
import threading
def f(value, ctx):
    found = {}
    def one(key): found[key] = ctx.state.get(key)
    threads = [threading.Thread(target=one, args=(f"k{n}",)) for n in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return found
"""
    worker = begin(source)
    worker.send(job(b"1"))
    for _ in range(20):
        question = worker.frame()
        worker.answer(question, VALUE, json.dumps(question.extension["key"]).encode())
    assert worker.outcome().value == {f"k{n}": f"k{n}" for n in range(20)}


def test_after_its_job_a_context_has_no_state(begin):
    worker = begin(
        "kept = []\ndef f(value, ctx):\n  kept.append(ctx)\n  try: return kept[0].state.get('k')\n"
        "  except RuntimeError as error: return str(error)\n"
    )
    worker.send(job(b"1"))
    worker.answer(worker.asked(GET), NO)
    assert worker.outcome().value is None
    assert "this job has ended" in worker.do(b"2", job=8).value


def test_a_node_that_goes_away_ends_the_wait(begin):
    worker = begin("def f(value, ctx):\n  try: ctx.state.get('k')\n  finally: print('over')\n")
    worker.send(job(b"1"))
    worker.asked(GET)
    code, output, _ = worker.leave()
    assert (code, output) == (0, "over\n")


@pytest.mark.parametrize("wrong", ["number", "content", "more"])
def test_an_answer_that_nobody_asked_for_ends_the_worker(begin, wrong):
    worker = begin()
    ask(worker, "s.get('k')")
    number = worker.asked(GET).number + (wrong == "number")
    content, flags = 0 if wrong == "content" else 1, 1 if wrong == "more" else 0
    worker.send(frame(STATE, b"1", b"", flags, content, VALUE, 2**64 - 1, 0, number))
    code, _, errors = worker.gone()
    assert code == 2
    assert "the node sent" in errors


def test_bye_during_a_question_lets_the_job_end(begin):
    worker = begin()
    ask(worker, "s.get('k')")
    question = worker.asked(GET)
    worker.send(frame(BYE, job=0, attempt=0))
    worker.answer(question, VALUE, b"3")
    assert (worker.outcome().value, worker.gone()[0]) == (3, 0)


def test_a_cancelled_check_after_an_answer(begin):
    worker = begin("def f(value, ctx):\n  while True:\n    ctx.state.add('k')\n    ctx.check()\n")
    worker.send(job(b"1"))
    for _ in range(3):
        worker.answer(worker.asked(ADD, amount=1), VALUE, b"1")
    question = worker.asked(ADD, amount=1)
    worker.send(frame(CANCEL))
    worker.answer(question, VALUE, b"1")
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number) == (FAIL, CANCELLED)


def test_a_state_for_tests_of_stage_code():
    state = evener.Context().state
    assert (state.get("k"), state.get("k", 1), state.delete("k")) == (None, 1, False)
    assert (state.add("k"), state.add("k", 2), state.get("k")) == (1, 3, 3)
    assert state.compare_and_set("k", 4, 5) is False
    assert state.compare_and_set("k", 3, {"a": (1,)}) is True
    assert state.get("k") == {"a": [1]}
    with pytest.raises(evener.StateRefused, match="not a number"):
        state.add("k")
    state.set("k", 2**63 - 1)
    with pytest.raises(evener.StateRefused, match="too large"):
        state.add("k")
    assert (state.delete("k"), state.get("k")) == (True, None)
    assert state.compare_and_set("k", None, 1) is True
    assert state.compare_and_set("k", None, 1) is False
    # Each context has its own, unless it is given one.
    assert evener.Context().state.get("k") is None
    shared = evener.State()
    evener.Context(state=shared).state.set("k", 7)
    assert evener.Context(state=shared).state.get("k") == 7


def test_a_state_for_tests_knows_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state = evener.State()
    state.set("k", 1, ttl=5)
    assert state.add("k", ttl=50) == 2
    assert state.add("n", 1, ttl=5) == 1
    now[0] += 5
    assert (state.get("k"), state.get("n")) == (None, None)
    assert state.compare_and_set("n", None, 3, ttl=1)
    now[0] += 1
    assert state.delete("n") is False
