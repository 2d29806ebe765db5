"""The primes service of the examples, as a user meets it."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import assert_problem, is_uuid7
from harness.node import REPOSITORY
from harness.transcripts import run_readme

EXAMPLE = REPOSITORY / "examples" / "primes"

CONNECTIONS = 64
REQUESTS = 10_000


@pytest.fixture(scope="module")
def primes(shared_node, tmp_path_factory):
    folder = tmp_path_factory.mktemp("primes")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    return shared_node(folder / "service.yaml", arguments=["--http", "127.0.0.1:0"])


def test_what_the_readme_shows(node, tmp_path):
    done = run_readme(node, EXAMPLE, tmp_path)
    assert [command.split()[:2] for command in done].count(["evener", "up"]) == 1
    assert len(done) >= 5


def smallest_factor(number):
    return next(factor for factor in range(2, number + 1) if number % factor == 0)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("32416190071", "32416190071"),
        ("7", "7"),
        ("91", "7"),
        ("3", "3"),
        ("9", "3"),
        ("1000003", "1000003"),
        ("0091", "7"),
    ],
)
def test_a_prime_is_itself_and_a_composite_its_smallest_factor(primes, number, answer):
    got = primes.get(f"/is_prime?possible_prime={number}")
    assert (got.status, got.text) == (200, answer)
    assert got.content_type == "application/json"
    assert got.header("content-length") == str(len(answer))
    assert is_uuid7(got.header("evener-request-id"))


@pytest.mark.parametrize("number", ["2", "4", "1000000"])
def test_an_even_number_is_answered_by_the_first_stage(primes, number):
    got = primes.get(f"/is_prime?possible_prime={number}")
    assert (got.status, got.text) == (200, "2")
    assert got.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("query", "saying"),
    [
        ("", "the query parameter possible_prime is missing"),
        ("?number=7", "the query parameter possible_prime is missing"),
        ("?possible_prime=", "a whole number of at least 2"),
        ("?possible_prime=seven", "a whole number of at least 2"),
        ("?possible_prime=-7", "a whole number of at least 2"),
        ("?possible_prime=7.5", "a whole number of at least 2"),
        ("?possible_prime=1", "not 1"),
        ("?possible_prime=0", "not 0"),
        ("?possible_prime=%D9%A7", "decimal digits"),
        ("?possible_prime=" + 19 * "9", "at most 18 digits; this one has 19"),
    ],
)
def test_a_missing_or_bad_number_is_refused_with_its_reason(primes, query, saying):
    got = primes.get(f"/is_prime{query}")
    assert_problem(got, "aborted", status=400, stage="parse", tries=1, saying=saying)


def test_ten_thousand_requests_over_64_connections(primes):
    numbers = [3 + 2 * place for place in range(REQUESTS)]
    expected = {number: str(smallest_factor(number)) for number in numbers}

    def ask(share):
        wrong, ids = [], []
        with primes.connect(patience=30) as connection:
            for number in share:
                got = connection.get(f"/is_prime?possible_prime={number}")
                ids.append(got.header("evener-request-id"))
                if (got.status, got.text) != (200, expected[number]):
                    wrong.append((number, got))
        return wrong, ids

    before = primes.metrics()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        results = list(pool.map(ask, [numbers[place::CONNECTIONS] for place in range(CONNECTIONS)]))
    assert [wrong for wrongs, _ in results for wrong in wrongs] == []
    ids = [one for _, some in results for one in some]
    assert len(set(ids)) == REQUESTS
    after = primes.metrics()
    for stage in ("parse", "compute"):
        counter = f'evener_jobs_done_total{{stage="{stage}"}}'
        assert after[counter] - before[counter] == REQUESTS
        assert after[f'evener_queue_depth{{stage="{stage}"}}'] == 0
        assert after[f'evener_workers_lost_total{{stage="{stage}"}}'] == 0
        # Each of its workers served its part.
        jobs = [value for name, value in after.items() if name.startswith(f'evener_worker_jobs_total{{stage="{stage}"')]
        assert len(jobs) >= 2
        assert min(jobs) > 0
    assert after["evener_payload_bytes"] == 0


def test_two_requests_at_once_are_served_by_two_workers(node):
    served = node(
        """
        stages: {who: {python: "app:who", workers: 2}}
        routes: [{path: /who, pipeline: who}]
        """,
        app="""
        import os
        import marks

        def who(request):
            marks.note("began")
            marks.wait_for("go")
            return os.getpid()
        """,
    )
    connections = [served.begin("GET", "/who") for _ in range(2)]
    served.wait_notes("began", 2)
    served.open("go")
    pids = {connection.answer().json for connection in connections}
    assert pids == {worker.pid for worker in served.workers("app:who")}


def test_the_log_names_the_python_and_every_worker(primes):
    text = primes.log
    for stage, count in (("parse", 2), ("compute", None)):
        assert re.search(rf'workers warming up stage="?{stage}"? python=\S+', text), text
        ready = re.findall(rf"worker ready stage=\"?{stage}\"? worker=\d+ pid=\d+ runtime=\"?python 3\.\d+", text)
        assert len(ready) == count if count else ready
