from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bmrl._text import shown


@given(st.text(max_size=2000))
def test_any_text_becomes_one_line(text):
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= 303


def test_keeps_what_can_be_read():
    assert shown("näïve  words\n on\ttwo lines ") == "näïve words on two lines"
    assert shown("a\x1b[2Jb") == r"a\x1b[2Jb"
    assert shown(KeyError("name")) == "'name'"
    assert shown(TimeoutError()) == "TimeoutError"
    assert shown("x" * 301) == "x" * 300 + "..."
    assert shown("x" * 300) == "x" * 300
