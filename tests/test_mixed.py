"""The mixed example: jq, Python and programs in one pipeline, some of it once for each paragraph."""

import re
import shutil
from collections import Counter

import pytest

from harness import assert_problem
from harness.node import REPOSITORY
from harness.transcripts import run_readme

EXAMPLE = REPOSITORY / "examples" / "mixed"


def copied(folder):
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    return folder / "service.yaml"


@pytest.fixture(scope="module")
def words(shared_node, tmp_path_factory):
    return shared_node(copied(tmp_path_factory.mktemp("mixed")), arguments=["--http", "127.0.0.1:0"])


def ask(served, text):
    return served.post("/words", text, "text/plain; charset=utf-8")


def expected(text):
    found = Counter(re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower()))
    top = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:5]
    return {"words": found.total(), "top": [{"word": word, "times": times} for word, times in top]}


def test_what_the_readme_shows(node, tmp_path):
    done = run_readme(node, EXAMPLE, tmp_path)
    assert [command.split()[:2] for command in done].count(["evener", "up"]) == 2
    assert "evener test examples/mixed/service.yaml" in done
    assert len(done) >= 7


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n \n\n",
        "1 2 3, 4!",
        "one",
        "b a\n\na b\n\n\n\nc b",
        "It's Zoë's naïve ÄRGER; it’s ärger.\r\n",
        "$(rm -rf /) `ls` | sort; --help\n\n-n 5 -c",
        (REPOSITORY / "README.md").read_text(),
    ],
    ids=["empty", "blank", "no words", "one", "three paragraphs", "letters", "shell", "long"],
)
def test_the_most_frequent_words(words, text):
    got = ask(words, text)
    assert (got.status, got.json) == (200, expected(text))


def test_many_paragraphs_at_the_same_time(words):
    text = "\n\n".join(f"common word{chr(97 + number % 26)} common" for number in range(120))
    got = ask(words, text)
    assert (got.status, got.json) == (200, expected(text))


def test_a_program_that_fails_is_named(node, tmp_path):
    file = copied(tmp_path / "service")
    whole = "command: [sort]"
    assert file.read_text().count(whole) == 1
    file.write_text(file.read_text().replace(whole, "command: [sort, --sideways]"))
    served = node(file, arguments=["--http", "127.0.0.1:0"])
    got = ask(served, "a b c")
    assert_problem(got, "command-failed", stage="sort", tries=1, saying="exited with code 2")
    served.wait_log("sideways")
    # Without a paragraph there is nothing to sort.
    assert ask(served, "").json == {"words": 0, "top": []}
