"""Objects and habits that do not go well with processes: what comes of them is clear, and nobody else suffers."""

import os
import pickle
import re
import socket
import sys
import threading
import warnings

import evener
import pytest

from functions import work
from harness import until


@pytest.fixture(autouse=True)
def _worker_goes_on(engine):
    """Whatever a test does, the next call finds the same workers well."""
    before = engine.pids()
    yield
    for _ in range(4):
        future = engine.function(_print_and_return, output="capture").submit(3)
        assert future.result(20) == 9
        assert (future.stdout, future.stderr) == ("out 3\n", "err 3\n")
    assert engine.pids() == before


def _print_and_return(x):
    print("out", x)
    print("err", x, file=sys.stderr)
    return x * x


# Results


def _lock():
    return threading.Lock()


def _generator():
    return (x for x in ())


def _socket():
    return socket.socket()


def _file():
    return open(os.devnull)


def _nested():
    return {"deep": [1, {"lock": threading.Lock()}]}


def _refuses():
    class Refuses:
        def __reduce__(self):
            raise RuntimeError("not me")

    return Refuses()


def _deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("function", "naming"),
    [
        (_lock, "lock"),
        (_generator, "generator"),
        (_socket, "socket"),
        (_file, "TextIOWrapper|file"),
        (_nested, "lock"),
        (_refuses, "not me"),
        (_deep, "[Rr]ecursion|deep"),
    ],
)
def test_a_result_that_cannot_travel_is_a_clear_error(remote, function, naming):
    with pytest.raises(evener.SerializationError, match=naming) as caught:
        remote(function).run()
    assert function.__name__ in str(caught.value)
    [error] = remote(lambda _item: function()).map([1], return_exceptions=True)
    assert isinstance(error, evener.SerializationError)


def test_in_a_group_only_the_results_that_cannot_travel_fail(remote):
    def some(x):
        return threading.Lock() if x % 10 == 3 else x

    results = list(remote(some).map(range(100), chunksize=25, return_exceptions=True))
    for x, result in enumerate(results):
        assert isinstance(result, evener.SerializationError) if x % 10 == 3 else result == x


def test_lambdas_and_local_classes_are_results(remote):
    assert remote(lambda n: lambda x: x + n).run(3)(4) == 7

    def make():
        class Local:
            def hello(self):
                return "hello"

        return Local()

    assert remote(make).run().hello() == "hello"


class Unreadable:
    def __reduce__(self):
        return _only_in_the_worker, (os.getpid(),)


def _only_in_the_worker(pid):
    if pid != os.getpid():
        raise LookupError("made elsewhere")


def test_a_result_that_cannot_be_read_here_is_a_clear_error(remote):
    with pytest.raises(evener.SerializationError, match="made elsewhere") as caught:
        remote(lambda: Unreadable()).run()
    assert "cannot be unpickled here" in str(caught.value)


# Arguments


def test_an_argument_that_cannot_travel_is_named(remote):
    echo = remote(work.echo)
    with socket.socket() as one, open(os.devnull) as file:
        for bad, naming in [
            (threading.Lock(), "lock"),
            (one, "socket"),
            (file, "TextIOWrapper"),
            ((x for x in ()), "generator"),
            (threading.current_thread(), "lock|Thread"),
            ({"a": [threading.RLock()]}, "RLock"),
            (sys._getframe(), "frame"),
        ]:
            with pytest.raises(evener.SerializationError, match=naming) as caught:
                echo.run(1, bad)
            assert "argument number 2 of 'echo'" in str(caught.value)
            assert "What to do" in str(caught.value)
            with pytest.raises(evener.SerializationError, match=naming) as caught:
                echo.submit(name=bad)
            assert "'name'" in str(caught.value)
            with pytest.raises(TypeError):
                echo.run(bad)
            with pytest.raises(pickle.PicklingError):
                echo.run(bad)


def test_a_closure_over_what_cannot_travel_is_named_with_its_line(remote):
    lock = threading.Lock()

    def locked():
        with lock:
            return 1

    with pytest.raises(evener.SerializationError) as caught:
        remote(locked).run()
    text = str(caught.value)
    line = locked.__code__.co_firstlineno + 1
    assert "closure variable 'lock'" in text
    assert "_thread.lock" in text
    assert re.search(rf"test_awkward\.py:{line}\b", text)
    with socket.socket() as connection:
        table = {"first": [connection]}
        with pytest.raises(evener.SerializationError, match=r"closure variable 'table'.*'first'.*socket\.socket"):
            remote(lambda: table["first"]).run()


def test_a_closure_over_more_than_10_mebibytes_is_a_warning_that_names_it(remote):
    small, large = b"x" * 100, b"x" * (11 << 20)

    def total():
        return len(small) + len(large)

    counted = remote(total)
    with pytest.warns(UserWarning, match=r"'large'.*11\.0 MiB") as caught:
        assert counted.run() == 100 + (11 << 20)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It is sent once, and warned of once.
        assert counted.run() == 100 + (11 << 20)
        assert remote(lambda: len(small)).run() == 100


def test_an_argument_that_changes_its_mind_while_it_is_pickled_is_an_error(remote):
    class Fickle:
        def __reduce__(self):
            raise KeyError("not today")

    with pytest.raises(evener.SerializationError, match="not today"):
        remote(work.echo).run(Fickle())


def test_an_argument_that_cannot_be_unpickled_there_fails_its_call(remote):
    class Once:
        def __reduce__(self):
            return int, ("no number",)

    with pytest.raises(evener.SerializationError, match=r"arguments of echo cannot be unpickled.*no number"):
        remote(work.echo).run(Once())


def test_deep_arguments_are_an_error_and_not_a_crash(remote):
    with pytest.raises(evener.SerializationError):
        remote(work.echo).run(_deep())


# Habits


def test_closing_the_streams_is_the_functions_own_affair(remote):
    def close():
        print("before")
        sys.stdout.close()
        os.close(1)
        os.close(2)
        return "closed"

    future = remote(close, output="capture").submit()
    assert future.result(20) == "closed"
    assert future.stdout == "before\n"


def test_streams_that_are_turned_elsewhere_come_back(remote, tmp_path):
    target = str(tmp_path / "elsewhere")

    def turn():
        print("before")
        file = os.open(target, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        print("into the file")
        sys.stderr = None
        return "turned"

    future = remote(turn, output="capture").submit()
    assert future.result(20) == "turned"
    assert future.stdout == "before\n"
    assert (tmp_path / "elsewhere").read_text() == "into the file\n"


def test_standard_input_is_empty(remote):
    assert remote(lambda: sys.stdin.read()).run() == ""
    with pytest.raises(EOFError):
        remote(input).run()
    assert remote(lambda: os.read(0, 10)).run() == b""


def test_threads_left_behind_do_no_harm(remote, signs):
    def leave():
        def wait():
            signs.wait_for("go")

        threads = [threading.Thread(target=wait, daemon=place % 2 == 0) for place in range(4)]
        for thread in threads:
            thread.start()
        return threading.active_count()

    assert remote(leave).run() >= 5
    assert remote(work.square).run(3) == 9
    signs.open("go")


def test_a_fork_in_a_call_answers_once(remote, signs):
    def fork():
        child = os.fork()
        if child == 0:
            print("child")
            signs.note("child", os.getpid())
            os._exit(7)
        _, status = os.waitpid(child, 0)
        print("parent")
        return os.waitstatus_to_exitcode(status)

    future = remote(fork, output="capture").submit()
    assert future.result(20) == 7
    assert future.stdout.split() == ["child", "parent"]


@pytest.mark.parametrize("way", ["return", "raise", "exit"])
def test_a_forked_child_that_goes_on_is_not_the_worker(remote, signs, way):
    def fork():
        child = os.fork()
        if child == 0:
            signs.note("child", os.getpid())
            if way == "raise":
                raise ValueError("in the child")
            if way == "exit":
                sys.exit(3)
            return "child"
        os.waitpid(child, 0)
        return "parent"

    future = remote(fork, output="capture").submit()
    assert future.result(20) == "parent"
    [child] = signs.wait_notes("child")
    until(lambda: not os.path.exists(f"/proc/{child}"), "the end of the forked child")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_inside_a_call(remote, method):
    def pooled():
        import multiprocessing  # noqa: PLC0415

        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.map(work.square, range(10))

    assert remote(pooled).run() == [x * x for x in range(10)]


def test_a_program_that_is_left_running_holds_up_nobody(remote, signs):
    def leave():
        import subprocess  # noqa: PLC0415

        with open(signs.path("sleeper"), "w") as note:
            sleeper = subprocess.Popen(["sleep", "60"])
            note.write(f"{sleeper.pid}\n")
        sys.modules["sleeper_of_a_test"] = sleeper
        return sleeper.pid

    def stop():
        sleeper = sys.modules.pop("sleeper_of_a_test", None)
        if sleeper is not None:
            sleeper.kill()
            sleeper.wait()

    future = remote(leave, output="capture").submit()
    assert os.path.exists(f"/proc/{future.result(20)}")
    for _ in range(4):
        assert remote(work.square).run(3) == 9
    os.kill(future.result(), 9)
    until(lambda: not _alive(future.result()), "the end of the program")
    evener.wait([remote(stop).submit() for _ in range(4)], 20)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_signals_of_the_worker_are_set_right_again(remote):
    import signal  # noqa: PLC0415

    def meddle():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)
        return "unreached"

    # An interrupt of its own is an exception of its own.
    error = remote(meddle, output="capture").submit().exception(20)
    assert error is None or type(error) is KeyboardInterrupt
    remote(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL) and None).run()


def test_the_worker_has_no_connection_of_the_engine_in_its_environment(remote):
    def look():
        return {name: value for name, value in os.environ.items() if name.startswith(("EVENER", "LISTEN", "NOTIFY"))}

    assert remote(look).run() == {}


def test_changes_of_the_working_directory_and_environment_do_not_break_the_next_call(engine):
    def change():
        os.chdir("/")
        os.environ.clear()
        sys.path.clear()
        sys.argv[:] = []
        return os.getcwd()

    def restore(folder, path, environ):
        os.chdir(folder)
        sys.path[:] = path
        os.environ.update(environ)

    look = engine.function(lambda: (os.getcwd(), sys.path, dict(os.environ)))
    before = look.run()
    assert engine.function(change).run() == "/"
    assert engine.function(work.square).run(3) == 9
    for _ in range(6):
        engine.function(restore).run(*before)
