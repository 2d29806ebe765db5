"""The names of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import evener
from evener import _worker

STAGE = {*_worker._PUBLIC, "__version__"}


def test_all_names_are_there_and_say_what_they_are():
    assert sorted(evener.__all__) == evener.__all__
    assert set(evener.__all__) > STAGE
    for name in evener.__all__:
        thing = getattr(evener, name)
        assert name == "__version__" or thing.__doc__, name
        assert name == "__version__" or thing.__module__ == "evener" or callable(thing), name


def test_what_is_looked_up_late_is_what_checkers_of_types_see():
    tree = ast.parse(Path(evener.__file__).read_text())
    late = evener._HOME
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module.removeprefix("evener.") for node in checked.body for alias in node.names}
    assert seen == late
    assert set(late) | STAGE == set(evener.__all__)


def test_every_error_is_drawn_in_the_tree():
    from evener import _errors

    drawn = _errors.__doc__
    for name in evener._PLACES["_errors"]:
        assert f" {name} " in drawn.replace("\n", " ")
        assert name == "RemoteTraceback" or issubclass(getattr(evener, name), evener.EvenerError)


def test_other_names_are_no_names():
    with pytest.raises(AttributeError, match="module 'evener' has no attribute 'nope'"):
        _ = evener.nope
    assert set(evener.__all__) <= set(dir(evener))


def test_public_methods_say_what_they_do():
    for name in ("Client", "Executor", "Function", "Future"):
        kind = getattr(evener, name)
        for method, thing in vars(kind).items():
            if not method.startswith("_") and callable(thing):
                assert thing.__doc__, f"{name}.{method}"
