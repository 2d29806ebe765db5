"""`evener new`: the service that it writes is good, answers, and is drawn; nothing is overwritten."""

import shlex
import subprocess

import pytest

from harness import run_evener
from harness.node import binary, environment

FILES = [".gitignore", "README.md", "service.yaml", "words.py"]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_service_is_good_and_answers(node, tmp_path):
    folder = tmp_path / "shop"
    done = run_evener("new", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(folder) == FILES
    checked = run_evener("check", folder / "service.yaml")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "service `shop` is good (4 stages, 1 pipeline, 1 route)" in checked.stdout
    served = node(folder / "service.yaml", arguments=["--http", "127.0.0.1:0"])
    answer = served.get("/words?text=the+horse+and+the+bar")
    assert (answer.status, answer.json) == (200, {"words": 5, "longest": "horse", "long": False})
    # What its README promises.
    readme = (folder / "README.md").read_text()
    assert answer.body.decode() in readme
    assert "SERVICE" not in readme + (folder / "service.yaml").read_text()
    # Nothing asked is no mistake.
    assert served.get("/words").json == {"words": 0, "longest": "", "long": False}
    served.wait_log("counting the horse and the bar")


def test_it_is_drawn_with_its_jq_stages_and_its_scatter(tmp_path):
    assert run_evener("new", tmp_path / "shop").returncode == 0
    drawn = run_evener("graph", tmp_path / "shop" / "service.yaml")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    for word in ("GET /words", "scatter", "gather", "python words:count<br/>2 workers", "in the node"):
        assert word in drawn.stdout


def test_what_it_says_can_be_typed(tmp_path):
    done = run_evener("new", "it's a shop", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    assert lines[1:] == [
        "evener up service.yaml",
        "curl 'http://127.0.0.1:8000/words?text=the+horse+and+the+bar'",
    ]
    assert shlex.split(lines[0]) == ["cd", "it's a shop"]
    script = f"{lines[0]} && {shlex.quote(str(binary()))} check service.yaml"
    checked = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert "service `it-s-a-shop` is good" in checked.stdout


@pytest.mark.parametrize("name", ["true", "2026", "null", "_", "...", "a" * 200, "caf\u00e9"])
def test_any_folder_has_a_name_that_a_service_may_have(tmp_path, name):
    done = run_evener("new", tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert run_evener("check", tmp_path / name / "service.yaml").returncode == 0


def test_the_folder_may_be_there_and_hold_other_things(tmp_path):
    (tmp_path / ".git").mkdir()
    done = run_evener("new", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path) == sorted([".git", *FILES])
    assert "cd " not in done.stdout
    assert run_evener("new", tmp_path / "some" / "where" / "deep").returncode == 0


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine\n")
    done = run_evener("new", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert name in done.stderr
    assert "nothing is overwritten" in done.stderr
    assert files(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine\n"


def test_a_link_is_not_written_through(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "words.py").symlink_to(tmp_path / "elsewhere.py")
    assert run_evener("new", folder).returncode == 1
    assert files(folder) == ["words.py"]
    assert not (tmp_path / "elsewhere.py").exists()


def test_twice_is_refused(tmp_path):
    assert run_evener("new", tmp_path / "shop").returncode == 0
    done = run_evener("new", tmp_path / "shop")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has service.yaml, words.py, README.md and .gitignore already" in done.stderr


def test_a_file_in_place_of_the_folder(tmp_path):
    place = tmp_path / "shop"
    place.write_text("")
    done = run_evener("new", place)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot make the folder {place}" in done.stderr
