"""Texts in one text are those of the list."""

from __future__ import annotations

import pytest
from halfbyte.runtime.tokenize.texts import Texts
from hypothesis import given
from hypothesis import strategies as st

_TEXT = st.text(alphabet="ab\u2581\U0001f600", max_size=4)


@given(st.lists(_TEXT, max_size=30), _TEXT)
def test_texts_are_those_of_the_list(texts: list[str], other: str) -> None:
    found = Texts(texts)
    assert [found[i] for i in range(len(found))] == texts
    for wanted in {*texts, other} - {""}:
        assert found.find(wanted) == (texts.index(wanted) if wanted in texts else None)


def test_a_text_over_a_border_is_none() -> None:
    texts = Texts(["", "ab", "", "abc", "bcd", "", "a", ""])
    assert texts.find("abab") is None
    assert texts.find("bcd") == 4
    assert texts.find("a") == 6
    with pytest.raises(IndexError):
        texts[8]
