"""Encoders against ggml's: every byte of every row, with and without an importance of the columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS, CodecError, decode

from ..encoder_inputs import COLS, GIVEN, NEED_IMPORTANCE, checksums, importance, kinds_of, weights

EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures/encoders.json").read_text(encoding="utf-8"))
TYPES = sorted(t for t in CODECS if t.on_disk)
# Weights so small that C multiplies them by infinity and makes integers of that, which means nothing. The scale is
# stored as zero, so they are zero whatever their codes.
UNDEFINED = {("Q4_0", "plain"): [48], ("Q5_0", "plain"): [48]}
UNDEFINED |= {(name, kind): [48] for name in ("Q2_0", "Q8_K") for kind in ("plain", "weighted")}
# Rows with groups of zeros between others: ggml stores the others where they decode to other weights.
MISPLACED = {("IQ3_S", kind): [37, 38, 44, 57] for kind in ("plain", "weighted")}
KINDS = [(t, kind) for t in TYPES for kind in EXPECTED[t.name]]
WEIGHTED = [t for t in TYPES if t.name.endswith("_K") or t.name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS")]
WEIGHTED += [GGMLType.IQ2_S, GGMLType.IQ3_XXS, GGMLType.IQ3_S, GGMLType.IQ1_M]
WEIGHTED.remove(GGMLType.Q8_K)


def test_all_types_are_held_against_ggml() -> None:
    assert {name: list(kinds) for name, kinds in EXPECTED.items()} == {t.name: kinds_of(t.name) for t in TYPES}


@pytest.mark.parametrize(("ggml_type", "kind"), KINDS, ids=lambda v: getattr(v, "name", v))
def test_the_same_bytes_as_ggml(ggml_type: GGMLType, kind: str) -> None:
    found = checksums(CODECS[ggml_type].encode(weights(), GIVEN[kind]()))
    wrong = [i for i, (a, b) in enumerate(zip(found, EXPECTED[ggml_type.name][kind], strict=True)) if a != b]
    assert wrong == (UNDEFINED | MISPLACED).get((ggml_type.name, kind), []), "rows that differ"


def test_groups_of_zeros_do_not_move_the_others() -> None:
    x, iq3_s = weights()[:24], CODECS[GGMLType.IQ3_S]
    with_zeros = np.where(np.arange(COLS) // 32 % 8 == 1, np.float32(0), x)
    whole, found = decode(iq3_s.encode(x), GGMLType.IQ3_S), decode(iq3_s.encode(with_zeros), GGMLType.IQ3_S)
    others = with_zeros != 0
    error = [np.square(v - x)[others].sum() / np.square(x)[others].sum() for v in (found, whole)]
    assert error[0] < 1.1 * error[1]


@pytest.mark.parametrize("ggml_type", WEIGHTED, ids=lambda t: t.name)
def test_importance_lowers_the_error_that_it_weighs(ggml_type: GGMLType) -> None:
    x, columns = weights()[14:24], importance()  # of such a size that scales are not rounded to nothing
    size = np.abs(x).max(axis=1, keepdims=True)
    large = np.sqrt((x * x).mean(axis=1, keepdims=True) + x * x) / size
    cost = columns if ggml_type is GGMLType.Q6_K else columns * large

    def error(given: np.ndarray | None) -> float:
        off = (decode(CODECS[ggml_type].encode(x, given), ggml_type) - x) / size
        return float((cost * off * off).sum())

    assert error(columns) < error(None)


@pytest.mark.parametrize("name", NEED_IMPORTANCE)
def test_importance_that_is_needed(name: str) -> None:
    assert list(EXPECTED[name]) == ["weighted"]
    with pytest.raises(CodecError, match=f"{name} needs an importance matrix"):
        CODECS[GGMLType[name]].encode(weights())


def test_importance_is_checked() -> None:
    x, q4_k = np.zeros((2, COLS), np.float32), CODECS[GGMLType.Q4_K]
    with pytest.raises(CodecError, match=r"importance of \(256,\) columns for rows of 512"):
        q4_k.encode(x, np.ones(256, np.float32))
    for bad in (np.nan, np.inf, -1.0):
        with pytest.raises(CodecError, match="NaN, infinity or a negative"):
            q4_k.encode(x, np.full(COLS, bad, np.float32))
    with pytest.raises(CodecError, match="float64"):
        q4_k.encode(x, np.ones(COLS))  # type: ignore[arg-type]


@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_chunks_and_shapes_change_nothing(ggml_type: GGMLType, monkeypatch: pytest.MonkeyPatch) -> None:
    x, columns, c = weights()[:8].reshape(2, 4, COLS), importance(), CODECS[ggml_type]
    whole = c.encode(x, columns)
    for chunk in (300, 1200, 3 * COLS):
        monkeypatch.setattr("halfbyte.formats.quants.codec.CHUNK_WEIGHTS", chunk)
        np.testing.assert_array_equal(c.encode(x, columns), whole)
        np.testing.assert_array_equal(c.encode(np.asfortranarray(x), columns), whole)
        np.testing.assert_array_equal(c.encode(x[1, 2], columns), whole[1, 2])
