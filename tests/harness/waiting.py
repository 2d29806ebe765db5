"""The one way in which tests wait: for a state, with a deadline, never for a span of time."""

import time


def until(condition, saying="the condition", *, within=10.0, every=0.01):
    """Return the first true result of `condition`; fail if there is none within so many seconds."""
    deadline = time.monotonic() + within
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{saying}: not within {within} s; the last look gave {result!r}")
        time.sleep(every)
