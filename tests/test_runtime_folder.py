"""The runtime folder under a node that runs: whatever is removed of it, workers start again."""

import shutil

import pytest

from harness import until

SERVICE = """
stages: {name: {python: "app:name"}}
routes: [{path: /name, pipeline: name, decode: text}]
"""


def remove_all(runtime):
    """As a session manager does at the last logout of a user."""
    shutil.rmtree(runtime)


def remove_inner(runtime):
    shutil.rmtree(runtime / "evener")


def remove_file(runtime):
    for file in (runtime / "evener").glob("worker-*.py"):
        file.unlink()


def change_file(runtime):
    for file in (runtime / "evener").glob("worker-*.py"):
        file.write_text("raise SystemExit('this is not the runtime')")


@pytest.mark.parametrize("damage", [remove_all, remove_inner, remove_file, change_file])
def test_a_worker_is_replaced_whatever_became_of_the_runtime_folder(node, damage):
    started = node(SERVICE, app="def name(text): return text")
    assert started.post("/name", "before", "text/plain").text == "before"
    old = started.worker("app:name")
    damage(started.runtime)
    old.kill()
    until(lambda: not old.is_alive, "its end")
    assert started.post("/name", "after", "text/plain").text == "after"
