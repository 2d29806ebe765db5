"""The functions that are measured, on both sides of a comparison: the decoded value goes out as it came in."""

from __future__ import annotations

import time

BATCH_SECONDS = 0.005


def echo(value: object) -> object:
    """Return the value."""
    return value


def in_batches(values: list[object]) -> list[object]:
    """Return the values, after as long as a batch takes, however many they are."""
    time.sleep(BATCH_SECONDS)
    return values
