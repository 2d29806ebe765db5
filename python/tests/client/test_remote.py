"""Exceptions that were raised elsewhere."""

from __future__ import annotations

import concurrent.futures
import pickle
import traceback

import pytest

import evener
from client import fake


class Custom(Exception):
    def __init__(self, place, why):
        super().__init__(place, why)
        self.place = place


class Picky(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one, two):
        super().__init__(one)


def raise_deep(error):
    raise error


@evener.function(output="capture")
def fails(error):
    raise_deep(error)


@evener.function
def chains(how):
    try:
        raise KeyError("first")  # noqa: TRY301
    except KeyError as first:
        if how == "cause":
            raise ValueError("second") from first
        if how == "context":
            raise ValueError("second")  # noqa: B904
        raise ValueError("second") from None


def caught(call, *arguments):
    try:
        call.run(*arguments)
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def test_an_exception_comes_back_as_its_own_type_with_the_remote_traceback_as_cause(node):
    error = caught(fails, Custom("here", "why"))
    assert (type(error), error.args, error.place) == (Custom, ("here", "why"), "here")
    assert isinstance(error.__cause__, evener.RemoteTraceback)
    assert "in raise_deep" in str(error.__cause__)
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert shown.index("raise_deep") < shown.index("direct cause")


def test_its_traceback_shows_the_remote_frames(node):
    error = caught(fails, ValueError("x"))
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-2:] == ["fails", "raise_deep"]
    assert names[0] == "caught"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError, BaseException])
def test_whatever_a_function_raises_is_raised(node, kind):
    assert type(caught(fails, kind("x"))) is kind


def test_a_chain_stays_a_chain(node):
    error = caught(chains, "cause")
    assert type(error.__cause__) is KeyError
    assert type(error.__cause__.__cause__) is evener.RemoteTraceback
    error = caught(chains, "context")
    assert (error.__cause__, error.__suppress_context__) == (None, False)
    assert type(error.__context__) is KeyError
    assert type(error.__context__.__cause__) is evener.RemoteTraceback
    error = caught(chains, "none")
    assert type(error.__cause__) is evener.RemoteTraceback
    assert error.__suppress_context__
    assert type(error.__context__) is KeyError


def test_a_chain_in_a_circle_comes_back(node):
    first, second = ValueError("1"), ValueError("2")
    first.__context__, second.__context__ = second, first
    blob = fake.blob_of(first)
    from evener._remote import exception_of

    made = exception_of(blob)
    assert made.__context__.__context__ is made
    assert isinstance(made.__context__.__cause__, evener.RemoteTraceback)


def test_an_exception_that_cannot_travel_is_a_remote_error(node):
    error = caught(fails.options(), Custom("a", "b")) and caught(raises_picky)
    assert type(error) is evener.RemoteError
    assert error.type_name == f"{__name__}.Picky"
    assert error.message == "a"
    assert "raises_picky" in error.remote_traceback
    assert "Picky: a" in str(error)
    assert "__init__() missing" in str(error)
    assert isinstance(error, evener.EvenerError)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.type_name, copy.message, str(copy)) == (error.type_name, error.message, str(error))


@evener.function
def raises_picky():
    raise Picky("a", "b")


def test_an_exception_whose_class_is_not_to_be_found_here_is_a_remote_error():
    from evener._remote import exception_of

    fields = pickle.loads(fake.blob_of(ValueError("x")))
    fields["chain"][0].update(pickled=b"cnowhere\nMissing\n.", type="nowhere.Missing", message="gone")
    error = exception_of(pickle.dumps(fields))
    assert type(error) is evener.RemoteError
    assert str(error).startswith("nowhere.Missing: gone\n")
    assert "No module named 'nowhere'" in str(error)


@pytest.mark.parametrize("blob", [b"", b"garbage", pickle.dumps({"chain": []}), pickle.dumps(3)])
def test_a_blob_that_cannot_be_read_is_an_error_and_not_the_end(blob):
    from evener._remote import exception_of

    assert type(exception_of(blob)) is evener.SerializationError


@evener.function
def dies():
    fake.die()


@evener.function
def overruns():
    fake.overrun()


@evener.function
def unpicklable():
    return (n for n in ())


def test_a_dead_worker_is_a_broken_executor_with_its_certificate(node):
    error = caught(dies)
    assert type(error) is evener.WorkerDied
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    assert (error.certificate, error.code, error.stdout) == ("exit code 1", "worker-died", "")


def test_a_call_out_of_time_is_a_timeout_error(node):
    error = caught(overruns)
    assert type(error) is evener.CallTimeout
    assert isinstance(error, TimeoutError)
    assert isinstance(error, concurrent.futures.TimeoutError)
    assert isinstance(overruns.submit().exception(10), evener.CallTimeout)


def test_a_result_that_cannot_travel_is_a_serialization_error(node):
    error = caught(unpicklable)
    assert type(error) is evener.SerializationError
    assert isinstance(error, (pickle.PicklingError, TypeError))
    assert "result cannot be pickled" in str(error)


class OnlyThere:
    def __reduce__(self):
        return _explode, ()


def _explode():
    raise ImportError("not here")


@evener.function
def returns_only_there():
    return OnlyThere()


def test_a_result_that_cannot_be_unpickled_here_says_so(node):
    for error in (caught(returns_only_there), returns_only_there.submit().exception(10)):
        assert type(error) is evener.SerializationError
        assert "'returns_only_there' cannot be unpickled here: ImportError: not here" in str(error)
    with pytest.raises(evener.SerializationError):
        list(returns_only_there.starmap([()]))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("stage-broken", evener.PoolUnavailable),
        ("unknown-pool", evener.UnknownPool),
        ("python-mismatch", evener.PythonMismatch),
        ("draining", evener.EngineLost),
        ("engine-lost", evener.EngineLost),
        ("result-too-large", evener.EvenerError),
        ("cancelled", concurrent.futures.CancelledError),
    ],
)
def test_each_problem_has_its_error(code, kind):
    from evener._remote import failure_of

    error = failure_of((1, 3, code, "what happened", "", False, 0, 1))
    assert type(error) is kind
    assert str(error) == "what happened"
    if isinstance(error, evener.EvenerError):
        assert error.code == code
