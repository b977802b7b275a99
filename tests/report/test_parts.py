"""The parts of a report: numbers, names, levels, samples, colours, places of labels."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from halfbyte.formats.errors import InvalidRequest, UnsupportedError
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.formats.quants import CODECS
from halfbyte.tools.report.canvas import check_library, picture
from halfbyte.tools.report.data import choose_tensor, labels, split_name
from halfbyte.tools.report.files import check_folder, check_page, write
from halfbyte.tools.report.heatmap import Scale
from halfbyte.tools.report.labels import place_labels
from halfbyte.tools.report.levels import probe
from halfbyte.tools.report.numbers import decibels, number, percent, with_error
from halfbyte.tools.report.sample import take_samples

from .models import weights, write_model


def test_numbers() -> None:
    assert [number(x) for x in (0.0912345, 123.4, 1234567, 0.99999, 0, 1.5e-9)] == [
        "0.0912", "123", "1,234,567", "1.00", "0", "1.50e-09",
    ]  # fmt: skip
    assert [number(x) for x in (math.nan, math.inf, -math.inf)] == ["NaN", "∞", "−∞"]
    assert with_error(0.012345, 0.00056) == ("0.01235", "0.00056")
    assert with_error(12.345, 1.2) == ("12.3", "1.2")
    assert with_error(99.2, 0.11) == ("99.20", "0.11")
    assert with_error(0.5, math.nan) == ("0.5000", "NaN")
    assert with_error(0, 0) == ("0", "0")
    assert (percent(0.0123), decibels(math.inf), decibels(20.74)) == ("1.23 %", "∞", "20.7 dB")


def test_labels_are_short_and_different() -> None:
    assert labels("a/m-7B-F16.gguf", ["m-7B-Q4_0.gguf", "b/m-7B-Q4_K_M.gguf"]) == ["Q4_0", "Q4_K_M"]
    assert labels("m.gguf", ["x/m.gguf", "y/m.gguf"]) == ["x/m.gguf", "y/m.gguf"]
    assert labels("m.gguf", ["m.gguf"]) == ["m"]
    assert labels("m.gguf", ["m.gguf", "m.gguf"]) == ["1: m.gguf", "2: m.gguf"]
    (long,) = labels("m.gguf", ["x" * 100])
    assert len(long) == 28 and long.endswith("…")


def test_names_of_tensors() -> None:
    assert split_name("blk.12.attn_q.weight") == (12, "attn_q")
    assert split_name("output.weight") == (None, "output")
    assert split_name("blk.99999999999999.x") == (None, "blk.99999999999999.x")
    assert split_name("blk.٣.x") == (None, "blk.٣.x")


def test_the_worst_tensor_is_chosen() -> None:
    rows = [{"name": name, "relative_rmse": error} for name, error in (("a", 0.1), ("b", 0.2), ("c", 0.0))]
    worse = [{"name": name, "relative_rmse": error} for name, error in (("a", 0.3), ("b", 0.1), ("c", 0.0))]
    changed = [{"tensors": rows}, {"tensors": worse}]
    assert choose_tensor(changed, None) == "a"
    assert choose_tensor(changed, "c") == "c"
    with pytest.raises(InvalidRequest, match=r"no tensor 'aa' .* nearest name is 'a'"):
        choose_tensor(changed, "aa")
    rows[1]["relative_rmse"] = math.nan
    assert choose_tensor(changed, None) == "b"
    assert choose_tensor([{"tensors": [{"name": "a", "relative_rmse": 0.0}]}], None) is None


@pytest.mark.parametrize("type_", ["Q4_0", "Q4_1", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_NL", "IQ4_XS",
                                   "MXFP4", "NVFP4", "TQ2_0"])  # fmt: skip
def test_levels_are_found_by_asking_the_codec(type_: str) -> None:
    codec = CODECS[GGMLType[type_]]
    levels = probe(codec.type)
    assert levels is not None and np.abs(levels.values).max() == 1
    data = codec.encode(weights()["output.weight"]).reshape(-1, codec.block_bytes)
    decoded = codec.decode(data)
    assert levels.explain(data, decoded)
    assert not levels.explain(data, decoded * np.float32(1.02)), "which can fail"
    before, after = levels.place(data, decoded + np.float32(1e-6), decoded)
    assert np.nanmax(np.abs(before - after)) < 0.1
    assert not np.isfinite(levels.place(np.zeros_like(data), decoded)[0]).any() or type_ in ("MXFP4",)


def test_codebooks() -> None:
    q4_0, q4_k, iq4 = (probe(type_) for type_ in (GGMLType.Q4_0, GGMLType.Q4_K, GGMLType.IQ4_NL))
    assert q4_0 is not None and q4_k is not None and iq4 is not None
    np.testing.assert_allclose(q4_0.values, np.arange(-8, 8) / 8)
    np.testing.assert_allclose(q4_k.values, np.arange(16) / 15, rtol=1e-6)
    np.testing.assert_allclose(iq4.values[:3] * 127, [-127, -104, -83], rtol=1e-6)
    assert all(probe(type_) is None for type_ in (GGMLType.F16, GGMLType.IQ2_XXS, GGMLType.IQ1_S))


def test_samples_are_of_the_same_weights(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = weights()
    paths = [write_model(tmp_path / f"{t.name}.gguf", x, t) for t in (GGMLType.F32, GGMLType.Q8_0, GGMLType.Q4_K)]
    monkeypatch.setattr("halfbyte.tools.report.sample.MOST", 1024)
    one, *others = (GGUFFile.open(path) for path in paths)
    fine, coarse = take_samples(one, others, "output.weight")
    for file in (one, *others):
        file.close()
    assert len(fine.before) == 1024
    np.testing.assert_array_equal(fine.before, coarse.before)
    rows = {row.tobytes() for row in x["output.weight"]}
    assert all(row.tobytes() in rows for row in fine.before.reshape(-1, 256))
    assert np.abs(fine.after - fine.before).max() < np.abs(coarse.after - coarse.before).max() < 0.01


def test_scale_of_the_heat_map() -> None:
    scale = Scale.of([0.001, 0.05, 1.0])
    assert (scale.low, scale.high) == (0.01, 1.0)
    assert scale.color(1e-6) == scale.color(0.01) != scale.color(0.011 * 1.5)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks()) and len(scale.ticks()) > 2
    assert Scale.of([0.1]).high == pytest.approx(2 * Scale.of([0.1]).low)


def test_labels_keep_apart() -> None:
    """Eight points so near to each other that names beside them would lie on one another."""
    boxes = []

    def draw_points(axis) -> None:
        x, y = [1 + 0.01 * i for i in range(8)], [1 + 0.01 * (i % 3) for i in range(8)]
        axis.set_xlim(0, 2)
        axis.set_ylim(0, 2)
        place_labels(axis, x, y, [f"model {i}" for i in range(8)], [(v, v) for v in y])
        boxes.extend(text.get_window_extent() for text in axis.texts if text.get_text())

    picture("near", "near", "near", (5, 3.5), draw_points)
    assert len(boxes) == 8
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_where_a_report_may_go(tmp_path) -> None:
    source = tmp_path / "model.html"
    source.write_bytes(b"GGUF")
    with pytest.raises(InvalidRequest, match="is the file that is read"):
        check_page(tmp_path / "." / "model.html", [source])
    with pytest.raises(InvalidRequest, match="HTML file"):
        check_page(tmp_path / "model.gguf", [])
    with pytest.raises(InvalidRequest, match="is a file"):
        check_folder(source, ())
    write(tmp_path / "new.html", b"one")
    write(tmp_path / "new.html", b"two")
    assert (tmp_path / "new.html").read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.html", "new.html"]


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedError, match=r"pictures need matplotlib.*pip install matplotlib"):
        check_library()
