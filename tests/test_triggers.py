"""Triggers: requests that time makes, and the start and the stop of the node."""

import json
import signal
import time

from harness import until

APP = """
import json
import os
import time

import evener

def note(value, ctx):
    with open("notes", "a") as file:
        file.write(json.dumps([value, ctx.request is None]) + "\\n")

def slow(value, ctx):
    with open("slow", "a") as file:
        file.write("x\\n")
    while not os.path.exists("go"):
        ctx.check()
        time.sleep(0.01)

def fail(value):
    raise ValueError("no")
"""


def test_intervals_start_and_stop(node):
    served = node(
        """
        stages: {note: {python: "app:note"}}
        triggers:
          - {every: 100ms, pipeline: note, input: {tick: true}}
          - {on: startup, pipeline: note, input: started}
          - {on: shutdown, pipeline: note, input: stopping}
        """,
        app=APP,
    )
    served.wait_notes("notes", 4)
    notes = [json.loads(line) for line in served.notes("notes")]
    assert ["started", True] in notes
    assert notes.count([{"tick": True}, True]) >= 3
    served.stop()
    notes = [json.loads(line) for line in served.notes("notes")]
    assert notes.count(["stopping", True]) == 1
    # Nothing fires any more once the node has begun to stop.
    behind = notes[notes.index(["stopping", True]) :]
    assert len(behind) <= 2, behind


def test_what_is_missed_is_not_made_up_for_and_overlaps_are_skipped(node):
    served = node(
        """
        stages: {slow: {python: "app:slow", workers: 3}}
        triggers: [{name: tick, every: 50ms, pipeline: slow}]
        """,
        app=APP,
    )
    served.wait_notes("slow", 1)
    served.wait_log("did not fire: its last request is still on its way")
    assert len(served.notes("slow")) == 1
    served.open("go")
    served.wait_notes("slow", 3)


def test_ticks_that_were_missed_do_not_pile_up(node):
    """The whole node stands still for a while, as on a machine that was suspended."""
    served = node(
        """
        stages: {tick: {python: "app:tick", workers: 4}}
        triggers: [{name: tick, every: 100ms, pipeline: tick, overlap: run}]
        """,
        app="""
        import time

        def tick(value):
            with open("ticks", "a") as file:
                file.write(f"{time.time()}\\n")
        """,
    )
    served.wait_notes("ticks", 2)
    before = time.time()
    served.send(signal.SIGSTOP)
    try:
        until(lambda: time.time() - before > 1.5, "time passes")
    finally:
        served.send(signal.SIGCONT)
    served.wait_notes("ticks", len(served.notes("ticks")) + 5)
    after = [float(tick) for tick in served.notes("ticks") if float(tick) > before + 1.5]
    # One may be late; made up for, there were fifteen at once.
    assert len([tick for tick in after if tick < after[0] + 0.09]) <= 2


def test_overlaps_run_where_the_file_says_so(node):
    served = node(
        """
        stages: {slow: {python: "app:slow", workers: 3}}
        triggers: [{every: 50ms, pipeline: slow, overlap: run}]
        """,
        app=APP,
    )
    served.wait_notes("slow", 3)
    served.open("go")


def test_times_of_the_day_and_failures(node):
    served = node(
        """
        stages: {note: {python: "app:note"}, fail: {python: "app:fail", retries: 0}}
        triggers:
          - {cron: "* * * * * *", pipeline: note, input: 1}
          - {on: startup, pipeline: fail}
        """,
        app=APP,
    )
    began = time.monotonic()
    served.wait_notes("notes", 2)
    assert time.monotonic() - began < 10
    served.wait_log("stage `fail` raised ValueError")
