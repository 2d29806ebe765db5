"""The iterative example: a request goes round until the answer is good enough, on whichever workers are free."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import assert_problem
from harness.node import REPOSITORY
from harness.transcripts import run_readme

EXAMPLE = REPOSITORY / "examples" / "iterative"


@pytest.fixture(scope="module")
def plate(shared_node, tmp_path_factory):
    folder = tmp_path_factory.mktemp("iterative")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    return shared_node(folder / "service.yaml", arguments=["--http", "127.0.0.1:0"])


def test_what_the_readme_shows(node, tmp_path):
    done = run_readme(node, EXAMPLE, tmp_path)
    assert [command.split()[:2] for command in done].count(["evener", "up"]) == 2
    assert "evener test examples/iterative/service.yaml" in done
    assert len(done) >= 8


def test_every_worker_has_a_part(plate):
    answer = plate.get("/plate").json
    assert answer["middle"] == 25.0
    assert answer["workers"] == 3


def test_requests_that_go_round_at_the_same_time_do_not_mix(plate):
    sizes = [3, 7, 11, 7, 3, 11, 9, 5] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda size: plate.get(f"/plate?size={size}&exact=0.01").json, sizes))
    turns = {size: answer["turns"] for size, answer in zip(sizes, answers, strict=True)}
    assert [answer["turns"] for answer in answers] == [turns[size] for size in sizes]
    assert turns[3] < turns[5] < turns[7] < turns[11]
    assert all(abs(answer["middle"] - 25) < 0.1 for answer in answers)


def test_a_cycle_without_end_is_ended(plate):
    fields = assert_problem(
        plate.get("/plate?exact=1e-12"), "too-many-hops", stage="judge", tries=1, saying="limits.max_hops allows 50"
    )
    assert "`judge` sent the request on" in fields["detail"]
    # It went no further than that, and the service goes on.
    assert plate.get("/plate?size=3").status == 200


def test_more_hops_take_it_further_and_one_worker_comes_to_the_same(node, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "service")
    file = tmp_path / "service" / "service.yaml"
    text = file.read_text()
    for old, new in [("max_hops: 50", "max_hops: 200"), ("workers: 3", "workers: 1")]:
        assert text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text)
    served = node(file, arguments=["--http", "127.0.0.1:0"])
    assert served.get("/plate").json == {"middle": 25.0, "turns": 41, "workers": 1}
    finest = served.get("/plate?exact=1e-6").json
    assert (finest["middle"], finest["workers"]) == (25.0, 1)
    assert 50 < finest["turns"] < 200


@pytest.mark.parametrize(
    ("query", "saying"),
    [
        ("size=2", "size must be a number from 3 to 101"),
        ("size=1e3", "size must be a number"),
        ("exact=0", "exact must be a number"),
        ("exact=nan", "exact must be a number"),
        ("exact=", "exact must be a number"),
    ],
)
def test_bad_numbers_are_refused(plate, query, saying):
    assert_problem(plate.get(f"/plate?{query}"), "aborted", status=400, stage="begin", tries=1, saying=saying)
