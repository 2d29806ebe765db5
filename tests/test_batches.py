"""Batches: several jobs in one call of a function."""

import json
import threading
import time

import pytest

from harness import assert_problem, until

APP = """
import json
import time

import evener

def work(values):
    with open("sizes", "a") as file:
        file.write(str(len(values)) + "\\n")
    results = []
    for value in values:
        if value == "abort":
            results.append(evener.Abort(422, "not this one"))
        elif value == "raise":
            results.append(ValueError("bad"))
        elif value == "early":
            results.append(evener.Response("early", status=203))
        else:
            results.append(value * 2)
    return results

def short(values):
    return values[1:]

def weighed(values):
    with open("weighed", "a") as file:
        file.write(json.dumps(sorted(len(value["text"]) for value in values)) + "\\n")
    return [len(value["text"]) for value in values]

class Model:
    def __init__(self):
        self.calls = 0

    def __call__(self, values):
        self.calls += 1
        return [[value, self.calls, len(values)] for value in values]
"""


@pytest.fixture
def served(node):
    return node(
        """
        stages:
          work: {python: "app:work", batch: {max: 8, wait: {idle: 300ms}}, retries: 0}
          short: {python: "app:short", batch: {max: 4, wait: 0s}}
          model: {python: "app:Model", batch: {max: 4, wait: {idle: 1s}}}
          weighed: {python: "app:weighed", batch: {max: 10, wait: {idle: 300ms}, weight: ".text | length"}}
        routes:
          - {path: /work, pipeline: work}
          - {path: /short, pipeline: short}
          - {path: /model, pipeline: model}
          - {path: /weighed, pipeline: weighed}
        """,
        app=APP,
    )


def at_once(served, path, bodies):
    answers = [None] * len(bodies)

    def post(number, body):
        answers[number] = served.post(path, body, "application/json")

    threads = [threading.Thread(target=post, args=pair) for pair in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_a_full_batch_is_one_call_and_each_item_has_its_own_end(served):
    bodies = [b"1", b'"abort"', b"2", b'"raise"', b'"early"', b"3", b"4", b"5"]
    answers = at_once(served, "/work", bodies)
    assert served.notes("sizes") == ["8"]
    assert [answer.json for answer in answers if answer.status == 200] == [2, 4, 6, 8, 10]
    assert_problem(answers[1], "aborted", status=422, stage="work", tries=1, saying="not this one")
    assert_problem(answers[3], "function-failed", stage="work", tries=1, saying="ValueError")
    assert (answers[4].status, answers[4].text) == (203, "early")


def test_fewer_go_after_the_wait_and_bad_bodies_fail_alone(served):
    answers = at_once(served, "/work", [b"1", b"{", b"3"])
    assert [answers[0].json, answers[2].json] == [2, 6]
    assert_problem(answers[1], "bad-body", stage="work", tries=1)
    assert served.notes("sizes") == ["2"]


def test_a_result_of_another_length_fails_all(served):
    for answer in at_once(served, "/short", [b"1", b"2"]):
        assert answer.status == 500
        assert answer.json["code"] == "result-not-encodable"


def test_a_class_may_do_batches(served):
    answers = at_once(served, "/model", [b"1", b"2", b"3", b"4"])
    assert sorted(answer.json[0] for answer in answers) == [1, 2, 3, 4]
    assert {answer.json[2] for answer in answers} == {4}


def test_a_batch_is_bounded_by_what_its_items_weigh(served):
    sizes = [6, 5, 3, 30, 1, 9]
    answers = at_once(served, "/weighed", [json.dumps({"text": "x" * size}) for size in sizes])
    assert [answer.json for answer in answers] == sizes
    batches = [json.loads(line) for line in served.notes("weighed")]
    assert sorted(size for batch in batches for size in batch) == sorted(sizes)
    # One that is too heavy goes alone; the others share as far as there is room.
    assert [30] in batches
    assert all(sum(batch) <= 10 for batch in batches if batch != [30])
    assert len(batches) < len(sizes)


def test_an_item_without_a_weight_fails_alone(served):
    good, bad = at_once(served, "/weighed", [b'{"text": "abc"}', b'{"text": true}'])
    assert good.json == 3
    assert_problem(bad, "filter-failed", stage="weighed")


GATHER = """
import os
import time

def work(values):
    with open("calls", "a") as file:
        file.write(" ".join(map(str, values)) + "\\n")
    if "first" in values:
        while not os.path.exists("go"):
            time.sleep(0.005)
    for value in values:
        if value == "die":
            os._exit(9)
        if value == "hog":
            raise MemoryError("no room")
        if value == "hang":
            time.sleep(60)
        if value == "bad":
            raise ValueError("bad")
    return values

def one(value):
    return value
"""


def start_gathering(served, path, values):
    """One worker is busy, and these values have gathered; returns their threads and answers once it is free."""
    answers = {}

    def post(value):
        answers[value] = served.post(path, json.dumps(value), "application/json")

    threads = [threading.Thread(target=post, args=("first",))]
    threads[0].start()
    served.wait_notes("calls")
    for value in values:
        threads.append(threading.Thread(target=post, args=(value,)))
        threads[-1].start()
    until(lambda: served.metric("queue_depth", stage=path[1:]) == len(values), "all have gathered")
    served.open("go")
    for thread in threads:
        thread.join()
    return answers


def test_jobs_gather_while_the_worker_is_busy_and_go_when_it_is_not(node):
    served = node(
        """
        stages: {work: {python: "app:work", batch: {max: 4, wait: 10m}}}
        routes: [{path: /work, pipeline: work}]
        """,
        app=GATHER,
    )
    answers = start_gathering(served, "/work", ["a", "b", "c", "d", "e", "f"])
    assert {answer.status for answer in answers.values()} == {200}
    # The idle worker took the first at once, and what had gathered when it was free: `wait` keeps nothing back.
    sizes = [len(call.split()) for call in served.notes("calls")]
    assert sizes[:2] == [1, 4]
    assert sum(sizes) == 7


def test_what_comes_together_goes_together(node):
    served = node(
        """
        stages: {work: {python: "app:work", batch: {max: 4}}}
        pipelines: {all: [{each: ., do: work}]}
        routes: [{path: /all, pipeline: all}]
        """,
        app=GATHER,
    )
    assert served.post("/all", b"[1, 2, 3, 4]", "application/json").json == [1, 2, 3, 4]
    assert served.notes("calls") == ["1 2 3 4"]


def sequential(served, path, pause=0.0, count=60):
    """How long the quickest of so many requests takes, one after the other."""
    took = []
    with served.connect() as connection:
        for _ in range(count):
            time.sleep(pause)
            begun = time.perf_counter()
            assert connection.request("POST", path, body=b"1").status == 200
            took.append(time.perf_counter() - begun)
    return min(took)


def test_a_millisecond_of_waiting_is_one_and_beside_an_idle_worker_there_is_none(node):
    served = node(
        """
        stages:
          one: {python: "app:one"}
          work: {python: "app:work", batch: {max: 4, wait: 100ms}}
          short: {python: "app:work", batch: {max: 4, wait: {idle: 1ms}}}
          long: {python: "app:work", batch: {max: 4, wait: {idle: 20ms}}}
        routes:
          - {path: /one, pipeline: one}
          - {path: /work, pipeline: work}
          - {path: /short, pipeline: short}
          - {path: /long, pipeline: long}
        """,
        app=GATHER,
    )
    one, work, short, long = (sequential(served, path) for path in ("/one", "/work", "/short", "/long"))
    # A machine that has rested is slower at first.
    rested = sequential(served, "/one", pause=0.02)
    # The machine may be busy: the bounds are wide, and yet a timer that rounds up twice would not keep to them.
    assert work - one < 0.0008
    assert 0.001 <= short < one + 0.0018
    assert 0.02 <= long < rested + 0.0208


@pytest.mark.parametrize(
    ("guilty", "code", "keys"),
    [
        ("die", "worker-died", ""),
        ("hog", "worker-died", ""),
        ("hang", "stage-timeout", ", timeout: 1s, grace: 100ms, retry_on: [timeout]"),
        ("bad", "function-failed", ", retry_on: [error]"),
        ("die", "worker-died", ', workers: {min: 1, max: 1}, batch: {max: 100, weight: "10"}'),
    ],
)
def test_one_that_takes_the_worker_with_it_fails_alone(node, guilty, code, keys):
    batch = "" if "batch" in keys else ", batch: {max: 8}"
    served = node(
        f"""
        stages: {{work: {{python: "app:work"{batch}{keys}}}}}
        routes: [{{path: /work, pipeline: work}}]
        """,
        app=GATHER,
    )
    innocent = ["a", "b", "c", "d", "e", "f"]
    answers = start_gathering(served, "/work", [*innocent[:3], guilty, *innocent[3:]])
    assert {(answers[value].status, answers[value].text) for value in innocent} == {(200, value) for value in innocent}
    assert_problem(answers[guilty], code, stage="work", tries=3)
    calls = [call.split() for call in served.notes("calls")]
    # All were in one call, and then each in one of its own.
    assert sorted(calls[1]) == sorted([guilty, *innocent])
    assert all(len(call) == 1 for call in calls[2:])
    assert len(calls) == 2 + len(innocent) + 2


def test_without_retries_nothing_is_tried_again(node):
    served = node(
        """
        stages: {work: {python: "app:work", batch: {max: 8}, retries: 0}}
        routes: [{path: /work, pipeline: work}]
        """,
        app=GATHER,
    )
    answers = start_gathering(served, "/work", ["a", "die"])
    for value in ("a", "die"):
        assert_problem(answers[value], "worker-died", stage="work", tries=1)
