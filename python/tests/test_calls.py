"""A worker that does calls of functions: what is sent to it, and what comes back."""

from __future__ import annotations

import functools
import json
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest

from conftest import (
    AHEAD,
    BYE,
    BYTES,
    CALL,
    CALLS,
    CANCEL,
    CANCELLED,
    FAIL,
    FUNCTION,
    JOB,
    JSON,
    LIMIT,
    MEMORY,
    NEXT,
    NO_JOB,
    PART,
    PYTHON,
    RAISED,
    READY,
    RECALL,
    RETURNED,
    RUNTIME,
    SOURCES,
    blob,
    call,
    calls,
    define,
    forget,
    frame,
    job,
    script,
)

SAME = "def f(value): return value"

# Takes as long as it is told, and remembers which calls it has begun.
WORK = """
import time
from pathlib import Path
begun = []
def f(name, sleep=0, compute=0):
    begun.append(name)
    print(name)
    end = time.perf_counter() + compute
    while time.perf_counter() < end:
        pass
    time.sleep(sleep)
    return name
def seen():
    return begun
"""


# Starting


def test_ready_says_that_it_does_calls(caller, start):
    worker = start("", "--functions", ready=False)
    first = worker.frame()
    assert first.kind == READY
    expected = subprocess.run([PYTHON, "-V"], stdout=subprocess.PIPE, check=True, text=True).stdout.split()[1]
    assert first.extension == {
        "protocol": 1,
        "runtime": f"python {expected}",
        "context": False,
        "functions": True,
        "python": ".".join(expected.split(".")[:2]),
    }


@pytest.mark.parametrize(
    "arguments", [["--functions", "m:f"], ["--functions", "--functions"], ["m:f", "--sys-path", "/x"], ["--sys-path"]]
)
def test_a_wrong_command_line_shows_both_ways(arguments):
    done = subprocess.run([PYTHON, str(RUNTIME), *arguments], stderr=subprocess.PIPE, timeout=15, check=False)
    assert done.returncode == 2
    assert b"MODULE:ATTRIBUTE [--path DIR] [--batch | --threads N | --concurrency N]\n" in done.stderr
    assert b"--functions [--path DIR]... [--sys-path DIR]..." in done.stderr


def test_folders_come_first_in_their_order(caller, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here.py").write_text(f"name = {name!r}")
    worker = caller("--path", str(tmp_path / "two"), f"--path={tmp_path / 'one'}")
    found, path = worker.ask(worker.learn("import sys\ndef f():\n  import here\n  return here.name, sys.path")).result
    assert found == "two"
    assert path[:3] == [str(tmp_path), str(tmp_path / "two"), str(tmp_path / "one")]
    assert str(RUNTIME.parent) not in path


def test_a_path_takes_the_place_of_the_path(caller, tmp_path):
    usual = [entry for entry in sys.path if entry]
    given = [word for entry in ["", *usual, "/nonesuch"] for word in ("--sys-path", entry)]
    worker = caller(*given)
    path = worker.ask(worker.learn("import sys\ndef f(): return sys.path")).result
    assert path == [str(tmp_path), "", *usual, "/nonesuch"]


def test_modules_beside_the_caller_do_not_get_in_the_way(caller, tmp_path):
    for name in ("pickle", "traceback", "ctypes", "fcntl", "logging", "linecache"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not this one')")
    worker = caller(site=False)
    worker.send(define(1, blob(pow)))
    assert worker.ask(1, 2, 10).result == 1024
    assert worker.ask(1, 0, -1).raised["type"] == "ZeroDivisionError"


# Calls


def test_a_call_brings_what_the_function_returns(caller):
    worker = caller()
    function = worker.learn("def f(*args, **kwargs): return args, kwargs")
    worker.send(call(function, 1, "two", keywords={"three": [4]}, job=2**63 + 5, attempt=2**32 - 1))
    outcome = worker.outcome()
    assert (outcome.job, outcome.attempt, outcome.extension) == (2**63 + 5, 2**32 - 1, {})
    assert outcome.result == ((1, "two"), {"three": [4]})
    assert 0 < outcome.nanoseconds < 10**10
    assert worker.ask(function).result == ((), {})
    assert worker.ask(function, keywords={}).result == ((), {})


@pytest.mark.parametrize(
    "value",
    [None, 0, True, "", "grüß\ud800", b"\0", float("nan"), {1, 2}, 1 << 99, range(3), 2 + 3j, [None] * 10_000],
    ids=lambda value: type(value).__name__,
)
def test_values_of_all_kinds_come_and_go(caller, value):
    worker = caller(granted=True)
    function = worker.learn(SAME)
    found = worker.ask(function, value).result
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_classes_of_the_caller_come_and_go_by_value(caller):
    text = """
    class Horse:
        def __init__(self, name): self.name = name
        def __eq__(self, other): return type(self) is type(other) and self.name == other.name
        __hash__ = None
    def f(horse):
        assert isinstance(horse, Horse)
        assert not hasattr(__import__("__main__"), "_Link")
        return Horse(horse.name + "!")
    """
    space = script(text)
    worker = caller()
    worker.send(define(1, blob(space["f"])))
    for _ in range(2):
        worker.send(job(cloudpickle.dumps(((space["Horse"]("Ann"),), None)), BYTES, verb=CALL, function=1))
        assert worker.outcome().result == space["Horse"]("Ann!")


def test_functions_of_modules_go_by_name(caller):
    worker = caller(source="import os\ndef f(x): return x * 2, __name__\ndef g(): return f")
    by_name = pickle.dumps(os.getpid)
    worker.send(define(1, blob(b"cm\nf\n.")), define(2, blob(by_name)), define(3, blob(b"cm\ng\n.")))
    assert worker.ask(1, 4).result == (8, "m")
    assert worker.ask(2).result == worker.process.pid
    assert worker.ask(3).payload.endswith(b"\x8c\x01m\x94\x8c\x01f\x94\x93\x94.")


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (len, ("abc",), 3),
        (functools.partial(pow, 2), (3,), 8),
        (str.upper, ("x",), "X"),
        ("x".join, (["a", "b"],), "axb"),
        (dict, ([(1, 2)],), {1: 2}),
        (lambda x: [x for _ in "ab"], (5,), [5, 5]),
    ],
)
def test_whatever_can_be_called_is_a_function(caller, function, arguments, result):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        body = blob(function)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    worker = caller()
    worker.send(define(1, body))
    assert worker.ask(1, *arguments).result == result


def test_a_function_is_made_once_and_keeps_its_globals(caller):
    worker = caller()
    function = worker.learn("count = 0\ndef f():\n  global count\n  count += 1\n  return count")
    assert [worker.ask(function).result for _ in range(3)] == [1, 2, 3]
    # Another number is another function.
    other = worker.learn("count = 5\ndef f():\n  global count\n  count += 1\n  return count")
    assert [worker.ask(other).result, worker.ask(function).result] == [6, 4]


def test_modules_are_imported_into_the_globals_first(caller):
    worker = caller(source="name = 'm'")
    text = "def f(x): return np.loads(np.dumps(x)), mine.name, os.path.join('a', 'b')"
    function = worker.learn(text, modules=[("np", "json"), ("mine", "m"), ("os.path", "os.path"), ("os", "os")])
    assert worker.ask(function, [1]).result == ([1], "m", "a/b")
    function = worker.learn(text, modules=[("np", "nonesuch_module")])
    for _ in range(2):
        found = worker.ask(function, [1]).raised
        assert (found["type"], found["message"]) == ("ModuleNotFoundError", "No module named 'nonesuch_module'")
    # What cannot have globals does not mind.
    worker.send(define(99, blob(len, modules=[("np", "json")])))
    assert worker.ask(99, "ab").result == 2


def test_the_main_module_is_nobodys_script(caller):
    worker = caller()
    found = worker.ask(
        worker.learn(
            """
            import sys, __main__
            def helper(): pass
            def f():
                found = __main__.helper is helper, hasattr(__main__, "nonesuch"), hasattr(__main__, "__file__")
                return sorted(vars(__main__)), __name__, found, sys.argv[1:]
            """
        )
    ).result
    assert found == (
        ["__doc__", "__loader__", "__name__", "__package__", "__spec__"],
        "__main__",
        (True, False, False),
        [],
    )


# Functions


def test_a_large_function_comes_in_parts(caller):
    worker = caller(granted=True)
    data = os.urandom(3 * LIMIT)
    frames = define(1, blob(script("def f(x): return len(data), x")["f"], data=data))
    # Other frames may stand between the parts.
    worker.send(frames[: 40 + LIMIT], frame(CANCEL, job=NO_JOB, attempt=0), frame(RECALL, job=9), frames[40 + LIMIT :])
    assert worker.ask(1, 2).raised["type"] == "NameError"
    text = f"data = {data!r}\ndef f(x): return len(data), x"
    frames = define(2, blob(script(text)["f"]))
    randomness = random.Random(1)
    while frames:
        count = randomness.choice([1, 40, 41, 70_000, 300_000])
        worker.send(frames[:count])
        frames = frames[count:]
    assert worker.ask(2, 3).result == (len(data), 3)


def test_a_function_comes_while_another_runs(caller):
    worker = caller(granted=True)
    slow = worker.learn(WORK)
    worker.send(call(slow, "slow", 0.3))
    assert worker.line() == "slow\n"
    quick = worker.learn(SAME)
    worker.send(call(quick, 5, job=8), forget(slow))
    assert [worker.outcome().result, worker.outcome().result] == ["slow", 5]


def test_a_forgotten_function_is_still_there_for_the_calls_before(caller):
    worker = caller(granted=True)
    text = """
    import os, weakref
    class Witness: pass
    witness = Witness()
    def f():
        weakref.finalize(witness, os.write, 1, b"gone\\n")
        return 1
    """
    function = worker.learn(text)
    worker.send(call(function) + call(function, job=8) + forget(function) + forget(function) + forget(123))
    assert [worker.outcome().result, worker.outcome().result] == [1, 1]
    # Its globals are gone with it, once something else was called and its circles were collected.
    other = worker.learn("import gc\ndef f(): gc.collect()")
    assert worker.ask(other).result is None
    assert worker.line() == "gone\n"
    worker.send(call(function))
    code, _, errors = worker.gone()
    assert code == 2
    assert "a call of the function 101, which is not there" in errors


def test_an_initializer_runs_once_for_each_key(caller):
    worker = caller()
    initializer = script("import os\ndef begin(name): os.environ['BEGUN'] = os.environ.get('BEGUN', '') + name")[
        "begin"
    ]
    text = "import os\ndef f(): return os.environ['BEGUN']"
    for key, expected in [("a", "a"), ("b", "ab"), ("a", "ab"), (None, "ab"), (None, "ab")]:
        function = worker.learn(text, initializer=(initializer, (key or "",)), key=key)
        assert [worker.ask(function).result for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize("statement", ["raise ValueError('no model')", "import sys; sys.exit(3)", "import nonesuch"])
def test_an_initializer_that_fails_fails_every_call_of_its_key(caller, statement):
    worker = caller()
    initializer = script(f"def begin():\n  print('begun')\n  {statement}")["begin"]
    first, second = (worker.learn(SAME, initializer=(initializer, ()), key="k") for _ in range(2))
    for function in (first, first, second):
        found = worker.ask(function, 1).raised
        assert found["type"] == "evener.InitializerFailed"
        assert "the initializer failed: " in found["message"]
        wrapper, cause = found["chain"]
        assert (wrapper["pickled"], wrapper["cause"]) == (None, 1)
        assert cause["type"] in ("ValueError", "SystemExit", "ModuleNotFoundError")
        assert type(pickle.loads(cause["pickled"])).__name__ == cause["type"]
        assert RUNTIME.name not in found["traceback"]
    worker.send(calls(first, [1, 2]))
    assert worker.outcome().raised["type"] == "evener.InitializerFailed"
    assert worker.ask(worker.learn(SAME), 1).result == 1
    assert worker.leave()[1] == "begun\n"


def test_a_cancelled_initializer_has_not_failed(caller):
    worker = caller()
    text = """
    import evener
    def begin():
        print("begun")
        ctx = evener.context()
        while ctx.tries == 1:
            ctx.check()
    """
    function = worker.learn(SAME, initializer=(script(text)["begin"], ()), key="k")
    worker.send(call(function, 1))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number) == (FAIL, CANCELLED)
    assert worker.ask(function, 1, number=2).result == 1


BAD_FUNCTIONS = {
    "garbage": (b"garbage", "UnpicklingError", ""),
    "nothing": (b"", "EOFError", ""),
    "another format": (blob(len, format=2), "evener.SerializationError", "format 2; this worker knows 1"),
    "a body that does not unpickle": (blob(b"garbage"), "UnpicklingError", ""),
    "a module that is not there": (blob(b"cnonesuch_module\nf\n."), "ModuleNotFoundError", "No module named 'nonesuch"),
    "a name that is not there": (blob(b"cjson\nnonesuch\n."), "AttributeError", "nonesuch"),
    "no function": (blob(17), "TypeError", "f is a int, which cannot be called"),
}


@pytest.mark.parametrize("name", BAD_FUNCTIONS)
def test_a_function_that_does_not_load_fails_its_calls(caller, name):
    body, kind, message = BAD_FUNCTIONS[name]
    worker = caller(granted=True)
    worker.send(define(1, body))
    for _ in range(2):
        found = worker.ask(1).raised
        assert found["type"].endswith(kind)
        assert message in found["message"]
        assert RUNTIME.name not in found["traceback"]
        worker.send(calls(1, [1, 2, 3]))
        assert worker.outcome().raised["type"].endswith(kind)
    assert worker.ask(worker.learn(SAME), 1).result == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
def test_an_exception_of_loading_says_so(caller):
    worker = caller()
    worker.send(define(1, blob(b"cnonesuch_module\nf\n.", name="mine")))
    found = worker.ask(1).raised
    assert "The function mine could not be loaded in the worker (" in found["traceback"]
    (note,) = pickle.loads(found["chain"][0]["pickled"]).__notes__
    assert note.startswith("The function mine")


def test_without_cloudpickle_it_says_what_to_install(caller):
    worker = caller(site=False)
    function = worker.learn("def f(): pass")
    found = worker.ask(function).raised
    assert found["type"] == "ModuleNotFoundError"
    assert "-m pip install cloudpickle" in found["message"]
    assert os.path.basename(PYTHON) in found["message"]  # noqa: PTH119
    # What goes by name needs none.
    worker.send(define(2, blob(len)))
    assert worker.ask(2, "abc").result == 3


# Arguments


def test_arguments_that_do_not_unpickle_fail_the_call(caller):
    worker = caller()
    function = worker.learn("def f(*args): print('begun')", "f")
    payloads = (
        (b"cnonesuch_module\nf\n.", "No module named 'nonesuch_module'"),
        (b"", "EOFError"),
        (pickle.dumps((1, 2, 3)), "too many values"),
        (
            cloudpickle.dumps(((script("class A:\n  def __reduce__(self): return int, ('x',)")["A"](),), None)),
            "invalid",
        ),
    )
    for payload, message in payloads:
        worker.send(job(payload, BYTES, verb=CALL, function=function))
        found = worker.outcome().raised
        assert found["type"] == "evener.SerializationError"
        assert "the arguments of f cannot be unpickled in the worker: " in found["message"]
        assert message in found["message"]
        assert [node["cause"] for node in found["chain"][:2]] == [1, None]
    assert worker.leave()[1] == ""


@pytest.mark.parametrize("size", [60_000, 70_000, LIMIT - 50, LIMIT, LIMIT + 1, 3 * LIMIT, (1 << 20) + 17, 20_000_000])
@pytest.mark.parametrize("granted", [True, False])
def test_large_values_go_in_parts(caller, size, granted):
    worker = caller(granted=granted)
    function = worker.learn(SAME)
    payload = os.urandom(size)
    assert worker.ask(function, payload).result == payload
    assert worker.largest_part == min(size, LIMIT) or size < worker.largest_part <= LIMIT
    assert worker.ask(function, 1).result == 1


def test_a_large_exception_goes_in_parts(caller):
    worker = caller()
    function = worker.learn("def f(data): raise ValueError(data)")
    data = os.urandom(3 * LIMIT)
    outcome = worker.ask(function, data)
    assert pickle.loads(outcome.raised["chain"][0]["pickled"]).args == (data,)
    assert 3_000 < len(outcome.extension["message"]) <= 32_768


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_of_a_large_call_is_kept(caller):
    worker = caller()
    text = "def f(x):\n  with open('/proc/self/statm') as file: return int(file.read().split()[1]) * 4096\n"
    function = worker.learn(text)
    worker.ask(function, 1)
    before = worker.ask(function, 1).result
    during = worker.ask(function, b"x" * 200_000_000).result
    after = worker.ask(function, 1).result
    # The argument alone: not what it was unpickled from.
    assert 190_000_000 < during - before < 300_000_000
    assert after - before < 30_000_000


def test_calls_may_arrive_in_any_pieces(caller):
    worker = caller()
    function = worker.learn("def f(data, name): return len(data), name")
    randomness = random.Random(23)
    for turn in range(60):
        size = randomness.choice([0, 1, 30, 4_000, 65_400, 65_496, 70_000, 300_000])
        message = call(function, bytes(size), turn, job=turn)
        message = frame(CANCEL, job=10_000) + message if turn % 4 == 0 else message
        while message:
            count = randomness.choice([1, 7, 40, 41, 65_536, len(message)])
            worker.send(message[:count])
            message = message[count:]
        outcome = worker.outcome()
        assert (outcome.job, outcome.result) == (turn, (size, turn))


# Groups


def test_a_group_is_done_item_by_item(caller):
    worker = caller()
    function = worker.learn("def f(x, y=1):\n  if x == y: raise ValueError(x)\n  return x * 10")
    worker.send(calls(function, [0, 1, 2, 1]))
    outcome = worker.outcome()
    results, failures = outcome.result
    assert results == [0, None, 20, None]
    assert [index for index, _ in failures] == [1, 3]
    for _, failure in failures:
        found = pickle.loads(failure)
        assert (found["type"], found["message"]) == ("ValueError", "1")
        assert repr(pickle.loads(found["chain"][0]["pickled"])) == "ValueError(1)"
        assert RUNTIME.name not in found["traceback"]
    assert outcome.nanoseconds > 0
    worker.send(calls(function, [(1, 2), (3, 3), (5,)], spread=True))
    results, failures = worker.outcome().result
    assert (results, [index for index, _ in failures]) == ([10, None, 50], [1])
    worker.send(calls(function, []))
    assert worker.outcome().result == ([], [])


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000, 100_000])
def test_a_group_of_any_size_is_in_order(caller, count):
    worker = caller(granted=True)
    function = worker.learn("def f(x): return x + 1 if x % 997 else 1 // 0")
    worker.send(calls(function, list(range(count))))
    results, failures = worker.outcome().result
    bad = list(range(0, count, 997))
    assert [index for index, _ in failures] == bad
    assert results == [None if x in set(bad) else x + 1 for x in range(count)]


def test_results_of_a_group_that_do_not_pickle_fail_by_themselves(caller):
    worker = caller()
    text = """
    import threading
    class Horse:
        pass
    def f(x):
        if x == 1: return threading.Lock()
        if x == 2: raise ValueError
        if x == 3: return {"a": [open("/dev/null")]}
        return Horse() if x == 4 else x
    """
    function = worker.learn(text)
    worker.send(calls(function, [0, 1, 2, 3, 4, 5]))
    results, failures = worker.outcome().result
    assert results[:4] == [0, None, None, None]
    assert (type(results[4]).__name__, results[5]) == ("Horse", 5)
    found = {index: pickle.loads(failure) for index, failure in failures}
    assert [found[index]["type"] for index in (1, 2, 3)] == [
        "evener.SerializationError",
        "ValueError",
        "evener.SerializationError",
    ]
    assert 'result["a"][0] is a _io.TextIOWrapper' in found[3]["message"]
    assert "the result of f cannot be pickled" in found[1]["message"]


def test_a_group_that_nobody_waits_for_stops(caller):
    for granted in (False, True):
        worker = caller(granted=granted)
        text = "import time\ndef f(x):\n  time.sleep(0.005)\n  if x == 20: print('twenty')\n  return x"
        function = worker.learn(text)
        worker.send(calls(function, list(range(4000))))
        assert worker.line() == "twenty\n"
        worker.send(frame(CANCEL))
        worker.socket.settimeout(5)
        outcome = worker.outcome()
        assert (outcome.verb, outcome.number) == (FAIL, CANCELLED)
        assert worker.ask(function, 1).result == 1


def test_an_item_that_sees_the_cancel_ends_its_group(caller):
    worker = caller()
    text = """
    import evener
    def f(x):
        if x == 1:
            raise evener.Cancelled
        if x == 2:
            print("begun")
            while True:
                evener.context().check()
        return x
    """
    function = worker.learn(text)
    # Where nobody has cancelled anything it is the item's own affair.
    worker.send(calls(function, [0, 1, 3]))
    results, failures = worker.outcome().result
    assert (results, [index for index, _ in failures]) == ([0, None, 3], [1])
    assert pickle.loads(failures[0][1])["type"] == "evener.Cancelled"
    worker.send(calls(function, [0, 1, 2, 3]))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number) == (FAIL, CANCELLED)


def test_what_leaves_python_is_an_items_own_affair(caller):
    worker = caller()
    text = """
    import sys
    def f(x):
        if x == 0: sys.exit(3)
        if x == 1: raise KeyboardInterrupt
        if x == 2: raise GeneratorExit
        if x == 3: raise StopIteration(4)
        if x == 4: return f(x)
        return x
    """
    function = worker.learn(text)
    worker.send(calls(function, list(range(6))))
    results, failures = worker.outcome().result
    assert results == [None] * 5 + [5]
    kinds = [pickle.loads(failure)["type"] for _, failure in failures]
    assert kinds == ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration", "RecursionError"]


# The context

CONTEXT = """
import evener, time
def f(what=None):
    ctx = evener.context()
    assert ctx is evener.context()
    if what == "log":
        ctx.log.info("hello")
        ctx.log.debug("quiet")
        return ctx.log.name
    if what == "wait":
        print("begun")
        while not ctx.cancelled():
            time.sleep(0.001)
        ctx.check()
    left = ctx.remaining()
    assert (ctx.deadline is None) == (left is None)
    return ctx.tries, left, ctx.cancelled(), ctx.job_id, ctx.request
"""


@pytest.mark.parametrize("installed", [True, False])
def test_the_context_is_that_of_the_call(caller, installed):
    worker = caller(env={"PYTHONPATH": str(SOURCES)} if installed else {})
    function = worker.learn(CONTEXT)
    for _ in range(2):
        assert worker.ask(function).result == (1, None, False, "", None)
        tries, left, *_ = worker.ask(function, number=3, nanoseconds=5 * 10**9).result
        assert tries == 3
        assert 4 < left <= 5
        worker.grant()
    assert worker.ask(function, "log").result == "f"
    worker.send(call(function, "wait"))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL, attempt=2), frame(CANCEL))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number, outcome.extension.get("type")) == (FAIL, CANCELLED, None)
    assert worker.ask(function).result == (1, None, False, "", None)
    assert worker.leave()[2] == "INFO f: hello\n"


def test_a_cancel_that_came_before_the_function_looked_is_seen(caller):
    worker = caller(granted=True)
    text = "import evener, time\ndef f():\n  print('begun')\n  time.sleep(0.3)\n  return evener.context().cancelled()"
    function = worker.learn(text)
    worker.send(call(function, job=1), call(function, job=2))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL, job=1))
    assert [worker.outcome().result, worker.outcome().result] == [True, False]


def test_threads_have_the_context_of_the_call_at_hand(caller):
    for granted in (False, True):
        worker = caller(granted=granted)
        text = """
        import evener, threading, time
        ending, seen, threads = [], [], []
        def watch():
            ctx = evener.context()
            while not ending:
                seen.append(ctx.cancelled())
                now = evener.context()
                seen.append(now is not None and now.cancelled())
        def f(x):
            if not threads:
                threads.append(threading.Thread(target=watch))
                threads[0].start()
            if x == "last":
                ending.append(True)
                threads[0].join()
                return any(seen), len(seen) > 100
            return x
        """
        function = worker.learn(text)
        for turn in range(300):
            assert worker.ask(function, turn, job=turn).result == turn
        time.sleep(0.05)
        assert worker.ask(function, "last").result == (False, True)


def test_there_is_no_context_in_a_stage(start):
    worker = start("import evener\ndef f(value): return evener.context() is None")
    assert worker.do(b"1").value is True


@pytest.mark.parametrize("installed", [True, False])
def test_the_package_is_there(caller, installed, tmp_path):
    # What a worker needs of the packages of this Python, and nothing else of them.
    (tmp_path / "cloudpickle").symlink_to(Path(cloudpickle.__file__).parent)
    paths = [str(tmp_path), str(SOURCES)] if installed else [str(tmp_path)]
    worker = caller(env={"PYTHONPATH": os.pathsep.join(paths)}, site=False)
    text = """
    import evener, evener._worker, importlib.util, pickle, sys
    from evener._worker import _Local
    def f():
        local = pickle.loads(pickle.dumps(_Local(len)))
        assert sys.modules["evener._worker"] is evener._worker
        assert importlib.util.find_spec("evener._worker").name == "evener._worker"
        try:
            raise evener.Abort(404, "no horse")
        except evener.Abort as error:
            copy = pickle.loads(pickle.dumps(error))
        return local("abc"), local.run("ab"), copy.status, hasattr(evener, "__file__")
    """
    assert worker.ask(worker.learn(text)).result == (3, 2, 404, installed)


def test_decorated_functions_call_in_place(caller):
    sys.path.insert(0, str(SOURCES))
    from evener import _worker

    space = script("def g(x): return x + 1\ndef f(x): return [h(x), h.run(x), *h.map([x, x]), h.submit(x).result()]")
    space["h"] = _worker._Local(space["g"])
    worker = caller()
    worker.send(define(1, blob(space["f"])))
    assert worker.ask(1, 3).result == [4] * 5


# Jobs ahead


def test_calls_ahead_are_done_in_order(caller):
    worker = caller(granted=True)
    function = worker.learn("def f(x): return x")
    for turn in range(30):
        worker.send(b"".join(call(function, name, job=name, attempt=turn) for name in range(AHEAD + 1)))
        outcomes = [worker.outcome() for _ in range(AHEAD + 1)]
        assert [(outcome.job, outcome.attempt, outcome.result) for outcome in outcomes] == [
            (name, turn, name) for name in range(AHEAD + 1)
        ]


@pytest.mark.parametrize("way", ["sleep", "compute"])
def test_calls_that_wait_are_given_back_and_cancelled(caller, way):
    worker = caller(granted=True)
    function = worker.learn(WORK)
    worker.send(call(function, 1, job=1, keywords={way: 1.5}), *(call(function, n, job=n) for n in (2, 3, 4)))
    assert worker.line() == "1\n"
    sent = time.monotonic()
    large = call(function, b"x" * 3 * LIMIT, job=5)
    worker.send(frame(RECALL, job=3), frame(CANCEL, job=2), large[: 40 + LIMIT], frame(RECALL, job=5))
    outcomes = [worker.outcome() for _ in range(3)]
    assert time.monotonic() - sent < 1
    assert [(outcome.job, outcome.verb, outcome.number) for outcome in outcomes] == [
        (3, RETURNED, 0),
        (2, FAIL, CANCELLED),
        (5, RETURNED, 0),
    ]
    assert [worker.outcome().result for _ in range(2)] == [1, 4]


def test_the_deadline_runs_while_a_call_waits(caller):
    worker = caller(granted=True)
    text = "import evener, time\ndef f(pause):\n  time.sleep(pause)\n  return evener.context().remaining()"
    function = worker.learn(text)
    jobs = [call(function, 0.3), call(function, 0, nanoseconds=5 * 10**9), call(function, 0, nanoseconds=10**8)]
    worker.send(b"".join(jobs))
    left = [worker.outcome().result for _ in range(3)]
    assert left[0] is None
    assert 4 < left[1] <= 4.71
    assert left[2] == 0


@pytest.mark.parametrize(("rounds", "longest"), [(150, 0.003), (30, 0.06)])
def test_a_recall_that_races_with_the_beginning(caller, rounds, longest):
    worker = caller(granted=True)
    function = worker.learn("import time\ndef f(name, sleep=0):\n  time.sleep(sleep)\n  return name")
    randomness = random.Random(rounds)
    seen = {NEXT: 0, RETURNED: 0, FAIL: 0}
    name = 0
    for _ in range(rounds):
        length = randomness.uniform(0, longest)
        first, names = name, range(name + 1, name + 4)
        name += 4
        worker.send(call(function, first, length, job=first), *(call(function, other, job=other) for other in names))
        time.sleep(max(0, length + randomness.uniform(-0.001, 0.0005)))
        kinds = [randomness.choice([RECALL, RECALL, CANCEL]) for _ in names]
        worker.send(b"".join(frame(kind, job=other) for kind, other in zip(reversed(kinds), reversed(names))))
        outcomes = [worker.outcome() for _ in range(4)]
        assert sorted(outcome.job for outcome in outcomes) == [first, *names]
        for outcome in outcomes:
            seen[outcome.verb] += 1
            if outcome.verb == NEXT:
                assert outcome.result == outcome.job
            else:
                assert outcome.verb == (RETURNED if kinds[outcome.job - first - 1] == RECALL else FAIL)
    assert seen[RETURNED] > 0
    assert seen[NEXT] >= rounds


def test_groups_and_calls_ahead_mix(caller):
    worker = caller(granted=True)
    function = worker.learn("def f(x): return x")
    big = list(range(200_000))
    worker.send(calls(function, big, job=1), call(function, 2, job=2), calls(function, [3], job=3))
    assert worker.outcome().result == (big, [])
    assert [worker.outcome().result, worker.outcome().result] == [2, ([3], [])]


def test_bye_with_calls_held(caller):
    worker = caller(granted=True)
    function = worker.learn(WORK)
    worker.send(call(function, 1, 0.1, job=1), call(function, 2, job=2), call(function, 3, job=3), frame(BYE))
    worker.send(frame(RECALL, job=2))
    outcomes = {outcome.job: outcome for outcome in (worker.outcome() for _ in range(3))}
    assert outcomes[2].verb == RETURNED
    assert [outcomes[1].result, outcomes[3].result] == [1, 3]
    assert worker.gone()[0] == 0


def test_the_end_of_the_stream_with_calls_held(caller):
    worker = caller(granted=True)
    function = worker.learn(WORK)
    worker.send(call(function, 1, 0.3), call(function, 2, job=2))
    assert worker.line() == "1\n"
    assert worker.leave() == (0, "", "")


# Memory


@pytest.mark.parametrize("granted", [True, False])
def test_out_of_memory_says_so_and_leaves(caller, granted):
    worker = caller(granted=granted)
    function = worker.learn("def f():\n  print('much')\n  raise MemoryError('Unable to allocate 8 TiB')")
    outcome = worker.ask(function, job=99, attempt=3)
    assert (outcome.verb, outcome.number, outcome.job, outcome.attempt) == (FAIL, MEMORY, 99, 3)
    assert outcome.extension.pop("printed", None) == ([5, 0] if granted else None)
    assert outcome.extension == {"message": "Unable to allocate 8 TiB"}
    assert worker.frame().kind == BYE
    assert worker.gone()[0] == 1


# Broken messages

ONE = define(1, blob(len))

GARBAGE = {
    "a call of nothing": call(1, "abc"),
    "a call of another function": ONE + call(2, "abc"),
    "a call without a function": ONE + call(0, "abc"),
    "a call with an extension": ONE + frame(JOB, b"x", b"{}", content=BYTES, verb=CALL, function=1),
    "a call in JSON": ONE + frame(JOB, b"1", content=JSON, verb=CALL, function=1),
    "a call without content": ONE + frame(JOB, verb=CALL, function=1),
    "an unknown verb": ONE + frame(JOB, b"x", content=BYTES, verb=4, function=1),
    "a job of a stage": job(b"1"),
    "a job of a stage with a function": ONE + frame(JOB, b"1", content=BYTES, function=1),
    "a function twice": ONE + ONE,
    "a function without a number": frame(FUNCTION, b"x", content=BYTES, job=NO_JOB, attempt=0),
    "a function of a job": frame(FUNCTION, b"x", content=BYTES, job=1, attempt=0, function=1),
    "a function of an attempt": frame(FUNCTION, b"x", content=BYTES, job=NO_JOB, attempt=1, function=1),
    "a function in JSON": frame(FUNCTION, b"1", content=JSON, job=NO_JOB, attempt=0, function=1),
    "a function with an extension": frame(FUNCTION, b"1", b"{}", content=BYTES, job=NO_JOB, attempt=0, function=1),
    "a function of an unknown verb": frame(FUNCTION, b"", verb=2, job=NO_JOB, attempt=0, function=1),
    "a function forgotten with words": frame(FUNCTION, b"x", verb=1, job=NO_JOB, attempt=0, function=1),
    "a function between the parts of a call": ONE + call(1, b"x" * LIMIT)[: 40 + LIMIT] + define(2, blob(len)),
    "a call between the parts of a function": ONE + define(2, b"x" * LIMIT + b"y")[: 40 + LIMIT] + call(1, "x"),
    "a function between the parts of a function": define(2, b"x" * LIMIT + b"y")[: 40 + LIMIT] + ONE,
    "a PART of another function": define(2, b"x" * LIMIT + b"y")[: 40 + LIMIT]
    + frame(PART, b"y", job=NO_JOB, attempt=0, function=3),
    "a PART of a function for a call": ONE
    + call(1, b"x" * LIMIT)[: 40 + LIMIT]
    + frame(PART, b"y", job=NO_JOB, attempt=0, function=1),
    "a PART of a call with a function": ONE + call(1, b"x" * LIMIT)[: 40 + LIMIT] + frame(PART, b"y", function=1),
    "a CANCEL with a function": frame(CANCEL, function=1),
    "a BYE with a function": frame(BYE, function=1),
    "a call after BYE": ONE + frame(BYE) + call(1, "abc"),
    "an unknown kind": frame(12),
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("granted", [True, False])
def test_a_malformed_frame_ends_it(caller, name, granted):
    worker = caller(granted=granted)
    worker.send(GARBAGE[name])
    code, output, errors = worker.gone()
    assert (code, output) == (2, "")
    assert errors.startswith(("evener worker: the node sent a ", "evener worker: the node sent an "))
    assert errors.count("\n") == 1
    assert not worker.received


def test_a_group_has_the_verb_of_groups(caller):
    worker = caller()
    function = worker.learn(SAME)
    payload = pickle.dumps((False, [1]))
    worker.send(job(payload, BYTES, verb=CALLS, function=function))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.result) == (NEXT, ([1], []))
    worker.send(job(payload, BYTES, verb=CALL, function=function))
    assert worker.outcome().verb == RAISED
    assert json.dumps(outcome.extension) == "{}"
