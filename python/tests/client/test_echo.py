"""What calls print: decoded, cut, and written to the caller's streams."""

from __future__ import annotations

import io

import pytest

from evener._echo import Output, adorn, write


def test_a_character_that_comes_in_two_pieces_is_one():
    output = Output(echo=False)
    data = "aé€b".encode()
    for place in range(len(data)):
        output.add(1, data[place : place + 1], False)
    assert output.text(1) == "aé€b"


def test_what_is_no_text_is_shown_as_bytes():
    output = Output(echo=False)
    output.add(2, b"\xff\xfeok\xe2\x82", False)
    assert output.text(2) == "\\xff\\xfeok"
    output.end()
    assert output.text(2) == "\\xff\\xfeok\\xe2\\x82"


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"12345"], "12345\n[output cut at 5 bytes]\n"),
        ([b"1234\n"], "1234\n[output cut at 5 bytes]\n"),
        ([b"12\n", b""], "12\n[output cut at 3 bytes]\n"),
        ([b"12", b""], "12\n[output cut at 2 bytes]\n"),
        ([b""], "[output cut at 0 bytes]\n"),
        ([b"\xe2\x82"], "\\xe2\\x82\n[output cut at 2 bytes]\n"),
    ],
)
def test_where_output_was_cut_stands_a_mark(pieces, shown):
    output = Output(echo=False)
    for place, piece in enumerate(pieces):
        output.add(1, piece, place == len(pieces) - 1)
    output.end()
    assert output.text(1) == shown


def test_a_stream_that_fails_costs_nothing(monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    for stream in (Broken(), None, object()):
        monkeypatch.setattr("sys.stdout", stream)
        write(1, "text")


def test_a_stream_that_knows_few_characters_gets_escapes(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(raw, encoding="ascii"))
    write(2, "né")
    assert raw.getvalue() == b"n\\xe9"


def test_an_error_that_takes_no_attributes_stays_as_it_is():
    class Slotted(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    adorn(Slotted(), None)
    error = ValueError()
    adorn(error, None)
    assert (error.stdout, error.stderr) == ("", "")
