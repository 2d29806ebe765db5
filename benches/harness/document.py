"""Figures as Markdown, and their place in a document."""

from __future__ import annotations

from pathlib import Path

from .stats import Series, Spread


def write(document: Path, name: str, text: str) -> None:
    """Put the text between the marks `bench:name` of the document; a document or marks that are missing are made."""
    first, last = f"<!-- bench:{name} begin -->", f"<!-- bench:{name} end -->"
    old = document.read_text() if document.exists() else "# Performance\n"
    before, begin, rest = old.partition(first)
    _, end, after = rest.partition(last)
    if not begin:
        before, after = old.rstrip("\n") + "\n\n", "\n"
    elif not end:
        raise ValueError(f"{document.name} has `{first}` without `{last}`")
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(f"{before}{first}\n{text}{last}{after}")


def table(head: list[str], rows: list[list[str]], alignment: str) -> str:
    """A table; `alignment` has an l or an r for each column."""
    rule = ["---:" if side == "r" else "---" for side in alignment]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def middle(spread: Spread) -> str:
    """A ratio's median."""
    return f"{spread.median:.2f}"


def reach(spread: Spread, series: Series) -> str:
    """The least and the greatest of a ratio, and of how many pairs."""
    return f"{spread.least:.2f} – {spread.greatest:.2f} ({len(series.pairs)})"


def duration(microseconds: float) -> str:
    """A time with its unit."""
    return f"{microseconds / 1000:.2f} ms" if microseconds >= 1000 else f"{microseconds:.0f} µs"


def mebibytes(count: float) -> str:
    """A number of bytes with its unit."""
    return f"{count / 2**20:.1f} MiB"
