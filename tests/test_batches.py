"""Batches: several jobs in one call of a function."""

import json
import threading

import pytest

from harness import assert_problem

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
          work: {python: "app:work", batch: {max: 8, wait: 300ms}, retries: 0}
          short: {python: "app:short", batch: {max: 4, wait: 0s}}
          model: {python: "app:Model", batch: {max: 4, wait: 100ms}}
          weighed: {python: "app:weighed", batch: {max: 10, wait: 300ms, weight: ".text | length"}}
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
