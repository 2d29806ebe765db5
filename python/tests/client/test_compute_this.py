"""The decorator `compute_this`, as its first users know it."""

from __future__ import annotations

import asyncio
import pickle

import pytest

import evener
from client import fake
from evener import _client


@evener.compute_this()
def square(x):
    """Square."""
    return x * x


@evener.compute_this(server="unix:/other", depmodules=["colorsys"])
def elsewhere():
    return colorsys.__name__  # noqa: F821


@evener.compute_this
def bare(x, y=1):
    return x + y


def test_a_call_is_an_object_that_can_be_run(node):
    assert square(2).run() == 4
    call = bare(2, y=5)
    assert (call.run(), call.run()) == (7, 7)
    assert asyncio.run(square(3).async_run()) == 9
    assert (square.__name__, square.__doc__, square.__wrapped__(5)) == ("square", "Square.", 25)


def test_many_calls_run_at_once(node):
    async def main():
        return await asyncio.gather(*(square(x).async_run() for x in range(50)))

    assert asyncio.run(main()) == [x * x for x in range(50)]


def test_the_workers_are_known(node):
    # A number, which a load test multiplies.
    assert square.get_workers() == 2


def test_a_server_and_modules_can_be_named(bridge):
    fake.nodes["unix:/other"] = fake.Node(workers=3)
    assert elsewhere().run() == "colorsys"
    assert elsewhere.get_workers() == 3
    fake.nodes["http://host:7070"] = fake.Node()
    assert evener.compute_this("host:7070")(lambda: 1)().run() == 1
    assert _client.shared("http://host:7070").url == "http://host:7070"
    with pytest.raises(evener.ConnectError, match="http://nowhere:1"):
        evener.compute_this(server="nowhere:1")(lambda: 1)().run()


def test_what_cannot_be_decorated_is_refused():
    async def waits(): ...

    with pytest.raises(TypeError, match=r"evener\.compute_this takes a plain function.*async"):
        evener.compute_this()(waits)
    with pytest.raises(TypeError, match="decorated already"):
        evener.compute_this(square)


def test_it_travels_by_name_where_it_can():
    assert pickle.loads(pickle.dumps(square)) is square


def test_errors_come_back(node):
    @evener.compute_this()
    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails().run()
    with pytest.raises(ValueError, match="no"):
        asyncio.run(fails().async_run())
