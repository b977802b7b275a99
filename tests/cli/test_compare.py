"""`halfbyte compare` as a person uses it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from halfbyte.formats.errors import ResourceError
from halfbyte.tools.report.files import check_folder, check_page

from .conftest import Halfbyte

TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " * 12


def quantized(halfbyte: Halfbyte, recipe: str) -> str:
    done = halfbyte("quantize", "stories260k", recipe, "-o", f"{recipe}.gguf")
    assert done.returncode == 0, done.stderr
    return f"{recipe}.gguf"


def test_weights_and_predictions(halfbyte: Halfbyte, tmp_path: Path) -> None:
    models = [quantized(halfbyte, recipe) for recipe in ("Q8_0", "Q4_0")]
    (tmp_path / "text.txt").write_text(TEXT)
    options = ("--context", "64", "--chunks", "3", "--backend", "reference")
    arguments = ("stories260k", *models, "--text", "text.txt", *options)
    about = json.loads(halfbyte("compare", *arguments, "--json").stdout)
    fine, coarse = about["changed"]
    assert (fine["model"], coarse["model"]) == tuple(models)
    assert fine["kinds"]["attn_q"]["relative_rmse"] < coarse["kinds"]["attn_q"]["relative_rmse"] / 8
    assert fine["text"]["tokens"] == coarse["text"]["tokens"] == 3 * 31
    assert 0 < fine["text"]["kl_mean"] < coarse["text"]["kl_mean"] / 8
    assert fine["text"]["ppl_first"] == coarse["text"]["ppl_first"]
    shown = halfbyte("compare", *arguments)
    assert shown.returncode == 0 and not shown.stderr
    for words in ("REL. RMSE", "attn_output", "all", "MEAN KL", f"{coarse['text']['kl_mean']:.5f}"):
        assert words in shown.stdout


def test_without_a_text_models_need_not_run(halfbyte: Halfbyte) -> None:
    name = quantized(halfbyte, "Q5_1")
    done = halfbyte("compare", "stories260k", name, "--tensors")
    assert done.returncode == 0
    assert "blk.4.ffn_up.weight" in done.stdout
    assert "Predictions" not in done.stdout
    itself = halfbyte("compare", name, name)
    assert "inf dB" in itself.stdout


def test_what_goes_wrong(halfbyte: Halfbyte, tmp_path: Path) -> None:
    from ..recipe_models import write

    write(tmp_path / "other.gguf", "alone")
    done = halfbyte("compare", "stories260k", "other.gguf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "only one has" in done.stderr
    assert halfbyte("compare", "stories260k").returncode == 2
    assert "about a --text" in halfbyte("compare", "stories260k", "other.gguf", "--chunks", "2").stderr
    assert halfbyte("compare", "stories260k", "stories260k", "--text", "nowhere.txt").returncode == 2


def test_report_and_pictures(halfbyte: Halfbyte, tmp_path: Path) -> None:
    name = quantized(halfbyte, "Q4_0")
    (tmp_path / "text.txt").write_text(TEXT)
    text = ("--text", "text.txt", "--context", "64", "--chunks", "2", "--backend", "reference")
    targets = ("--report", "out.html", "--png", "pictures", "--tensor", "blk.1.attn_q.weight")
    done = halfbyte("compare", "stories260k", name, *text, *targets, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "wrote out.html\nwrote pictures\n"
    assert json.loads(done.stdout)["changed"][0]["text"]["kl_mean"] > 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "blk.1.attn_q.weight" in page and "text.txt" in page and page.count("<svg") == 5
    made = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert made == ["errors-1-Q4-0.png", "layers-1-Q4-0.png", "size.png", "staircase-1-Q4-0.png", "weights-1-Q4-0.png"]
    assert not list(tmp_path.glob("*.partial"))


def test_what_goes_wrong_with_reports(halfbyte: Halfbyte, tmp_path: Path) -> None:
    """Before anything is measured, and without touching a file."""
    name = quantized(halfbyte, "Q8_0")
    (tmp_path / "model.html").hardlink_to(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    for options, words in (
        (("--report", "nowhere/page.html"), "there is no folder"),
        (("--report", "model.html"), "is the file that is read"),
        (("--report", "page.html", "--tensor", "blk.0.attn_k"), "nearest name is 'blk.0.attn_k.weight'"),
        (("--tensor", "blk.0.attn_q.weight"), "about the pictures"),
    ):
        done = halfbyte("compare", "stories260k", name, *options)
        assert (done.returncode, done.stdout) == (2, ""), options
        assert words in done.stderr
    assert (tmp_path / name).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {name, "model.html"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_nothing_is_lost_for_a_picture(halfbyte: Halfbyte, tmp_path: Path) -> None:
    name = quantized(halfbyte, "Q8_0")
    before, folder = (tmp_path / name).read_bytes(), tmp_path / "pictures"
    folder.mkdir()
    for link, words in ((f"../{name}", "is the file that is read"), ("../elsewhere", "is a link")):
        (folder / "size.png").symlink_to(link)
        done = halfbyte("compare", "stories260k", name, "--png", "pictures")
        assert done.returncode == 2 and words in done.stderr
        (folder / "size.png").unlink()
    (tmp_path / "page.html.partial").write_text(TEXT)
    done = halfbyte("compare", "stories260k", name, "--text", "page.html.partial", "--report", "page.html")
    assert done.returncode == 2 and "page.html.partial is the file that is read" in done.stderr
    assert (tmp_path / name).read_bytes() == before and (tmp_path / "page.html.partial").read_text() == TEXT


def test_folders_that_reports_may_not_be_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_page(tmp_path / "a.html", ())
    check_folder(tmp_path / "b" / "c", ())
    monkeypatch.setattr("os.access", lambda *_: False)
    for check in (lambda: check_page(tmp_path / "a.html", ()), lambda: check_folder(tmp_path / "b" / "c", ())):
        with pytest.raises(ResourceError, match="no permission to write into"):
            check()
