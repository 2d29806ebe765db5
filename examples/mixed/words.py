"""The one step that wants a programming language."""

import re

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words(paragraph):
    """The words of a text in lower case, one a line. What is `str` goes on as text, which a program reads as it is."""
    return "".join(word.lower() + "\n" for word in WORD.findall(paragraph))
