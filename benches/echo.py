"""The function that both sides of the comparison run: the decoded value goes out as it came in."""

from __future__ import annotations


def echo(value: object) -> object:
    """Return the value."""
    return value
