"""What a remote function raises, and what comes of it at the caller."""

import concurrent.futures
import os
import pickle
import sys
import traceback

import evener
import pytest

from functions import work

NEW = sys.version_info >= (3, 11)


class Own(Exception):
    """Of this module, which workers can import."""


class WithArguments(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"{code}: {hint}")
        self.code = code
        self.hint = hint

    def __reduce__(self):
        return _with_arguments, (self.code, self.hint)


def _with_arguments(code, hint):
    return WithArguments(code, hint=hint)


class ForgetsItsArguments(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, code, hint):
        super().__init__(f"{code}: {hint}")


def _raise(error):
    raise error


def _failure(remote, function, *args):
    """What `run` and a future raise, which is the same."""
    future = remote(function, output="capture").submit(*args)
    error = future.exception(30)
    with pytest.raises(type(error)) as caught:
        remote(function, output="capture").run(*args)
    assert repr(caught.value) == repr(error)
    return caught.value


def _shown(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("wrong"),
        KeyError("key"),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        SystemExit("bye"),
        SystemExit(3),
        SystemExit(),
        KeyboardInterrupt(),
        GeneratorExit(),
        RecursionError("deep"),
        BaseException("base"),
        AssertionError(),
        concurrent.futures.CancelledError(),
        TimeoutError("late"),
        ImportError("none", name="n", path="p"),
        evener.Abort(400, "why"),
        evener.EngineLost("as raised by somebody"),
        evener.RemoteError("a.B", "said", "text"),
        Own("own"),
        WithArguments(3, hint="h"),
    ],
    ids=repr,
)
def test_an_exception_comes_back_as_its_own_type(remote, error):
    found = _failure(remote, _raise, error)
    assert type(found) is type(error)
    assert found.args == error.args
    assert str(found) == str(error)
    kept = {name: value for name, value in vars(found).items() if name not in ("stdout", "stderr")}
    assert {key: value for key, value in kept.items() if not isinstance(value, type(error))} == vars(error)
    assert isinstance(found.__cause__, evener.RemoteTraceback)
    # The worker is none the worse for it.
    assert remote(work.square).run(2) == 4


def test_its_traceback_is_that_of_the_worker(remote):
    def outer():
        inner()

    def inner():
        raise Own("from inside")

    error = _failure(remote, outer)
    shown = _shown(error)
    assert shown.count("Own: from inside") == 2
    assert "The above exception was the direct cause" in shown
    text = str(error.__cause__)
    assert 'inner\n    raise Own("from inside")' in text
    assert "_worker.py" not in text
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-2:] == ["outer", "inner"]
    assert {frame.filename for frame in traceback.extract_tb(error.__traceback__)[-2:]} == {__file__}


def test_chains_come_along(remote):
    def fail():
        try:
            try:
                1 / 0  # noqa: B018
            except ZeroDivisionError:
                _raise(KeyError("in the handler"))
        except KeyError as error:
            raise Own("at last") from error

    error = _failure(remote, fail)
    cause = error.__cause__
    assert type(error) is Own
    assert type(cause) is KeyError
    assert type(cause.__context__) is ZeroDivisionError
    assert isinstance(cause.__context__.__cause__, evener.RemoteTraceback)
    text = str(cause.__context__.__cause__)
    assert text.index("ZeroDivisionError") < text.index("KeyError") < text.index("Own: at last")


def test_a_suppressed_context_stays_suppressed(remote):
    def fail():
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            raise Own("alone") from None

    error = _failure(remote, fail)
    assert error.__suppress_context__
    assert "ZeroDivisionError" not in _shown(error)


@pytest.mark.skipif(not NEW, reason="notes and groups came with Python 3.11")
def test_notes_and_groups_come_along(remote):
    def fail():
        error = Own("noted")
        error.add_note("a note")
        raise ExceptionGroup("several", [error, ValueError("another"), ExceptionGroup("inner", [KeyError(1)])])

    error = _failure(remote, fail)
    assert type(error) is ExceptionGroup
    assert error.message == "several"
    own, value, inner = error.exceptions
    assert (type(own), own.__notes__, value.args, inner.exceptions[0].args) == (Own, ["a note"], ("another",), (1,))
    matching, rest = error.split(ValueError)
    assert (len(matching.exceptions), len(rest.exceptions)) == (1, 2)


def _make_unpicklable():
    import threading  # noqa: PLC0415

    error = Own("holds a lock")
    error.lock = threading.Lock()
    raise error


def _make_unreducible():
    class Refuses(Exception):
        def __reduce__(self):
            raise RuntimeError("I am not for pickling")

    raise Refuses("refused")


def _make_unimportable():
    import types  # noqa: PLC0415

    module = types.ModuleType("only_in_the_worker")
    sys.modules["only_in_the_worker"] = module
    exec("class There(Exception): pass", module.__dict__)
    raise module.There("from there")


@pytest.mark.parametrize(
    ("function", "args", "type_name", "message"),
    [
        (_make_unpicklable, (), f"{__name__}.Own", "holds a lock"),
        (_make_unreducible, (), "Refuses", "refused"),
        (_make_unimportable, (), "only_in_the_worker.There", "from there"),
        (_raise, None, f"{__name__}.ForgetsItsArguments", "7: hint"),
    ],
    ids=["unpicklable", "unreducible", "unimportable", "forgetful"],
)
def test_an_exception_that_cannot_come_back_is_told_as_text(remote, function, args, type_name, message):
    if args is None:

        def function():
            raise ForgetsItsArguments(7, "hint")

        args = ()
    error = _failure(remote, function, *args)
    assert type(error) is evener.RemoteError
    assert error.type_name.endswith(type_name)
    assert error.message == message
    assert message in error.remote_traceback
    assert f"{type_name}: {message}" in str(error)
    assert "It cannot be raised as its own type: " in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (evener.RemoteError, str(error))


@pytest.mark.parametrize("hook", ["__str__", "__repr__", "__reduce__", "__getstate__", "__eq__", "__getattribute__"])
@pytest.mark.parametrize("how", ["Exception", "SystemExit", "KeyboardInterrupt"])
def test_an_exception_whose_own_code_raises_is_still_told(remote, hook, how):
    namespace = {"__name__": "__main__"}
    exec(
        f"class Hostile(Exception):\n    def {hook}(self, *args):\n        raise {how}('of the hook')\n"
        "def fail():\n    raise Hostile('hostile')\n",
        namespace,
    )
    future = remote(namespace["fail"], output="capture").submit()
    error = future.exception(20)
    assert error is not None
    assert "Hostile" in type(error).__name__ or "Hostile" in error.type_name
    assert remote(work.square).run(3) == 9


def test_an_exception_in_a_circle_comes_back(remote):
    def fail():
        first, second = Own("first"), Own("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    error = _failure(remote, fail)
    assert error.args == ("first",)
    assert error.__cause__.args == ("second",)
    assert "second" in _shown(error)


def test_an_endless_recursion_is_a_recursion_error_with_a_short_traceback(remote):
    def deeper(n):
        return deeper(n + 1) + 1

    error = _failure(remote, deeper, 0)
    assert type(error) is RecursionError
    assert len(_shown(error)) < 100_000
    assert remote(work.square).run(3) == 9


def test_a_very_large_exception_comes_whole(remote):
    error = _failure(remote, lambda: _raise(Own("x" * 3_000_000)))
    assert error.args == ("x" * 3_000_000,)


@pytest.mark.parametrize("code", [None, 0, 3, "a text"])
def test_sys_exit_raises_and_does_not_exit(engine, code):
    before = engine.pids()
    future = engine.function(sys.exit).submit(code)
    error = future.exception(20)
    assert type(error) is SystemExit
    assert error.code == code
    assert future.worker in before
    assert engine.pids() == before


def test_abort_is_an_exception_like_others(remote):
    def fail():
        raise evener.Abort(418, "a teapot")

    error = _failure(remote, fail)
    assert type(error) is evener.Abort
    assert (error.status, "teapot" in str(error)) == (418, True)


def test_response_and_goto_are_values_like_others(remote):
    response = remote(lambda: evener.Response("body", status=201)).run()
    assert (type(response), response.body, response.status) == (evener.Response, "body", 201)
    goto = remote(lambda: evener.Goto("elsewhere", [1])).run()
    assert (type(goto), goto.target, goto.value) == (evener.Goto, "elsewhere", [1])


def test_an_exception_raised_again_here_keeps_the_remote_traceback(remote):
    def fail():
        raise Own("first")

    try:
        try:
            remote(fail, output="capture").run()
        except Own as error:
            raise LookupError("here") from error
    except LookupError as error:
        shown = _shown(error)
    assert "RemoteTraceback" in shown
    assert shown.index('raise Own("first")') < shown.index("LookupError: here")


def test_the_same_error_raised_twice_by_a_future_grows_no_longer(remote):
    future = remote(_raise, output="capture").submit(Own("once"))
    lengths = []
    for _ in range(5):
        with pytest.raises(Own) as caught:
            future.result(20)
        lengths.append(len(str(caught.value.__cause__)))
    assert len(set(lengths)) == 1
    assert os.getpid() != future.worker
