"""The page: what is in it, that nothing from a model file gets out of its place, and that it needs no network."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType
from halfbyte.tools.report import Report, draw, render
from halfbyte.tools.report.canvas import DPI
from halfbyte.tools.report.colors import COLORS
from halfbyte.tools.report.pictures import Pictures
from halfbyte.tools.report.tradeoff import tradeoff
from matplotlib.image import imread

from .models import HOSTILE, report_of, text_numbers, weights, write_model

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "section", "footer", "h1", "h2", "h3", "p", "br",
    "span", "code", "small", "div", "figure", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "details",
    "summary", "svg", "g", "path", "defs", "clippath", "rect", "use", "text",
}  # fmt: skip
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Elements, attributes and texts; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@dataclass(frozen=True)
class Made:
    report: Report
    pictures: Pictures
    page: str


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three models, with a text; one weight is NaN in one of them, and one divergence is infinite."""
    folder, x = tmp_path_factory.mktemp("hostile"), weights()
    first = write_model(folder / "f.gguf", x, GGMLType.F32)
    x[HOSTILE[0]][1, 5] = np.nan
    changed = {
        "q4$_{x}<b>.gguf": write_model(folder / "a.gguf", weights(), GGMLType.Q4_0),
        "iq2\x1b\u202e.gguf": write_model(folder / "b.gguf", weights(), GGMLType.Q2_K, {HOSTILE[3]: GGMLType.Q8_0}),
        "nan.gguf": write_model(folder / "c.gguf", x, GGMLType.F16),
    }
    kl = [text_numbers(0.02), text_numbers(0.3), text_numbers(math.inf, kl_error=math.nan, ppl_changed=math.nan)]
    report = report_of(changed, first, text=dict(zip(changed, kl, strict=True)))
    pictures = draw(report)
    return Made(report, pictures, render(report, pictures))


def test_page(hostile: Made) -> None:
    reader = Reader(hostile.page)
    check_it_needs_nothing(hostile.page, reader)
    check_names(reader)
    assert [tag for tag, _ in reader.tags].count("svg") == len(list(hostile.pictures)) == 1 + 3 + 3 * 3
    assert all(about["aria-label"] for tag, about in reader.tags if tag == "svg")
    ids = [about["id"] for _, about in reader.tags if "id" in about]
    assert len(ids) == len(set(ids)), "pictures share a page"
    text = " ".join(reader.texts)
    assert "1 of 1,536 weights are not numbers" in text
    assert "nan (∞)" in text, "what has no place in a picture is named"
    assert "NaN ± 0.40" in text and "∞ ± NaN" in text
    assert "words & <text>.txt" in text


def check_it_needs_nothing(page: str, reader: Reader) -> None:
    assert {tag for tag, _ in reader.tags} <= ALLOWED
    for _, about in reader.tags:
        assert not [name for name in about if name.startswith("on") or name in ("src", "srcset", "action")]
        assert about.get("href", "#").startswith("#")
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", re.sub(r">[^<]*<", "><", page))
    assert "default-src 'none'" in page


def check_names(reader: Reader) -> None:
    """Names are there as text: markup as it was, control characters as escapes."""
    texts = set(reader.texts)
    for shown in (
        "blk.0.<script>alert(1)</script>", 'blk.2."><img src=x onerror=alert(1)>&amp;\ufffd', "<script>alert(1)</scri…",
        "blk.1.a\\x1b[31m\\nb\\u202e$\\frac{", "q4$_{x}<b>", "iq2\\x1b\\u202e",
    ):  # fmt: skip
        assert any(shown[:21] in text for text in texts), shown
    for text in texts:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ufffe\uffff]", text)


def test_colors_are_those_of_the_page(hostile: Made) -> None:
    """Or else a picture would not follow it into dark mode."""
    pictures, style = re.findall(r"<svg.*?</svg>", hostile.page, re.DOTALL), hostile.page.partition("</style>")[0]
    for svg in pictures:
        assert "var(--ink)" in svg and not re.search(r"#[0-9a-f]{6}\b", svg)
        assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(re.findall(r"--(\w+):", style)) == set(COLORS)
    assert "prefers-color-scheme: dark" in style and "@media print" in style and "width=device-width" in style


def test_pictures_have_content_and_size(hostile: Made) -> None:
    for picture in (hostile.pictures.tradeoff, hostile.pictures.heatmaps[1], *hostile.pictures.closeups[1]):
        pixels = imread(BytesIO(picture.png()))
        wide, high = picture.figure.get_size_inches() * DPI
        assert pixels.shape[:2] == (round(high), round(wide))
        assert (pixels[..., :3].std(axis=(0, 1)) > 0.02).all(), f"{picture.name} is empty"
        assert re.fullmatch(r"[A-Za-z0-9-]+", picture.name)


def test_the_same_numbers_make_the_same_picture(hostile: Made) -> None:
    again = tradeoff(hostile.report)
    assert again is not None and again.svg() in hostile.page


def test_nothing_changed(tmp_path) -> None:
    first = write_model(tmp_path / "f.gguf", weights(), GGMLType.F16)
    report = report_of({"same.gguf": first}, first)
    page = render(report, draw(report))
    assert report.tensor is None
    text = " ".join(Reader(page).texts)
    assert "no weight changed" in text and "same (0)" in text and "Without a text" in text
