"""What goes into a call and what comes out of it, on a private engine and on a shared one."""

import asyncio
import concurrent.futures
import functools
import hashlib
import operator
import os
import sys
import threading

import evener
import pytest

from functions import work
from harness import until

LARGE = 100_000_000
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        2**200,
        1.5,
        float("inf"),
        1 + 2j,
        "",
        "naïve \N{SNOWMAN} \ud800",
        b"",
        bytes(range(256)),
        bytearray(b"x"),
        [],
        [[[]], {"a": (1, {2, 3})}],
        {1: None, None: 1, (1, 2): frozenset([3])},
        range(3, 30, 4),
        slice(1, None),
        ...,
        NotImplemented,
        work.Point(1, 2),
        ValueError("as a value"),
        int,
        work.Point,
        len,
    ],
    ids=repr,
)
def test_a_value_comes_back_as_it_went(remote, value):
    same = remote(lambda given: given)
    for found in (same.run(value), same.submit(value).result(20)):
        assert type(found) is type(value)
        assert found == value or (isinstance(value, Exception) and found.args == value.args)


def test_arguments_of_every_kind_arrive(remote):
    echo = remote(work.echo)
    assert echo.run() == ((), {})
    assert echo.run(1, "two", three=[4], self=5, function=6) == ((1, "two"), {"three": [4], "self": 5, "function": 6})
    assert remote(work.power).run(3) == 9
    assert remote(work.power).run(3, exponent=3, plus=1) == 28
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        remote(work.power).run(3, nonsense=1)


def test_the_plain_call_stays_here(remote):
    assert remote(work.who)() == os.getpid()
    assert remote(work.who).run() != os.getpid()


def test_whatever_can_be_called_can_be_called_there(engine):
    call = engine.client.run
    assert call(operator.add, 1, 2) == 3
    assert call(functools.partial(pow, 2), 10) == 1024
    assert call("a-b".split, "-") == ["a", "b"]
    assert call(work.Point(1, 1).moved, 2) == work.Point(3, 3)
    assert call(work.Point, 1, 2) == work.Point(1, 2)
    assert call(work.decorated, 1) == 2
    assert engine.client.submit(lambda: 7).result(20) == 7


def test_closures_travel_by_value(remote):
    factor, table = 3, {"a": [1, 2]}

    def scaled(x):
        def inner():
            return [each * factor for each in table["a"]]

        return [*inner(), x]

    assert remote(scaled).run(9) == [3, 6, 9]


def test_functions_of_modules_are_imported_by_the_worker(remote):
    # It imports a module once, and keeps it from call to call.
    seen = [remote(lambda: (work.imported_in(), work.who())).run() for _ in range(8)]
    assert all(imported == who != os.getpid() for imported, who in seen)


def test_100_megabytes_go_there_and_come_back(remote):
    payload = os.urandom(1 << 20) * (LARGE >> 20)
    there = remote(lambda data: hashlib.sha256(data).digest())
    assert there.run(payload) == hashlib.sha256(payload).digest()
    back = remote(lambda data: data)
    future = back.submit(payload)
    assert future.result(60) == payload
    made = remote(lambda size: b"x" * size).run(LARGE)
    assert len(made) == LARGE
    assert made.count(b"x") == LARGE


@pytest.mark.parametrize("size", [0, 1, 1000, 65_535, 65_536, 262_143, 262_144, 262_145, 1_048_576, 5_000_003])
def test_values_of_any_size_are_whole(remote, size):
    payload = (bytes(range(251)) * (size // 251 + 1))[:size]
    assert remote(lambda data: (len(data), data[::-1])).run(payload) == (size, payload[::-1])


def test_submit_does_not_wait(remote, signs):
    def wait():
        signs.wait_for("go")
        return "went"

    future = remote(wait).submit()
    assert not future.done()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    signs.open("go")
    assert future.result(20) == "went"
    assert future.done()
    assert future.exception() is None


def test_a_future_knows_its_worker(engine):
    future = engine.function(work.who).submit()
    assert future.result(20) == future.worker
    assert future.worker in engine.pids()


def test_futures_work_with_the_standard_library_and_asyncio(remote):
    square = remote(work.square)
    futures = [square.submit(x) for x in range(20)]
    done, not_done = concurrent.futures.wait(futures, 20)
    assert (len(done), not_done) == (20, set())
    assert sorted(future.result() for future in evener.as_completed(futures, 20)) == [x * x for x in range(20)]
    told = []
    futures[0].add_done_callback(told.append)
    assert told == [futures[0]]

    async def both():
        assert await square.submit(3) == 9
        with pytest.raises(ZeroDivisionError):
            await remote(lambda: 1 / 0).submit()
        return await asyncio.gather(*(square.submit(x) for x in range(50)))

    assert asyncio.run(both()) == [x * x for x in range(50)]


def test_a_coroutine_that_waits_lets_the_others_run(remote, signs):
    def wait():
        signs.wait_for("go")
        return "went"

    async def main():
        turns = 0
        waiting = asyncio.ensure_future(_awaited(remote(wait).submit()))
        while turns < 50:
            await asyncio.sleep(0)
            turns += 1
        assert not waiting.done()
        signs.open("go")
        return await asyncio.wait_for(waiting, 20)

    assert asyncio.run(main()) == "went"


async def _awaited(future):
    return await future


def test_run_lets_other_threads_go_on(remote, signs):
    def wait():
        signs.wait_for("go")
        return "went"

    results = []
    thread = threading.Thread(target=lambda: results.append(remote(wait).run()))
    thread.start()
    # Were the interpreter's lock held, nothing here could open the gate.
    signs.open("go")
    thread.join(20)
    assert results == ["went"]


def test_many_threads_share_one_client(remote):
    square = remote(work.square)
    found = [None] * 8

    def do(place):
        found[place] = [square.run(x) for x in range(place, 400, 8)]

    threads = [threading.Thread(target=do, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert found == [[x * x for x in range(place, 400, 8)] for place in range(8)]


def test_modules_are_imported_into_the_globals_first(remote):
    namespace = {}
    exec("def use(x): return np.dumps(x), os.path.basename('/a/b'), json.loads('[1]')", namespace)
    use = remote(namespace["use"], modules=[("np", "json"), "os.path", __import__("json")])
    assert use.run({}) == ("{}", "b", [1])
    with pytest.raises(ModuleNotFoundError, match="nonesuch"):
        remote(lambda: 1, modules=["nonesuch"]).run()


def test_modules_by_value_need_not_be_where_the_workers_are(engine, tmp_path, monkeypatch):
    (tmp_path / "shapes_elsewhere.py").write_text(
        "FACTOR = 2\ndef area(side):\n    return FACTOR * side\nclass Shape:\n    def area(self): return area(21)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import shapes_elsewhere as shapes  # noqa: PLC0415

    try:
        by_name = engine.function(shapes.area)
        with pytest.raises(ModuleNotFoundError, match="shapes_elsewhere"):
            by_name.run(1)
        assert by_name.options(by_value=[shapes]).run(3) == 6
        made = engine.function(lambda: shapes.Shape().area(), by_value=[shapes])
        assert made.run() == 42
        assert type(engine.function(lambda: shapes.Shape(), by_value=[shapes]).run()) is shapes.Shape
    finally:
        sys.modules.pop("shapes_elsewhere", None)


def test_options_leave_the_function_as_it_was(remote):
    function = remote(work.square, priority=3)
    other = function.options(output="capture", priority=-3, retries=2, timeout=20)
    assert (function.run(2), other.run(3)) == (4, 9)
    for options, error in [
        ({"output": "none"}, ValueError),
        ({"priority": 101}, ValueError),
        ({"retries": -1}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"pool": ""}, TypeError),
        ({"nonsense": 1}, TypeError),
    ]:
        with pytest.raises(error):
            function.options(**options)


def test_what_a_function_does_to_globals_stays_in_the_worker(remote):
    namespace = {"__name__": "__main__", "counter": [0], "scale": 1}
    exec("def count():\n    counter[0] += 1\n    return counter[0] * scale", namespace)
    count = remote(namespace["count"])
    assert count.run() == 1
    assert namespace["counter"] == [0]
    namespace["scale"] = 100
    assert count.run() % 100 == 0


def test_higher_priorities_go_first_and_equal_ones_in_order(engine, signs):
    wait = engine.function(lambda gate: signs.note("begun") or signs.wait_for(gate))
    # One worker stays at its call, so that the other does all the rest.
    blockers = [wait.submit(gate) for gate in ("go", "end")]
    signs.wait_notes("begun", 2)
    note = engine.function(lambda name: signs.note("done", name))
    order = [(0, "a"), (5, "b"), (-5, "c"), (0, "d"), (5, "e"), (100, "f"), (-100, "g")]
    futures = [note.options(priority=priority).submit(name) for priority, name in order]
    # The answer comes behind all that was sent before: so they are with the engine.
    assert blockers[1].cancel() is False
    signs.open("go")
    evener.wait(futures, 20)
    signs.open("end")
    evener.wait(blockers, 20)
    assert signs.notes("done") == ["f", "b", "e", "a", "d", "c", "g"]


def test_the_workers_are_known(engine):
    workers = engine.client.workers()
    assert [worker.index for worker in sorted(workers, key=lambda worker: worker.index)] == [0, 1]
    assert {worker.pool for worker in workers} == {"default"}
    assert len({worker.node for worker in workers}) == 1
    assert engine.client.workers("nonesuch") == []
    [pool] = engine.client.pools
    assert (pool.name, pool.workers) == ("default", 2)
    # A private engine is connected to before its first worker has told the version.
    assert pool.python in ("" if engine.is_private else PYTHON, PYTHON)
    assert engine.client.url.startswith("unix:")


def test_a_worker_is_busy_while_it_works_and_counts_what_it_did(engine, signs):
    before = {worker.pid: worker.jobs_done for worker in engine.client.workers()}
    future = engine.function(lambda: signs.note("begun") or signs.wait_for("go") or os.getpid()).submit()
    signs.wait_notes("begun")
    busy = [worker for worker in engine.client.workers() if worker.busy]
    assert len(busy) == 1
    signs.open("go")
    assert future.result(20) == busy[0].pid
    after = until(
        lambda: (found := {w.pid: w for w in engine.client.workers()}) and not found[busy[0].pid].busy and found,
        "a worker that is idle again",
    )
    assert after[busy[0].pid].jobs_done == before[busy[0].pid] + 1


def test_work_goes_to_all_workers(engine):
    pids = {future.result(20) for future in [engine.function(_slow_who).submit() for _ in range(8)]}
    assert pids == set(engine.pids())


def _slow_who():
    return work.sleep(0.02) and work.who()


def test_recursion_in_a_worker_stays_in_it(remote):
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    assert remote(factorial).run(20) == factorial(20)
    inside = remote(lambda x: (work.decorated.run(x), work.decorated.submit(x).result(), list(work.decorated.map([x]))))
    assert inside.run(1) == (2, 2, [2])


def test_the_context_says_which_try_it_is(remote):
    def look():
        context = evener.context()
        return context.tries, context.deadline, context.cancelled()

    assert remote(look).run() == (1, None, False)
    assert 20 < remote(lambda: evener.context().remaining(), timeout=30).run() <= 30
    assert evener.context() is None


def test_a_closed_client_says_so(start_private):
    engine = start_private(1)
    future = engine.client.submit(work.sleep, 60)
    engine.client.close()
    with pytest.raises(evener.EngineLost):
        future.result(5)
    with pytest.raises(evener.EngineLost, match="closed"):
        engine.client.submit(work.square, 1)
    engine.client.close()
