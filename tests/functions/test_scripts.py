"""Functions and classes of the script itself, as it stands in a file of its own, in both modes."""

import os
import pty
import sys

import pytest

from harness import until


def test_functions_and_classes_of_the_script_travel_by_value(script, place):
    started = script(
        """
        import collections, dataclasses, enum, os
        import evener

        FACTOR = 3

        @dataclasses.dataclass
        class Pair:
            left: int
            right: list

            def swapped(self):
                return Pair(self.right, self.left)

        class Colour(enum.Enum):
            RED = 1

        Named = collections.namedtuple("Named", "a b")

        class Trouble(Exception):
            def __init__(self, code, *, hint):
                super().__init__(code)
                self.code, self.hint = code, hint

            def __reduce__(self):
                return _trouble, (self.code, self.hint)

        def _trouble(code, hint):
            return Trouble(code, hint=hint)

        def scale(x):
            return FACTOR * x

        @evener.function
        def swap(pair):
            assert type(pair).__module__ == "__main__"
            return pair.swapped(), Colour.RED, Named(1, scale(2)), type(pair), __name__

        @evener.function
        def fail(code):
            raise Trouble(code, hint="h")

        swapped, colour, named, kind, name = swap.run(Pair(1, [2]))
        # The same classes, not others of the same name.
        assert type(swapped) is Pair and swapped == Pair([2], 1)
        assert colour is Colour.RED
        assert type(named) is Named and named == (1, 6)
        assert kind is Pair
        assert name == "__main__"
        try:
            fail.run(7)
        except Trouble as error:
            assert (error.code, error.hint) == (7, "h")
        assert [p.left for p, *_ in swap.map([Pair(x, [x]) for x in range(20)])] == [[x] for x in range(20)]
        print("all good")
        """,
        env=place,
    )
    assert started.succeed() == "all good\n"
    assert started.err == ""


def test_a_global_variable_that_is_bound_anew_is_sent_anew(script, place):
    started = script(
        """
        import evener

        FACTOR = 3

        def helper(x):
            return FACTOR * x

        @evener.function
        def direct(x):
            return FACTOR * x

        @evener.function
        def through_another(x):
            return helper(x)

        found = []
        for FACTOR in (3, 100, 5):
            found.append((direct.run(2), through_another.run(2)))
        print(found)
        """,
        env=place,
    )
    assert started.succeed() == "[(6, 6), (200, 200), (10, 10)]\n"


def test_decorated_functions_call_themselves_and_each_other_in_the_worker(script, place):
    started = script(
        """
        import os
        import evener

        @evener.function
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci.run(n - 2)

        @evener.function
        def both(n):
            here = os.getpid()
            assert where.run() == here and where.submit().result() == here and list(where.map([], [])) == []
            return fibonacci(n), fibonacci.submit(n).result(), sum(fibonacci.map(range(n)))

        @evener.function
        def where():
            return os.getpid()

        assert fibonacci.run(10) == 55
        assert both.run(10) == (55, 55, 88)
        print("all good")
        """,
        env=place,
    )
    assert started.succeed() == "all good\n"


def test_the_script_is_not_run_again_by_a_worker(script, place):
    started = script(
        """
        import os, sys
        import evener

        print("once")

        @evener.function(output="capture")
        def look():
            return sys.modules["__main__"].__dict__.get("__file__"), os.getppid()

        file, parent = look.run()
        assert file != __file__
        """,
        env=place,
    )
    assert started.succeed() == "once\n"


def test_modules_beside_the_script_are_found_by_a_private_engine(script):
    started = script(
        """
        import os, sys
        from pathlib import Path

        Path("beside.py").write_text("def where(): return __file__, __import__('os').getcwd(), __import__('sys').path")
        import beside, evener

        os.environ["FROM_THE_SCRIPT"] = "yes"
        sys.path.append("/nonesuch/of/the/script")
        file, folder, path = evener.Client().run(beside.where)
        assert (file, folder) == (beside.__file__, os.getcwd()), (file, folder)
        assert path == [os.path.abspath(entry) for entry in sys.path], path
        assert evener.Client().run(os.getenv, "FROM_THE_SCRIPT") == "yes"
        assert evener.Client().run(os.getenv, "EVENER_BIN") is None
        assert evener.Client().run(eval, "__import__('sys').executable") == sys.executable
        """
    )
    started.succeed()


def test_a_script_from_standard_input_and_one_on_the_command_line_work_too(script, place, tmp_path):
    text = "import evener\nf = evener.function(lambda x: x + 1)\nprint(f.run(1))\n"
    (tmp_path / "text").write_text(text)
    started = script("pass", env=place)
    started.wait()
    with open(tmp_path / "text") as file:
        started.arguments = [sys.executable, "-"]
        assert started.start(stdin=file).succeed() == "2\n"
    started.arguments = [sys.executable, "-c", text]
    assert started.start().succeed() == "2\n"


def test_compute_this_is_as_the_seed_has_it(script, place):
    started = script(
        """
        import asyncio, os
        from evener import compute_this

        @compute_this(depmodules=["time"])
        def func(x):
            time.sleep(x / 100)
            return x * x

        @compute_this()
        def fails(x, *, y=1):
            print("before it fails")
            raise KeyError(x + y)

        @compute_this
        def plain(*args, **kwargs):
            return args, kwargs

        assert func(2).run() == 4
        call = func(3)
        assert (call.run(), call.run()) == (9, 9)
        assert plain(1, two=2).run() == ((1,), {"two": 2})

        async def main():
            assert await func(2).async_run() == 4
            assert await asyncio.gather(*(func(x).async_run() for x in range(20))) == [x * x for x in range(20)]

        asyncio.run(main())
        try:
            fails(1, y=2).run()
        except KeyError as error:
            assert error.args == (3,) and error.stdout == "before it fails\\n"
        else:
            raise AssertionError
        # A number, which a load test multiplies.
        assert func.get_workers() * 2 == 2 * len(os.sched_getaffinity(0))
        """,
        env=place,
    )
    assert started.succeed() == "before it fails\n"


def test_compute_this_finds_the_server_that_it_is_given(script, start_shared):
    engine = start_shared(service='listen: {api: "127.0.0.1:0"}\n')
    url = engine.node.url("api")
    assert url.startswith("http://127.0.0.1:")
    text = """
        import sys
        from evener import compute_this

        @compute_this(sys.argv[1], ["math"])
        def func(x):
            return math.factorial(x)

        assert func(5).run() == 120
        print(func.get_workers())
        """
    trusted = url.removeprefix("http://")
    env = {"XDG_RUNTIME_DIR": str(engine.node.runtime), "EVENER_BIN": "/nonesuch", "EVENER_INSECURE": trusted}
    for server in (url, url.removeprefix("http://")):
        assert script(text, arguments=[server], env=env).succeed() == f"{len(engine.pids())}\n"


WITHOUT_TQDM = """
import sys
sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None
"""


def test_progress_without_tqdm_is_one_line_in_a_terminal(script, place):
    theirs, ours = pty.openpty()
    try:
        started = script(
            f"""
            {WITHOUT_TQDM.replace(chr(10), chr(10) + " " * 12)}
            import evener
            assert sum(evener.function(abs).map(range(-50, 50), progress="values")) == 2500
            """,
            env=place,
        )
        started.succeed()
        # Where standard error is no terminal, nothing is written.
        assert started.err == ""
        started.process = None
        import subprocess  # noqa: PLC0415

        done = subprocess.run(
            started.arguments, env=started.env, cwd=started.folder, stdout=ours, stderr=ours, timeout=30, check=False
        )
        assert done.returncode == 0
        shown = os.read(theirs, 65536).decode()
        assert "values: 100/100 (" in shown
        assert shown.endswith("\n")
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize("way", ["threads", "loop"])
def test_a_thousand_calls_at_once_all_come_back(script, place, way):
    started = script(
        """
        import asyncio, sys, threading
        import evener

        @evener.function(output="capture")
        def shout(x):
            if x % 3 == 0:
                print("call", x)
            return x

        def check(x, future):
            assert future.result() == x
            assert future.stdout == ("" if x % 3 else f"call {x}\\n")

        async def main():
            futures = [shout.submit(x) for x in range(1000)]
            await asyncio.gather(*futures)
            for x, future in enumerate(futures):
                check(x, future)

        def threads():
            futures = {}
            def some(begin):
                for x in range(begin, 1000, 4):
                    futures[x] = shout.submit(x)
            running = [threading.Thread(target=some, args=(begin,)) for begin in range(4)]
            for thread in running: thread.start()
            for thread in running: thread.join()
            for x, future in futures.items():
                check(x, future)

        asyncio.run(main()) if sys.argv[1] == "loop" else threads()
        """,
        env=place,
        arguments=[way],
    )
    started.succeed()


def test_importing_evener_starts_nothing_and_is_quick(script):
    started = script(
        """
        import sys
        import evener
        assert "evener._bridge" not in sys.modules and "cloudpickle" not in sys.modules
        assert evener.function(lambda: 1)() == 1
        import time
        print("imported", flush=True)
        sys.stdin.read()
        """,
        stdin=-1,
    )
    started.wait_out("imported")
    assert started.family() == [process for process in started.family() if process.pid == started.process.pid]
    started.process.stdin.close()
    assert started.wait() == 0


def test_the_engine_starts_with_the_first_call_and_has_a_worker_for_each_core(script):
    started = script(
        """
        import os, sys
        import evener
        assert evener.function(abs).run(-1) == 1
        print("called", flush=True)
        sys.stdin.read()
        """,
        stdin=-1,
    )
    started.wait_out("called")
    assert len(started.engines()) == 1
    until(lambda: len(started.workers()) == len(os.sched_getaffinity(0)), "a worker for each core")
    started.process.stdin.close()
    assert started.wait() == 0
