"""What cannot be pickled is found, named, and explained."""

from __future__ import annotations

import functools
import socket
import sys
import threading
import warnings
from pathlib import Path

import pytest

import evener

lock = threading.Lock()
table = {"safe": 1, "deep": [1, {"lock": lock}]}
LARGE = bytes(11 * 1024 * 1024)


def as_main(function):
    """The same function, as if it stood in the script: it travels by value."""
    function.__module__ = "__main__"
    return function


def refused(function, *arguments, **keywords):
    with pytest.raises(evener.SerializationError) as caught:
        evener.function(function).submit(*arguments, **keywords)
    return str(caught.value)


def line_of(text):
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line and "line_of" not in line)


def test_a_closure_over_a_lock_is_named_with_its_place(node):
    guard = threading.Lock()

    def work():
        x = 1
        with guard:  # here it is
            return x

    said = refused(work)
    assert "the function 'test_a_closure_over_a_lock_is_named_with_its_place.<locals>.work' cannot be sent" in said
    assert f"its closure variable 'guard' (a _thread.lock, referred to at {__file__}:{line_of('# here it is')})" in said
    assert "What to do: it belongs to the threads of this process; make one inside the function" in said


def test_a_global_is_named_with_the_path_to_the_culprit(node):
    @as_main
    def work():
        return table["safe"]  # the table is here

    said = refused(work)
    assert "its global variable 'table'['deep'][1]['lock'] (a _thread.lock" in said
    assert f"{__file__}:{line_of('# the table is here')}" in said


def test_a_name_that_only_an_inner_function_uses_is_found(node):
    @as_main
    def work():
        return [lock for _ in range(3)]  # inner use

    said = refused(work)
    assert "its global variable 'lock' (a _thread.lock" in said
    assert f":{line_of('# inner use')}" in said


def test_a_default_is_named_by_its_parameter(node):
    def work(x, guard=lock, *, other=3):
        return x

    assert "its default of the parameter 'guard' (a _thread.lock" in refused(work)

    def works(x, *, guard=lock):
        return x

    assert "its default of the parameter 'guard' (a _thread.lock" in refused(works)


def test_each_kind_has_its_remedy(node, tmp_path):
    with socket.socket() as connection, (tmp_path / "f").open("w") as file, (tmp_path / "f").open() as reader:
        for thing, kind, remedy in [
            (connection, "a socket.socket", "connect inside the function"),
            (file, "_io.TextIOWrapper", "pass its path instead"),
            (reader, "_io.TextIOWrapper", "pass its path instead"),
            ((n for n in ()), "a generator", "make a list of it first"),
            (sys._getframe(), "a frame", "pass its text instead"),
            (threading.Event(), "lock", "make one inside the function"),
        ]:

            def work(thing=thing):
                return thing

            said = refused(work)
            assert kind in said
            assert remedy in said


def test_functions_within_functions_are_followed(node):
    def inner():
        return lock

    as_main(inner)

    def work():
        return inner()

    assert "its closure variable 'inner', global variable 'lock' (a _thread.lock" in refused(work)


class Holder:
    def __init__(self, thing):
        self.thing = thing

    def method(self, x):
        return x


class Slotted:
    __slots__ = ("thing",)

    def __init__(self, thing):
        self.thing = thing


def test_objects_are_followed_into_what_they_give_to_pickle(node):
    for holder in (Holder(lock), Slotted(lock)):

        def work(holder=holder):
            return holder

        assert "'holder'.thing (a _thread.lock" in refused(work)


def test_methods_and_partials_are_followed(node):
    assert "instance.thing (a _thread.lock" in refused(Holder(lock).method)
    assert "argument 1 (a _thread.lock" in refused(functools.partial(print, lock))
    assert "argument 'end' (a _thread.lock" in refused(functools.partial(print, end=lock))


def takes(first, second=None, *rest, **more):
    return first


def test_an_argument_is_named_by_its_parameter_or_its_number(node):
    assert "the argument 'second' of 'takes' cannot be sent: it (a _thread.lock) cannot be pickled" in refused(
        takes, 1, lock
    )
    assert "the argument 'first' of 'takes' cannot be sent: its ['a'][0] (a _thread.lock)" in refused(
        takes, {"a": [lock]}
    )
    assert "the argument 'second' of 'takes'" in refused(takes, 1, second=lock)
    assert "the argument 'else_' of 'takes'" in refused(takes, 1, else_=lock)
    assert "argument number 4 of 'takes'" in refused(takes, 1, 2, 3, lock)


def test_a_structure_that_holds_itself_is_no_endless_search(node):
    ring = []
    ring.append(ring)
    ring.append(lock)
    assert "its [1] (a _thread.lock)" in refused(takes, ring)


def test_an_argument_that_is_too_deep_is_an_error(node):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert "the argument 'first' of 'takes' cannot be sent" in refused(takes, deep)


class Refuses:
    def __reduce__(self):
        raise ValueError("I stay here")


def test_what_an_object_says_itself_is_passed_on(node):
    said = refused(takes, Refuses())
    assert "I stay here" in said
    assert "What to do: pass what the function needs of it, as plain values" in said


def test_a_callable_sent_as_an_argument_is_named_as_what_it_is(node):
    client = evener.Client()
    with pytest.raises(evener.SerializationError) as caught:
        client.submit(Holder(lock).method, 1)
    assert "the function 'Holder.method' cannot be sent: its instance.thing (a _thread.lock)" in str(caught.value)
    with pytest.raises(evener.SerializationError) as caught:
        client.submit(Holder(1).method, lock)
    assert "the argument 'x' of 'Holder.method' cannot be sent: it (a _thread.lock)" in str(caught.value)


def test_a_large_function_is_a_warning_that_names_its_largest_part(node):
    small = b"x" * 1000

    def work():
        return LARGE, small

    as_main(work)
    with pytest.warns(UserWarning, match=r"is 11\.0 MiB large.*global variable 'LARGE' \(a bytes.*11\.0 MiB") as caught:
        evener.function(work).submit().result(10)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evener.function(takes).submit(LARGE).result(10)
