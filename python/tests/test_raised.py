"""What functions raise, and results that cannot travel: each call has an outcome, and the worker goes on."""

from __future__ import annotations

import pickle
import sys
import traceback

import cloudpickle
import pytest

from conftest import FAIL, RAISED, RUNTIME, blob, calls, define, script

tblib = pytest.importorskip("tblib")


# Some releases of cloudpickle leave out the name of the file.
FILE = cloudpickle.loads(cloudpickle.dumps(script("def f(): pass")["f"])).__code__.co_filename


def exception(found):
    """What a caller makes of a blob, without the chain."""
    return pickle.loads(found["chain"][0]["pickled"])


def is_sound(found):
    """The shape that docs/protocol.md gives to a blob."""
    nodes = found["chain"]
    assert 1 <= len(nodes) <= 100
    assert all(type(found[name]) is str for name in ("type", "message", "traceback"))
    for node in nodes:
        assert set(node) == {"pickled", "why", "type", "message", "frames", "cause", "context", "suppress"}
        assert (node["pickled"] is None) == (node["why"] is not None)
        for link in (node["cause"], node["context"]):
            assert link is None or 0 <= link < len(nodes)
        assert type(node["suppress"]) is bool

    def visit(place, path):
        assert place not in path
        for link in (nodes[place]["cause"], nodes[place]["context"]):
            if link is not None:
                visit(link, [*path, place])

    if len(nodes) < 10:
        visit(0, [])
    # Where user code begins, and not before.
    assert f'(most recent call last):\n  File "{RUNTIME}"' not in found["traceback"]
    return True


# Exceptions


def test_an_exception_comes_as_its_own_type_with_message_and_traceback(caller):
    worker = caller()
    function = worker.learn(
        """
        class Lame(Exception):
            pass
        def inner(name):
            raise Lame("left " + name, 3)
        def f(name):
            inner(name)
        """
    )
    outcome = worker.ask(function, "grüß")
    found = outcome.raised
    assert is_sound(found)
    assert (found["type"], found["message"]) == ("__main__.Lame", "('left grüß', 3)")
    assert outcome.extension == {name: found[name] for name in ("type", "message", "traceback")}
    assert outcome.number == 0
    lines = found["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line for line in lines if "File" in line] == [
        f'  File "{FILE}", line 7, in f',
        f'  File "{FILE}", line 5, in inner',
    ]
    assert lines[-1].endswith("Lame: ('left grüß', 3)")
    raised = exception(found)
    assert (type(raised).__name__, raised.args) == ("Lame", ("left grüß", 3))


def test_the_frames_make_a_traceback(caller):
    worker = caller()
    found = worker.ask(worker.learn("def g():\n  return 1 / 0\ndef f():\n  g()")).raised
    made = tblib.Traceback.from_dict(found["chain"][0]["frames"]).as_traceback()
    assert [(frame.filename, frame.name, frame.lineno) for frame in traceback.extract_tb(made)] == [
        (FILE, "f", 4),
        (FILE, "g", 2),
    ]
    assert made.tb_frame.f_globals["__name__"] == "__main__"


def test_a_class_of_the_caller_is_the_same_class_for_the_caller(caller):
    space = script("class Lame(Exception): pass\ndef f(error): raise error\ndef g(): raise Lame(4)")
    worker = caller()
    worker.send(define(1, blob(space["g"])))
    for _ in range(2):
        raised = exception(worker.ask(1).raised)
        assert type(raised) is space["Lame"]
        assert raised.args == (4,)


STATEMENTS = [
    ("raise ValueError('x')", "ValueError", "x"),
    ("raise OSError(32, 'pipe')", "BrokenPipeError", "[Errno 32] pipe"),
    ("import sys; sys.exit('bye')", "SystemExit", "bye"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
    ("raise GeneratorExit", "GeneratorExit", ""),
    ("raise StopIteration(3)", "StopIteration", "3"),
    ("import asyncio; raise asyncio.CancelledError", "asyncio.exceptions.CancelledError", ""),
    ("return f(value)", "RecursionError", "maximum recursion depth exceeded"),
    ("return deep(30_000)", "RecursionError", ""),
    ("int('x')", "ValueError", "invalid literal"),
    ("exec('1 +')", "SyntaxError", ""),
    ("return nonesuch", "NameError", "nonesuch"),
    ("b'\\xff'.decode()", "UnicodeDecodeError", "can't decode"),
    ("import evener; raise evener.Abort(404, 'no horse')", "evener.Abort", "404 no horse"),
    ("raise", "RuntimeError", "No active exception"),
    ("raise 17", "TypeError", "exceptions must derive"),
    ("raise Keeps(threading.Lock)", "__main__.Keeps", ""),
]


@pytest.mark.parametrize(("statement", "kind", "message"), STATEMENTS)
@pytest.mark.parametrize("granted", [True, False])
def test_whatever_is_raised_comes_back_as_itself(caller, granted, statement, kind, message):
    worker = caller(granted=granted)
    text = f"""
    import threading
    class Keeps(Exception):
        pass
    def deep(count):
        value = None
        for _ in range(count):
            value = [value]
        return repr(value)
    def f(value):
        if value:
            return "fine"
        {statement}
    """
    function = worker.learn(text)
    outcome = worker.ask(function, False)
    assert outcome.verb == RAISED
    found = outcome.raised
    assert is_sound(found)
    assert found["type"] == kind
    assert message in found["message"]
    assert type(exception(found)).__name__ == kind.split(".")[-1]
    assert worker.ask(function, True).result == "fine"


AWKWARD = {
    "holds a lock": ("super().__init__(threading.Lock())", "cannot pickle '_thread.lock' object"),
    "takes other arguments": ("super().__init__('text')", "__init__"),
    "wants a keyword": ("super().__init__(a)", "__init__"),
    "does not reduce": ("self.__class__ = Irreducible", "RuntimeError: no"),
    "exits when it is reduced": ("self.__class__ = Exits", "SystemExit: 3"),
    "comes out as something else": ("self.__class__ = Changes", "comes out of its pickle as a ValueError"),
    "comes out as no exception": ("self.__class__ = Vanishes", "comes out of its pickle as a int"),
    "has no text": ("self.__class__ = Silent", None),
    "is endless": ("self.__class__ = Endless", None),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_an_exception_that_cannot_travel_says_why(caller, name):
    statement, why = AWKWARD[name]
    worker = caller()
    text = """
    import sys, threading
    class Silent(Exception):
        def __str__(self): raise RuntimeError("no text")
        __repr__ = __str__
    class Endless(Exception):
        def __str__(self): return str(self)
    class Irreducible(Exception):
        def __reduce_ex__(self, protocol): raise RuntimeError("no")
    class Exits(Exception):
        def __reduce_ex__(self, protocol): sys.exit(3)
    class Changes(Exception):
        def __reduce__(self): return ValueError, ("x",)
    class Vanishes(Exception):
        def __reduce__(self): return int, (3,)
    class Lame(Exception):
        def __init__(self, a, b, *, c=3):
            if b:
                STATEMENT
    def f(value):
        if value is None:
            raise Lame(1, 2)
        return value
    """.replace("STATEMENT", statement)
    if name == "wants a keyword":
        text = text.replace("c=3", "c").replace("Lame(1, 2)", "Lame(1, 2, c=3)")
    function = worker.learn(text)
    found = worker.ask(function, None).raised
    assert is_sound(found)
    assert found["type"].startswith("__main__.")
    if why is not None:
        node = found["chain"][0]
        assert node["pickled"] is None
        assert why in node["why"]
    else:
        assert "whose text cannot be had" in found["message"]
        assert "in f\n" in found["traceback"] or "in f" in found["traceback"].splitlines()[1]
    worker.send(calls(function, [None, 1]))
    results, failures = worker.outcome().result
    assert (results, len(failures)) == ([None, 1], 1)
    assert worker.ask(function, 2).result == 2


def test_an_exception_whose_own_code_interrupts_is_told_all_the_same(caller):
    worker = caller()
    text = """
    class Wild(Exception):
        def __str__(self): raise KeyboardInterrupt
    def f(value):
        if value: return value
        raise Wild
    """
    function = worker.learn(text)
    found = worker.ask(function, 0).raised
    assert is_sound(found)
    assert found["type"] == "__main__.Wild"
    assert "KeyboardInterrupt" in found["chain"][0]["why"]
    assert worker.ask(function, 1).result == 1


# Chains


def test_causes_and_contexts_come_along(caller):
    worker = caller()
    text = """
    def f():
        try:
            try:
                1 / 0
            except ZeroDivisionError:
                {}["key"]
        except KeyError as error:
            raise ValueError("last") from error
    """
    found = worker.ask(worker.learn(text)).raised
    assert is_sound(found)
    nodes = found["chain"]
    assert [node["type"] for node in nodes] == ["ValueError", "KeyError", "ZeroDivisionError"]
    assert [(node["cause"], node["context"], node["suppress"]) for node in nodes] == [
        (1, 1, True),
        (None, 2, False),
        (None, None, False),
    ]
    assert [type(pickle.loads(node["pickled"])) for node in nodes] == [ValueError, KeyError, ZeroDivisionError]
    assert [node["frames"]["tb_lineno"] for node in nodes] == [9, 7, 5]
    assert "The above exception was the direct cause" in found["traceback"]
    assert "During handling of the above exception" in found["traceback"]


def test_a_chain_that_meets_again_stays_as_it_is(caller):
    worker = caller()
    text = """
    def f():
        first, second, third = ValueError(1), ValueError(2), ValueError(3)
        first.__cause__, first.__context__ = second, third
        third.__context__ = second
        raise first
    """
    found = worker.ask(worker.learn(text)).raised
    assert is_sound(found)
    assert [(node["message"], node["cause"], node["context"]) for node in found["chain"]] == [
        ("1", 1, 2),
        ("2", None, None),
        ("3", None, 1),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "first.__context__ = second; second.__context__ = first",
        "first.__cause__ = second; second.__cause__ = third; third.__context__ = second",
        "first.__cause__ = second; first.__context__ = third; third.__context__ = second; second.__cause__ = third",
        "first.__context__ = second; second.__cause__ = third; third.__cause__ = first; third.__context__ = second",
    ],
)
def test_a_chain_in_a_circle_is_cut(caller, statement):
    worker = caller()
    text = f"""
    def f():
        first, second, third = ValueError(1), ValueError(2), ValueError(3)
        {statement}
        raise first
    """
    found = worker.ask(worker.learn(text)).raised
    assert is_sound(found)
    assert len(found["chain"]) >= 2


@pytest.mark.parametrize("count", [99, 100, 101, 5_000])
def test_a_chain_has_at_most_100_exceptions(caller, count):
    worker = caller()
    text = f"""
    def f():
        last = ValueError({count})
        for number in range({count - 1}, 0, -1):
            error = ValueError(number)
            error.__cause__ = last
            last = error
        raise last
    """
    found = worker.ask(worker.learn(text)).raised
    assert is_sound(found)
    assert [node["message"] for node in found["chain"]] == [str(n) for n in range(1, min(count, 100) + 1)]
    assert found["chain"][-1]["cause"] is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
def test_groups_of_exceptions_and_notes_come_along(caller):
    worker = caller()
    text = """
    def f():
        error = ExceptionGroup("many", [ValueError(1), ExceptionGroup("more", [KeyError("k")])])
        error.add_note("a note")
        raise error
    """
    found = worker.ask(worker.learn(text)).raised
    assert is_sound(found)
    raised = exception(found)
    assert [type(each) for each in raised.exceptions] == [ValueError, ExceptionGroup]  # noqa: F821
    assert raised.__notes__ == ["a note"]
    assert "a note" in found["traceback"]
    assert "KeyError: 'k'" in found["traceback"]


# Long ones


def test_a_deep_traceback_keeps_both_ends(caller):
    worker = caller()
    text = "def f(count):\n  return g(count) if count else 1 / 0\ndef g(count):\n  return f(count - 1)"
    found = worker.ask(worker.learn(text), 300).raised
    assert is_sound(found)
    step, lines = found["chain"][0]["frames"], []
    while step is not None:
        lines.append(step["tb_frame"]["f_code"]["co_name"])
        step = step["tb_next"]
    assert len(lines) == 100
    assert (lines[0], lines[-1]) == ("f", "f")
    tblib.Traceback.from_dict(found["chain"][0]["frames"]).as_traceback()


def test_long_texts_are_cut_where_people_read_them(caller):
    worker = caller()
    outcome = worker.ask(worker.learn("def f(text): raise ValueError(text * 1_000_000 + 'the end')"), "\ud800é\0")
    found = outcome.raised
    for name in ("message", "traceback"):
        assert outcome.extension[name].endswith("the end")
        assert 3_000 < len(outcome.extension[name].encode()) <= 32_768
        assert found[name].endswith("the end")
        assert len(found[name].encode()) <= 262_144
    assert exception(found).args == ("\ud800é\0" * 1_000_000 + "the end",)


# Results


UNPICKLABLE = {
    "a lock": ("threading.Lock()", "cannot be pickled: TypeError: cannot pickle '_thread.lock' object"),
    "a lock inside": ("{'a': (1, [Horse(threading.Lock())])}", 'result["a"][1][0].part is a _thread.lock: TypeError'),
    "a key": ("{Horse(threading.Lock()): 1}", "result (a key).part is a _thread.lock"),
    "a member": ("{Horse(threading.Lock())}", "result (a member).part is a _thread.lock"),
    "a generator": ("(x for x in [1])", "cannot pickle 'generator' object; return a list"),
    "an open file": ("[open('/dev/null')]", "result[0] is a _io.TextIOWrapper: TypeError: cannot pickle an open file"),
    "a socket": ("__import__('socket').socket()", "cannot pickle 'socket' object"),
    "a coroutine": ("later()", "f is async, and nobody awaits it in a worker"),
    "a frame": ("__import__('sys')._getframe()", "cannot pickle 'frame' object"),
    "what raises": ("Raises()", "ValueError: not now"),
    "what exits": ("Exits()", "SystemExit: 3"),
    "what interrupts": ("Interrupts()", "KeyboardInterrupt"),
    "what is too deep": ("deep()", "recursion"),
    "what has no end": ("Endless()", ""),
}


@pytest.mark.parametrize("name", UNPICKLABLE)
def test_a_result_that_does_not_pickle_is_named(caller, name):
    expression, says = UNPICKLABLE[name]
    worker = caller()
    text = """
    import sys, threading
    class Horse:
        def __init__(self, part): self.part = part
    class Raises:
        def __reduce__(self): raise ValueError("not now")
    class Exits:
        def __reduce__(self): sys.exit(3)
    class Interrupts:
        def __reduce__(self): raise KeyboardInterrupt
    class Endless:
        def __reduce__(self): return Endless, (Endless(),)
    async def later(): pass
    def deep():
        value = []
        for _ in range(100_000): value = [value]
        return value
    def f(value):
        return value or EXPRESSION
    """.replace("EXPRESSION", expression)
    function = worker.learn(text)
    for _ in range(2):
        found = worker.ask(function, 0).raised
        assert is_sound(found)
        assert found["type"] == "evener.SerializationError"
        assert found["message"].startswith(("the result of f cannot be pickled", "f is async"))
        assert says in found["message"]
        assert found["chain"][0]["pickled"] is None
    assert worker.ask(function, 1).result == 1
    assert "never awaited" not in worker.leave()[2]


def test_without_cloudpickle_a_result_says_what_is_missing(caller):
    worker = caller(source="def f(): return lambda: 1", site=False)
    worker.send(define(1, blob(b"cm\nf\n.")))
    found = worker.ask(1).raised
    assert found["type"] == "evener.SerializationError"
    assert "has no cloudpickle)" in found["message"]


def test_what_pickle_does_not_know_goes_by_value(caller):
    worker = caller()
    function = worker.learn("def f(x):\n  class Local:\n    value = x\n  return Local(), lambda y: x + y")
    instance, add = worker.ask(function, 3).result
    assert (instance.value, add(4)) == (3, 7)


def test_an_exception_as_a_result_is_a_result(caller):
    worker = caller()
    outcome = worker.ask(worker.learn("def f(): return ValueError('x')"))
    assert repr(outcome.result) == "ValueError('x')"


def test_what_a_cancelled_call_lets_through_is_a_cancel(caller):
    worker = caller()
    outcome = worker.ask(worker.learn("import evener\ndef f(): raise evener.Cancelled"))
    assert (outcome.verb, outcome.payload) == (FAIL, b"")


def test_a_lowered_recursion_limit_is_no_obstacle(caller):
    worker = caller()
    function = worker.learn("import sys\ndef f(x):\n  sys.setrecursionlimit(40)\n  return f(x) if x else 1")
    assert worker.ask(function, 1).raised["type"] == "RecursionError"
    assert worker.ask(function, 0).result == 1
