"""The number of a worker names a place of its pool, such as a GPU: one of 0 to N-1, whatever happens to the pool."""

import signal
import threading

import pytest

from harness import until

APP = """
import fcntl
import os
import time

LOCK = open(os.environ["INDEX"] + ".lock", "w")
if os.environ.get("ALONE"):
    # There is no room for two: this fails if another has it.
    fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)

def number(request):
    time.sleep(0.02)
    return os.environ["INDEX"] + " " + os.environ["V"]

def numbers(requests):
    return [number(request) for request in requests]

def hold(request):
    while not os.path.exists("go"):
        time.sleep(0.005)
    return os.environ["INDEX"]

def hold_mine(request):
    while not os.path.exists("go" + os.environ["INDEX"]):
        time.sleep(0.005)
    return os.environ["INDEX"]
"""

TEXT = """
service: tested
listen: {http: "127.0.0.1:0"}
stages: {number: {python: "app:FUNCTION", workers: WORKERS, env: {INDEX: "{index}", V: "VERSION"ENV}KEYS}}
routes: [{path: /, pipeline: number}]
"""


def file(version=1, workers="2", keys="", function="number", env=""):
    text = TEXT.replace("VERSION", str(version)).replace("WORKERS", workers).replace("KEYS", keys).replace("ENV", env)
    return text.replace("FUNCTION", function)


def reload(served, text):
    before = served.log.count("the service file has taken over")
    served.write("service.yaml", text)
    served.send(signal.SIGHUP)
    until(lambda: served.log.count("the service file has taken over") > before, "the file has taken over")


def numbers(served):
    """The numbers of all workers that there are, in order, each with the version that it is made by."""
    # One that is ending has no environment any more.
    all_there = [one.environment for one in served.workers()]
    return sorted((one["INDEX"], one["V"]) for one in all_there if "INDEX" in one)


def wait_numbers(served, *wanted, within=10.0):
    seen = set()

    def there():
        found = numbers(served)
        seen.update(number for number, _ in found)
        return found == sorted(wanted)

    until(there, f"workers {wanted}", within=within)
    return seen


def all_of(version, *indexes):
    return [(str(index), str(version)) for index in indexes]


def test_reloads_and_deaths_change_no_number(node):
    served = node(file(), app=APP)
    seen = wait_numbers(served, *all_of(1, 0, 1))
    for version in range(2, 6):
        reload(served, file(version))
        seen |= wait_numbers(served, *all_of(version, 0, 1))
        for worker in served.workers()[: version % 3]:
            worker.kill()
        seen |= wait_numbers(served, *all_of(version, 0, 1))
    # They die while others are to take their places.
    before = served.workers()
    reload(served, file(6))
    for worker in before:
        worker.kill()
    seen |= wait_numbers(served, *all_of(6, 0, 1))
    assert seen == {"0", "1"}
    assert served.get("/").text in {"0 6", "1 6"}


def test_a_pool_that_changes_its_size_has_the_lowest_numbers(node):
    served = node(file(workers="3"), app=APP)
    wait_numbers(served, *all_of(1, 0, 1, 2))
    reload(served, file(workers="1"))
    wait_numbers(served, *all_of(1, 0))
    reload(served, file(workers="2"))
    wait_numbers(served, *all_of(1, 0, 1))
    reload(served, file(2, workers="4"))
    assert wait_numbers(served, *all_of(2, 0, 1, 2, 3)) <= {"0", "1", "2", "3"}


def test_a_place_that_is_still_being_left_is_taken_at_once(node):
    served = node(file(function="hold"), app=APP)
    connections = [served.begin("GET", "/") for _ in range(2)]
    until(lambda: served.metric("workers_idle", stage="number") == 0, "both are at work")
    reload(served, file(function="hold", workers="1"))
    reload(served, file(function="hold", workers="2"))
    wait_numbers(served, *all_of(1, 0, 1, 1))
    served.open("go")
    assert sorted(connection.answer().text for connection in connections) == ["0", "1"]
    wait_numbers(served, *all_of(1, 0, 1))


def test_a_pool_that_sizes_itself_stays_within_its_numbers(node):
    workers = "{min: 1, max: 3, wait: 20ms, idle: 200ms}"
    served = node(file(function="hold", workers=workers), app=APP)
    seen = set()
    for turn in range(4):
        connections = [served.begin("GET", "/") for _ in range(4)]
        until(lambda: served.metric("workers", stage="number") == 3, "three workers")
        seen |= {number for number, _ in numbers(served)}
        served.open("go")
        assert {connection.answer().status for connection in connections} == {200}
        (served.folder / "go").unlink()
        if turn == 1:
            reload(served, file(2, function="hold", workers=workers))
        until(lambda: served.metric("workers", stage="number") == 1, "one worker")
    assert seen == {"0", "1", "2"}


def test_a_smaller_pool_has_smaller_numbers(node):
    """Whichever workers of a pool that sizes itself are left, those of a smaller pool have its numbers."""
    served = node(file(workers="{min: 1, max: 4, wait: 10ms, idle: 300ms}"), app=APP)
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            assert served.get("/").status == 200

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: served.metric("workers", stage="number") == 4, "four workers")
        for workers in ("{min: 1, max: 2}", "{min: 1, max: 4, wait: 10ms}", "{min: 2, max: 2}", "4", "2"):
            reload(served, file(workers=workers))
            most = int(workers.rstrip("}").split("max: ")[-1].split(",")[0])
            until(
                lambda most=most: (
                    served.metric("workers", stage="number") == most
                    and {number for number, _ in numbers(served)} == set(map(str, range(most)))
                ),
                f"the numbers up to {most}",
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join()


STOP_FIRST = ", reload: stop-first"
ALONE = ", ALONE: yes"


def failed_starts(served):
    return served.log.count("worker did not start")


def test_the_old_worker_is_gone_before_the_new_one_starts(node):
    served = node(file(keys=STOP_FIRST, env=ALONE), app=APP)
    for version in range(2, 5):
        reload(served, file(version, keys=STOP_FIRST, env=ALONE))
        wait_numbers(served, *all_of(version, 0, 1))
        until(lambda: served.metric("workers", stage="number") == 2, "both are up")
    assert failed_starts(served) == 0
    assert served.readiness() == {"state": "ready", "stages": {"number": "ready"}}


def test_one_that_is_between_places_gets_a_number_of_the_smaller_pool(node):
    four = {"function": "hold_mine", "keys": STOP_FIRST, "workers": "4"}
    served = node(file(**four), app=APP)
    connections = [served.begin("GET", "/") for _ in range(4)]
    until(lambda: served.metric("workers_idle", stage="number") == 0, "all are at work")
    for index in range(3):
        served.open(f"go{index}")
    until(lambda: served.metric("workers_idle", stage="number") == 3, "three are done")
    reload(served, file(2, **four))
    wait_numbers(served, *all_of(2, 0, 1, 2), ("3", "1"))
    reload(served, file(2, **{**four, "workers": "2"}))
    served.open("go3")
    assert sorted(connection.answer().text for connection in connections) == ["0", "1", "2", "3"]
    wait_numbers(served, *all_of(2, 0, 1))


def test_without_it_there_is_no_room_for_the_new_one(node):
    served = node(file(env=ALONE), app=APP)
    reload(served, file(2, env=ALONE))
    served.wait_log("the old workers go on")
    assert failed_starts(served) > 0


@pytest.mark.parametrize("keys", ["", ", threads: 3"])
def test_a_worker_that_has_done_its_share_is_gone_first(node, keys):
    keys = f"{STOP_FIRST}, max_jobs_per_worker: 3{keys}"
    served = node(file(workers="1", keys=keys, env=ALONE), app=APP)
    assert {served.get("/").text for _ in range(10)} == {"0 1"}
    assert failed_starts(served) == 0


def test_workers_of_another_kind_wait_until_the_old_ones_are_gone(node):
    served = node(file(keys=STOP_FIRST, env=ALONE, function="hold"), app=APP)
    connection = served.begin("GET", "/")
    until(lambda: served.metric("workers_idle", stage="number") == 1, "one is at work")
    reload(served, file(2, keys=f"{STOP_FIRST}, batch: {{max: 4}}", env=ALONE, function="numbers"))
    other = served.begin("GET", "/")
    until(lambda: served.metric("queue_depth", stage="number") == 1, "the new request waits")
    served.open("go")
    assert connection.answer().text in {"0", "1"}
    assert other.answer().text in {"0 2", "1 2"}
    wait_numbers(served, *all_of(2, 0, 1))
    assert failed_starts(served) == 0


def test_a_pool_that_sizes_itself_stops_first_as_well(node):
    workers = "{min: 1, max: 2, wait: 10ms, idle: 10s}"
    served = node(file(workers=workers, keys=STOP_FIRST, env=ALONE), app=APP)
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            assert served.get("/").status == 200

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: served.metric("workers", stage="number") == 2, "two workers")
        for version in range(2, 5):
            reload(served, file(version, workers=workers, keys=STOP_FIRST, env=ALONE))
            seen = wait_numbers(served, *all_of(version, 0, 1))
            assert seen <= {"0", "1"}
            until(lambda: served.metric("workers", stage="number") == 2, "both are up")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed_starts(served) == 0
