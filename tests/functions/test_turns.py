"""Several clients of one engine: whoever has many calls does not hold up whoever has few."""

from functions import work
from harness.engine import client_of


def test_clients_take_turns(start_shared):
    engine = start_shared(default="workers: 1")
    flood = [engine.function(work.sleep).submit(0.02) for _ in range(200)]
    flood[0].result(timeout=20)
    other = client_of(engine.node)
    try:
        mine = [other.function(work.sleep).submit(0.02) for _ in range(5)]
        for future in mine:
            future.result(timeout=20)
        done = sum(future.done() for future in flood)
    finally:
        other.__exit__(None, None, None)
    # One each in turn, but for what had gone to the worker or to the node before the other came.
    assert done < 60, "the other client waited for the flood"
    for future in flood:
        future.result(timeout=60)
