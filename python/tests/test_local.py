"""Decorated functions as workers have them, and the context where there is none."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from concurrent.futures import Future

import pytest

import evener
from evener._worker import _Local


def add(x, y=10):
    """Add two."""
    return x + y


def fails(x):
    if x == 2:
        raise ValueError(x)
    return x


local = _Local(add)


def test_every_way_to_call_it_calls_it_here():
    assert (local(1), local.run(1, y=2), local.options(priority=5, output="capture").run(1)) == (11, 3, 11)
    assert list(local.map([1, 2], ordered=False, progress=True, chunksize=7)) == [11, 12]
    assert list(local.map([1, 2, 3], [4, 5])) == [5, 7]
    assert list(local.starmap([(1, 2), (3,)])) == [3, 13]


def test_a_map_is_lazy():
    seen = []
    results = _Local(seen.append).map(iter(range(10**9)))
    assert seen == []
    next(results)
    next(results)
    assert seen == [0, 1]


def test_exceptions_of_a_map_come_in_their_turn_or_in_their_place():
    results = _Local(fails).map([1, 2, 3])
    assert next(results) == 1
    with pytest.raises(ValueError, match="2"):
        next(results)
    assert [repr(result) for result in _Local(fails).map([1, 2, 3], return_exceptions=True)] == [
        "1",
        "ValueError(2)",
        "3",
    ]


def test_a_future_is_done_and_can_be_awaited():
    future = local.submit(1, y=1)
    assert isinstance(future, Future)
    assert (future.done(), future.result(), future.cancel()) == (True, 2, False)
    failed = _Local(fails).submit(2)
    assert isinstance(failed.exception(), ValueError)

    async def wait():
        return await local.submit(3)

    assert asyncio.run(wait()) == 13


def test_it_looks_like_the_function():
    assert (local.__name__, local.__qualname__, local.__wrapped__) == ("add", "add", add)
    assert str(inspect.signature(local)) == "(x, y=10)"
    assert repr(local) == "<evener.function add>"
    assert not hasattr(local, "nonesuch")
    for made in (pickle.loads(pickle.dumps(local)), copy.copy(local)):
        assert type(made) is _Local
        assert made.__wrapped__ is add


def test_a_method_gets_its_instance():
    class Horse:
        name = "Ann"
        call = _Local(lambda self, text: f"{self.name} {text}")
        count = _Local(len)

    assert (Horse().call("!"), Horse().call.run("?")) == ("Ann !", "Ann ?")
    assert list(Horse().call.map(["a", "b"])) == ["Ann a", "Ann b"]
    assert Horse.call(Horse(), "x") == "Ann x"
    assert Horse().count("abc") == 3


def test_outside_of_a_call_there_is_no_context():
    assert evener.context() is None
