"""Random work, cancels and kills: every call ends exactly once, and nothing is lost or done more often than allowed."""

import collections
import concurrent.futures
import os
import random
import threading
import time

import evener
import pytest

from harness import Process, until

CALLS = 400
SECONDS = 5.0


def _work(signs, number, kind, retries):
    signs.note(f"tries-{number}", os.getpid())
    if kind == "slow":
        time.sleep(0.02)
    elif kind == "print":
        print(number)
    elif kind == "large":
        return number, bytes(300_000)
    elif kind == "raise":
        raise LookupError(number)
    elif kind == "die" or (kind == "die once" and evener.context().tries == 1):
        os._exit(9)
    elif kind == "look":
        until_ = time.monotonic() + 0.05
        while time.monotonic() < until_:
            evener.context().check()
            time.sleep(0.002)
    elif kind == "hang":
        time.sleep(60)
    return number, retries


KINDS = {
    "quick": 30, "slow": 15, "print": 10, "large": 5, "raise": 8, "look": 6, "die": 1, "die once": 2, "hang": 1
}  # fmt: skip


class History:
    """What the caller asked for and was told."""

    def __init__(self, seed, kinds):
        self.choose = random.Random(seed)
        self.kinds = kinds
        self.ended = collections.Counter()
        self.calls = []
        self.cancelled = set()
        self.refused = set()

    def submit(self, engine, signs):
        number = len(self.calls)
        kind = self.choose.choices(list(self.kinds), self.kinds.values())[0]
        retries = self.choose.choice([0, 0, 1, 3])
        options = {"retries": retries, "priority": self.choose.randrange(-2, 3), "output": "capture"}
        if kind == "hang":
            options["timeout"] = 0.1
        future = engine.function(_work, **options).submit(signs, number, kind, retries)
        future.add_done_callback(lambda _future: self.ended.update([number]))
        self.calls.append((kind, retries, future))

    def cancel(self):
        place = self.choose.randrange(len(self.calls))
        future = self.calls[place][2]
        if future.cancel(kill=self.choose.random() < 0.3):
            self.cancelled.add(place)
            assert future.cancelled()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", ["private", "shared"])
def test_every_call_ends_exactly_once(request, signs, mode, seed):
    if mode == "private":
        # A private engine gives a call that takes too long five seconds to come back, which is too long here.
        engine, kinds = request.getfixturevalue("start_private")(3), KINDS | {"hang": 0}
    else:
        engine, kinds = request.getfixturevalue("start_shared")(default="workers: 3, grace: 50ms"), KINDS
    history = History(seed, kinds)
    choose = history.choose
    killed = 0
    until_ = time.monotonic() + SECONDS
    while len(history.calls) < CALLS and time.monotonic() < until_:
        action = choose.random()
        if action < 0.85:
            history.submit(engine, signs)
        elif action < 0.97 and history.calls:
            history.cancel()
        elif action < 0.985:
            worker = choose.choice(engine.pids() or [0])
            if worker and Process.at(worker):
                Process.at(worker).kill()
                killed += 1
        else:
            time.sleep(choose.random() * 0.02)
    futures = [future for _kind, _retries, future in history.calls]
    assert concurrent.futures.wait(futures, 60).not_done == set()
    # Nothing is left behind, and the engine works on.
    until(lambda: len(engine.client.workers()) == 3, "three workers", within=40)
    until(lambda: not any(worker.busy for worker in engine.client.workers()), "idle workers")
    assert list(engine.function(abs).map(range(-50, 0))) == list(range(50, 0, -1))
    assert history.ended == dict.fromkeys(range(len(futures)), 1)

    for number, (kind, retries, future) in enumerate(history.calls):
        tries = len(signs.notes(f"tries-{number}"))
        # A worker that a test kills may be one that has just been given the call, so it need not have begun.
        assert tries <= 1 + retries
        if future.cancelled():
            assert number in history.cancelled
            continue
        error = future.exception(0)
        if error is None:
            assert kind not in ("raise", "die", "hang")
            assert future.result()[0] == number
            assert tries >= 1
            assert future.stdout == (f"{number}\n" if kind == "print" else "")
        elif isinstance(error, LookupError):
            assert (kind, error.args) == ("raise", (number,))
        elif isinstance(error, evener.CallTimeout):
            assert kind == "hang"
        else:
            assert type(error) is evener.WorkerDied
            assert kind.startswith("die") or killed
    assert {number for number, (_, _, future) in enumerate(history.calls) if future.cancelled()} == history.cancelled
    engine.client.close()


def test_calls_from_many_threads_with_kills_between_them_all_end(start_private, signs):
    engine = start_private(2)
    function = engine.function(_work, retries=100, output="discard")
    ended = collections.Counter()
    stop = threading.Event()

    def call(thread):
        for number in range(150):
            key = thread * 1000 + number
            assert function.run(signs, key, "quick", 100)[0] == key
            ended[key] += 1

    def kill():
        choose = random.Random(7)
        for _ in range(10):
            if stop.wait(0.2):
                return
            pids = engine.pids()
            if pids:
                victim = Process.at(choose.choice(pids))
                if victim:
                    victim.kill()

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(4)]
    killer = threading.Thread(target=kill)
    for thread in [*threads, killer]:
        thread.start()
    for thread in threads:
        thread.join(50)
    stop.set()
    killer.join(10)
    assert len(ended) == 600
    assert set(ended.values()) == {1}
