"""The euler6 service of the examples, as a user meets it: scatter, gather, and the fallback."""

import shutil
import time

import pytest

from harness import is_uuid7
from harness.node import REPOSITORY
from harness.transcripts import run_readme

EXAMPLE = REPOSITORY / "examples" / "euler6"


@pytest.fixture(scope="module")
def euler6(shared_node, tmp_path_factory):
    folder = tmp_path_factory.mktemp("euler6")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    return shared_node(folder / "service.yaml", arguments=["--http", "127.0.0.1:0"])


def test_what_the_readme_shows(node, tmp_path):
    done = run_readme(node, EXAMPLE, tmp_path)
    assert [command.split()[:2] for command in done].count(["evener", "up"]) == 2
    assert len(done) >= 6


def answer(numbers):
    total, square = sum(number**2 for number in numbers), sum(numbers) ** 2
    return {"sum": total, "square": square, "diff": square - total}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([42], {"sum": 1764, "square": 1764, "diff": 0}),
        (list(range(1, 11)), {"sum": 385, "square": 3025, "diff": 2640}),
        ([], {"sum": 0, "square": 0, "diff": 0}),
        (list(range(500)), answer(range(500))),
    ],
)
def test_the_difference_of_the_two_halves(euler6, numbers, expected):
    got = euler6.get("/?" + "&".join(f"n={number}" for number in numbers))
    assert (got.status, got.json) == (200, expected)
    assert got.content_type == "application/json"
    assert is_uuid7(got.header("evener-request-id"))


def test_without_workers_for_a_half_the_fallback_comes_after_the_timeout(node, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "service")
    file = tmp_path / "service" / "service.yaml"
    whole = 'sum_of_squares: {python: "euler6:sum_of_squares"}'
    assert whole in file.read_text()
    file.write_text(file.read_text().replace(whole, whole.replace("}", ", workers: 0}")))
    served = node(file, arguments=["--http", "127.0.0.1:0"])
    began = time.monotonic()
    got = served.get("/?n=42")
    took = time.monotonic() - began
    assert (got.status, got.json) == (200, {"success": False})
    assert got.header("evener-fallback") == "scatter-timeout"
    assert 2.0 <= took < 4.0
