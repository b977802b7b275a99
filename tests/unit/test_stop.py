"""Stop strings: however the text is cut, the result is that of searching the whole text."""

from __future__ import annotations

import time

import pytest
from halfbyte.runtime.engine.sampling import SamplingError
from halfbyte.runtime.engine.stop import StopStrings
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .. import naive_sampling as naive

SMALL = st.text("ab", max_size=40)


def _run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """What a reader sees: all that is emitted, and whether it ended at a stop."""
    found = StopStrings(stops)
    text, stopped = "", False
    for piece in pieces:
        emitted, stopped = found.feed(piece)
        text += emitted
        if stopped:
            break
    return text + found.flush(), stopped


@settings(max_examples=400, deadline=None)
@given(SMALL, st.lists(st.text("ab", min_size=1, max_size=6), max_size=4), st.data())
@example("aabaab", ["aabb", "ab"], None)
def test_any_cut_gives_the_same(text: str, stops: list[str], data: st.DataObject | None) -> None:
    pieces = list(text)
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(pieces) == text
    assert _run(pieces, stops) == naive.stopped(text, stops)


@settings(max_examples=200, deadline=None)
@given(st.lists(SMALL, max_size=10), st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4))
def test_only_what_may_be_a_stop_is_held_back(pieces: list[str], stops: list[str]) -> None:
    found, seen, emitted = StopStrings(stops), "", ""
    for piece in pieces:
        text, stopped = found.feed(piece)
        seen, emitted = seen + piece, emitted + text
        if stopped:
            return
        held = seen[len(emitted) :]
        longest = max(n for n in range(len(seen) + 1) if any(s.startswith(seen[len(seen) - n :]) for s in stops))
        assert len(held) == longest


def test_an_example_to_read() -> None:
    stops = StopStrings(["</s>", "\n\n"])
    assert stops.feed("Hello<") == ("Hello", False)
    assert stops.feed("/") == ("", False)
    assert stops.feed("b>\n") == ("</b>", False)
    assert stops.feed("x") == ("\nx", False)
    assert stops.feed("y</s>z") == ("y", True)
    assert stops.feed("more") == ("", True)
    assert stops.flush() == ""


def test_flush_gives_what_was_held() -> None:
    stops = StopStrings(["abc"])
    assert stops.feed("xab") == ("x", False)
    assert stops.flush() == "ab"
    assert stops.flush() == ""


def test_reset() -> None:
    stops = StopStrings(["ab"])
    assert stops.feed("xab") == ("x", True)
    stops.reset()
    assert stops.feed("ya") == ("y", False)


def test_no_stops_hold_nothing() -> None:
    stops = StopStrings()
    assert stops.feed("anything") == ("anything", False)
    assert stops.flush() == ""


@pytest.mark.parametrize("wrong", [[""], ["a", ""], "ab", [1], [None], ["x" * 20_000]])
def test_wrong_stops(wrong: object) -> None:
    with pytest.raises(SamplingError):
        StopStrings(wrong)  # type: ignore[arg-type]


def test_time_is_linear() -> None:
    """The worst text for searching anew at each piece: a long prefix of a stop string, over and over."""
    stops = StopStrings(["a" * 5000 + "b"])
    start = time.thread_time()
    total = sum(len(stops.feed("a")[0]) for _ in range(50_000))
    assert total == 45_000
    assert time.thread_time() - start < 2.0
