"""State: small values that jobs keep for each other at the node, whichever worker does them."""

import json
import threading

import pytest

from harness import assert_problem, until

APP = """
def ask(code, ctx):
    return eval(code, {"s": ctx.state})

def count(value, ctx):
    return ctx.state.add("count", value)

def optimistic(value, ctx):
    tries = 0
    while True:
        tries += 1
        seen = ctx.state.get("seen", [])
        if ctx.state.compare_and_set("seen", seen, [*seen, value]):
            return tries

class Once:
    def __call__(self, value, ctx):
        first = ctx.state.compare_and_set(f"once-{value}", None, True, ttl=60)
        return "first" if first else "again"

def rows(value, ctx):
    for _ in range(value):
        yield ctx.state.add("rows")

def batch(values, contexts):
    return [ctx.state.add("batch", value) for value, ctx in zip(values, contexts)]
"""


@pytest.fixture(scope="module")
def served(shared_node):
    names = ["ask", "count", "optimistic", "once", "rows", "batch"]
    return shared_node(
        """
        stages:
          ask: {python: "app:ask", workers: 2, retries: 0}
          count: {python: "app:count", workers: 3}
          optimistic: {python: "app:optimistic", workers: 2}
          once: {python: "app:Once", workers: 2}
          rows: {python: "app:rows"}
          batch: {python: "app:batch", batch: {max: 4, wait: 50ms}}
        routes:
        """
        + "".join(
            f"  - {{path: /{name}, pipeline: {name}, methods: [POST], decode: json}}\n        " for name in names
        ),
        app=APP,
    )


def ask(served, code):
    answer = served.post("/ask", json.dumps(code))
    assert answer.status == 200, answer
    return answer.json


def at_once(served, path, bodies):
    answers = [None] * len(bodies)

    def post(number, body):
        answers[number] = served.post(path, body)

    threads = [threading.Thread(target=post, args=pair) for pair in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_what_one_job_keeps_another_finds(served):
    assert ask(served, "[s.get('a', 'none'), s.get('a')]") == ["none", None]
    ask(served, "s.set('a', {'ä': [1, None, 2.5]})")
    assert ask(served, "s.get('a')") == {"ä": [1, None, 2.5]}
    assert ask(served, "[s.delete('a'), s.delete('a'), s.get('a')]") == [True, False, None]
    assert ask(served, "[s.add('f', 1), s.add('f', 0.5), s.add('f', 1e22), s.compare_and_set('f', s.get('f'), 0)]") == [
        1,
        1.5,
        1e22,
        True,
    ]


def test_workers_count_together(served):
    answers = at_once(served, "/count", ["1"] * 30)
    assert sorted(answer.json for answer in answers) == list(range(1, 31))


def test_compare_and_set_loses_nothing(served):
    answers = at_once(served, "/optimistic", [str(number) for number in range(12)])
    assert all(answer.json >= 1 for answer in answers)
    assert sorted(ask(served, "s.get('seen')")) == list(range(12))


def test_one_of_many_is_the_first(served):
    answers = at_once(served, "/once", ['"x"'] * 10)
    assert sorted(answer.text for answer in answers) == ["again"] * 9 + ["first"]


def test_an_entry_ends_after_its_time(served):
    assert ask(served, "[s.set('t', 1, ttl=0.2), s.get('t')]") == [None, 1]
    until(lambda: ask(served, "s.get('t')") is None, "the entry ends")


def test_a_refusal_is_an_exception(served):
    assert ask(served, "s.set('word', 'x')") is None
    answer = served.post("/ask", json.dumps("s.add('word')"))
    assert_problem(answer, "function-failed", stage="ask", tries=1, saying="StateRefused")
    answer = served.post("/ask", json.dumps("s.set('word', {1})"))
    assert_problem(answer, "function-failed", stage="ask", tries=1, saying="ValueError")


def test_generators_and_batches_have_it(served):
    assert served.post("/rows", "3").text == "1\n2\n3\n"
    sums = [answer.json for answer in at_once(served, "/batch", ["1", "1", "1", "1"])]
    assert sorted(sums) == [1, 2, 3, 4]
