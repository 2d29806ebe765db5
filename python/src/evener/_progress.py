"""Progress of a map on standard error: tqdm's bar where it is installed, else a plain line in a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

# How often the plain line is written anew, in seconds.
_EVERY = 0.1


class Progress:
    """Counts items that are done. `total` is how many there will be, or None if that is not known."""

    def __init__(self, total: int | None, label: str) -> None:
        self._bar: Any = None
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
        except ImportError:
            self._bar = _Line(total, label)
        else:
            self._bar = tqdm(total=total, desc=label)

    def add(self, count: int) -> None:
        """Count some more."""
        self._bar.update(count)

    def close(self) -> None:
        """Show the last state, and leave it there."""
        self._bar.close()


class _Line:
    def __init__(self, total: int | None, label: str) -> None:
        self._total = total
        self._label = label
        self._count = 0
        self._began = self._shown = time.monotonic()
        self._stream = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None

    def update(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now - self._shown >= _EVERY:
            self._shown = now
            self._show("\r")

    def _show(self, before: str, after: str = "") -> None:
        if self._stream is not None:
            of = f"/{self._total}" if self._total is not None else ""
            rate = self._count / max(1e-9, time.monotonic() - self._began)
            self._stream.write(f"{before}{self._label}: {self._count}{of} ({rate:,.0f}/s)\x1b[K{after}")
            self._stream.flush()

    def close(self) -> None:
        self._show("\r", "\n")
