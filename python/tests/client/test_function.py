"""Decorated functions: called here, called elsewhere, and how they travel."""

from __future__ import annotations

import contextlib
import io
import pickle
import threading

import cloudpickle
import pytest

import evener
from client import fake
from evener import _worker


@evener.function
def square(x):
    """Return the square."""
    return x * x


@evener.function(timeout=2.5, retries=3, output="capture", priority=7)
def careful(x, *, scale=1):
    return x * scale


def plain(x):
    return x + 1


def test_a_decorated_function_is_the_same_function_here():
    assert square(3) == 9
    assert (square.__name__, square.__doc__, square.__module__) == ("square", "Return the square.", __name__)
    assert square.__wrapped__(4) == 16
    assert repr(square) == "<evener.function square>"


def test_run_submit_and_map_call_it_elsewhere(node):
    assert square.run(3) == 9
    assert square.submit(3).result(10) == 9
    assert list(square.map(range(5))) == [0, 1, 4, 9, 16]
    assert list(careful.starmap([(1,), (2,)])) == [1, 2]
    assert careful.run(2, scale=5) == 10
    assert node.submitted > 0


def test_options_go_with_each_call(node):
    careful.run(1)
    careful.options(priority=-100, timeout=None, output="discard").submit(1).result(10)
    assert node.orders == [("default", False, 3, 2.5, 7, False), ("default", False, 3, None, -100, True)]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"timeout": 0}, ValueError, "timeout is a number of seconds above 0"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": "1s"}, TypeError, "timeout is a number of seconds"),
        ({"retries": -1}, ValueError, "retries is a whole number from 0"),
        ({"retries": True}, TypeError, "retries is a whole number"),
        ({"priority": 101}, ValueError, "priority is a whole number from -100 to 100"),
        ({"output": "loud"}, ValueError, "'echo', 'capture', 'discard'"),
        ({"pool": ""}, TypeError, "pool is the name"),
        ({"modules": "json"}, TypeError, r"modules=\['json'\]"),
        ({"modules": [3]}, TypeError, "modules takes modules or names of modules, not 3"),
        ({"modules": [("a b", "json")]}, TypeError, "alias"),
        ({"by_value": ["not_imported_yet"]}, ValueError, "not_imported_yet.*import it first"),
        ({"by_value": pickle}, TypeError, r"by_value=\[pickle\]"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_a_bad_option_is_refused_by_name_when_it_is_given(options, error, says):
    with pytest.raises(error, match=says):
        evener.function(**options)
    with pytest.raises(error, match=says):
        square.options(**options)


def test_what_cannot_be_decorated_is_refused_with_a_remedy():
    async def waits(): ...

    def yields():
        yield

    for thing, says in [
        (waits, r"async.*asyncio\.run inside"),
        (yields, "generator.*return a list"),
        (int, "class"),
        (staticmethod(plain), "write @staticmethod above"),
        (square, "decorated already"),
        (3, "takes a function, not 3"),
    ]:
        with pytest.raises(TypeError, match=says):
            evener.function(thing)


class Horse:
    def __init__(self, name):
        self.name = name

    @evener.function
    def greet(self, greeting, mark="."):
        return f"{greeting} {self.name}{mark}"

    @staticmethod
    @evener.function
    def neigh(times):
        return "neigh" * times


def test_methods_take_their_instance_along(node):
    horse = Horse("Bella")
    assert horse.greet("hello") == "hello Bella."
    assert horse.greet.run("hello", mark="!") == "hello Bella!"
    assert horse.greet.submit("hello").result(10) == "hello Bella."
    assert list(horse.greet.map(["hi", "bye"])) == ["hi Bella.", "bye Bella."]
    assert list(horse.greet.starmap([("hi", "?")])) == ["hi Bella?"]
    assert Horse.greet.run(horse, "oh") == "oh Bella."
    assert horse.neigh.run(2) == "neighneigh"
    assert horse.greet.options(retries=1).run("hey") == "hey Bella."
    with evener.Executor() as executor:
        assert executor.submit(horse.greet, "ho").result(10) == "ho Bella."
        assert list(executor.map(horse.greet, ["ho"])) == ["ho Bella."]
    assert pickle.loads(pickle.dumps(horse.greet))("la") == "la Bella."


def test_any_callable_can_be_a_function(node):
    assert evener.function(len).run("abc") == 3
    assert evener.function(lambda x: -x).run(3) == -3


def body_of(node, name):
    bodies = [pickle.loads(body) for body in node.bodies.values()]
    return next(body for body in bodies if body["name"] == name)


def test_a_function_of_a_module_travels_by_name(node):
    square.run(3)
    body = body_of(node, "square")
    assert len(body["function"]) < 200
    assert pickle.loads(body["function"]) is square.__wrapped__
    assert (body["initializer"], body["key"], body["modules"]) == (None, None, [])


def test_a_function_of_main_travels_by_value_with_its_globals(node):
    main = {"__name__": "__main__", "evener": evener, "cloudpickle": cloudpickle}
    exec("factor = 3\ndef times(x):\n    return x * factor\n", main)
    function = evener.function(main["times"])
    assert function.run(2) == 6
    # The body holds the function's code and its globals.
    copy = pickle.loads(body_of(node, "times")["function"])
    assert copy is not main["times"]
    assert copy(4) == 12


def test_a_global_that_is_bound_anew_is_sent_anew(node):
    main = {"__name__": "__main__"}
    exec("factor = 3\ndef times(x):\n    return x * factor\n", main)
    function = evener.function(main["times"])
    assert [function.run(2), function.run(2)] == [6, 6]
    assert len(node.bodies) == 1
    main["factor"] = 5
    assert [function.run(2), function.submit(2).result(10)] == [10, 10]
    assert len(node.bodies) == 2


def test_functions_that_call_decorated_functions_travel(node):
    main = {"__name__": "__main__", "evener": evener}
    exec(
        "@evener.function\ndef inner(x):\n    return x + 1\n"
        "@evener.function\ndef outer(x):\n    return inner(x) * 2 + inner.run(x) + sum(inner.map([x]))\n",
        main,
    )
    assert main["outer"].run(1) == 8
    body = pickle.loads(body_of(node, "outer")["function"])
    assert type(body.__globals__["inner"]) is _worker._Local


def test_a_recursive_decorated_function_travels(node):
    main = {"__name__": "__main__", "evener": evener}
    exec("@evener.function\ndef factorial(n):\n    return 1 if n < 2 else n * factorial(n - 1)\n", main)
    assert main["factorial"].run(5) == 120


def test_a_decorated_function_is_pickled_by_name_or_as_one_for_workers():
    assert pickle.loads(pickle.dumps(square)) is square
    local = pickle.loads(cloudpickle.dumps(evener.function(lambda x: x * 3)))
    assert type(local) is _worker._Local
    assert local.run(2) == 6
    variant = pickle.loads(cloudpickle.dumps(square.options(retries=1)))
    assert variant(3) == 9


def test_modules_are_named_in_the_body(node):
    import json

    function = evener.function(
        lambda: (js.dumps([]), os.path.sep, colorsys.__name__),  # noqa: F821
        modules=[("js", json), "os.path", "colorsys"],
    )
    assert function.run() == ("[]", "/", "colorsys")
    assert body_of(node, "test_modules_are_named_in_the_body.<locals>.<lambda>")["modules"] == [
        ["js", "json"],
        ["os.path", "os.path"],
        ["os", "os"],
        ["colorsys", "colorsys"],
    ]
    assert evener.function(modules={"np": "json"})(plain).run(1) == 2


def test_modules_by_value_travel_with_the_function_and_its_arguments(node, tmp_path, monkeypatch):
    (tmp_path / "stray.py").write_text("def helper(x):\n    return x * 10\nclass Box:\n    size = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import stray

    function = evener.function(by_value=[stray])(lambda x, box: stray.helper(x) + box.size)
    named = evener.function(by_value=["stray"])(stray.helper)
    node_input = []
    original = fake.Call.__init__

    def keep(self, number, deliver, *order):
        node_input.append(order[2])
        original(self, number, deliver, *order)

    monkeypatch.setattr(fake.Call, "__init__", keep)
    assert function.run(2, stray.Box()) == 23
    assert named.run(1) == 10
    assert b"helper" in body_of(node, "helper")["function"]
    assert b"co_code" in body_of(node, "helper")["function"] or len(body_of(node, "helper")["function"]) > 200
    assert len(node_input[0]) > 200
    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_a_wrong_call_raises_what_it_raises_here(node):
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        square.run()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        square.submit(y=1).result(10)


@evener.function
def shouts(text):
    fake.say(f"{text}\n")
    fake.say("oh\n", 2)
    return text


def test_run_writes_to_the_callers_streams_before_it_returns(node):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        shouts.run("hello")
    assert (out.getvalue(), err.getvalue()) == ("hello\n", "oh\n")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        shouts.options(output="capture").run("quiet")
        shouts.options(output="discard").run("silent")
    assert (out.getvalue(), err.getvalue()) == ("hello\n", "oh\n")


@evener.function(output="capture")
def fails(text):
    fake.say(text)
    raise ValueError("no")


def test_an_error_of_run_has_what_was_printed(node):
    with pytest.raises(ValueError, match="no") as caught:
        fails.run("before")
    assert (caught.value.stdout, caught.value.stderr) == ("before", "")


def test_threads_may_use_one_function_at_once(node):
    results = []

    def use():
        results.extend(square.submit(n).result(10) for n in range(50))
        results.append(square.run(2))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(([n * n for n in range(50)] + [4]) * 8)
