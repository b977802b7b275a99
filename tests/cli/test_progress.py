"""The progress line."""

from __future__ import annotations

import pytest
from halfbyte.tools.progress import ProgressLine, describe


@pytest.mark.parametrize(
    ("event", "seconds", "text"),
    [
        (("compile", 7, 28), 1, "compiling kernels, first run only [######..................] 7/28"),
        (("download x", 25_000_000, 100_000_000), 3, "download x [######..................] 25.0/100.0 MB 9 s left"),
        (("download x", 0, 0), 1, "download x ..."),
        (("evil\x1b[2J\n", 1, 1), 9, "evil\\x1b[2J\\n [########################] 1/1"),
        (("more than all", 5, 4), 9, "more than all [########################] 5/4"),
    ],
)
def test_text(event: tuple[str, int, int], seconds: float, text: str) -> None:
    assert describe(*event, seconds) == text


def test_the_line_is_rewritten_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with ProgressLine(enabled=True, clock=lambda: now) as line:
        line("a long stage", 1, 10)
        line("a long stage", 2, 10)  # too soon
        now = 0.2
        line("b", 3, 10)
    drawn = capsys.readouterr().err
    assert "2/10" not in drawn
    screen = ""
    for part in drawn.split("\r"):
        screen = part + screen[len(part) :]
    assert screen.strip() == ""
    assert "\x1b" not in drawn


def test_nothing_is_drawn_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine() as line:
        line("stage", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_long_lines_do_not_wrap(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    ProgressLine(enabled=True)("s" * 100, 1, 2)
    assert len(capsys.readouterr().err) <= 20
