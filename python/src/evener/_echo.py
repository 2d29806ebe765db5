"""What a call printed: kept as text, and written to the caller's own streams as it comes."""

from __future__ import annotations

import codecs
import sys
from typing import Any

_STDOUT = 1

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Output:
    r"""The standard output and standard error of one call, or of the calls of one group.

    Bytes are decoded as UTF-8 as they come, so a character that is cut in two arrives whole; what is no UTF-8 stands
    there as ``\xff``.
    """

    __slots__ = ("_decoders", "_echo", "_parts", "_sizes")

    def __init__(self, echo: bool) -> None:
        self._echo = echo
        self._decoders: list[codecs.IncrementalDecoder | None] = [None, None]
        self._parts: tuple[list[str], list[str]] = ([], [])
        self._sizes = [0, 0]

    def add(self, stream: int, data: bytes, truncated: bool) -> None:
        """Take what the call wrote to `stream`, 1 or 2. If it was `truncated`, nothing follows and a mark says so."""
        place = stream - 1
        decoder = self._decoders[place]
        if decoder is None:
            decoder = self._decoders[place] = _new_decoder("backslashreplace")
        self._sizes[place] += len(data)
        text = decoder.decode(data, truncated)
        if truncated:
            text += self._mark(place, text)
        self._put(place, text)

    def _mark(self, place: int, text: str) -> str:
        last = text or next((part for part in reversed(self._parts[place]) if part), "\n")
        return f"{'' if last.endswith(chr(10)) else chr(10)}[output cut at {self._sizes[place]} bytes]\n"

    def _put(self, place: int, text: str) -> None:
        if text:
            self._parts[place].append(text)
            if self._echo:
                write(place + 1, text)

    def end(self) -> None:
        """Let out what is left of a character that never became whole."""
        for place, decoder in enumerate(self._decoders):
            if decoder is not None:
                self._put(place, decoder.decode(b"", True))

    def text(self, stream: int) -> str:
        """Return all that has come of `stream`, 1 or 2."""
        return "".join(self._parts[stream - 1])


def write(stream: int, text: str) -> None:
    """Write to this process's own standard output (1) or error (2), whatever stands there at the moment.

    Nothing is raised: a stream that is closed, or whose reader is gone, must not cost the call its result.
    """
    target: Any = sys.stdout if stream == _STDOUT else sys.stderr
    if target is None:
        return
    try:
        try:
            target.write(text)
        except UnicodeEncodeError:
            encoding = getattr(target, "encoding", None) or "ascii"
            target.write(text.encode(encoding, "backslashreplace").decode(encoding))
        target.flush()
    except Exception:  # noqa: BLE001 (see above; the stream may be anybody's object)
        return


def adorn(error: BaseException, output: Output | None) -> None:
    """Give `error` the attributes `stdout` and `stderr`, unless it has some of its own or takes none."""
    for stream, name in ((1, "stdout"), (2, "stderr")):
        if not hasattr(error, name):
            try:
                setattr(error, name, "" if output is None else output.text(stream))
            except Exception:  # noqa: BLE001 (classes may refuse attributes in their own way)
                return
