"""`--search best`: no block with a larger error than ggml's, kernels with the same bytes, and files that say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.quantize import quantize
from halfbyte.formats.errors import InvalidRequest
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.formats.quants import CODECS, FORMS, CodecError, encode_best, row_powers
from halfbyte.runtime.backends.cpu.encode import Encoders
from numpy.typing import NDArray

from ..encoder_inputs import importance, weights
from ..recipe_models import write

KEY = "halfbyte.quantize.search"
# Of normal weights: the error of the search by that of the reference, at most.
SHARES = {
    "Q4_0": 0.90, "Q4_1": 0.83, "Q5_0": 0.91, "Q5_1": 0.87, "Q8_0": 0.85, "Q2_0": 0.27, "IQ4_NL": 0.95, "IQ4_XS": 0.96,
    "MXFP4": 0.96, "NVFP4": 0.78,
}  # fmt: skip
by_type = pytest.mark.parametrize("ggml_type", FORMS, ids=lambda t: t.name)
with_or_without = pytest.mark.parametrize("columns", [None, importance()], ids=["plain", "weighted"])


def errors(
    ggml_type: GGMLType, x: NDArray[np.float32], blocks: NDArray[np.uint8], columns: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    """Of each block, as the search counts them, in float64."""
    wide = x.astype(np.float64)
    cost = 1.0 if columns is None else columns * np.sqrt(row_powers(x)[:, None] + wide * wide)
    off = CODECS[ggml_type].decode(blocks) - wide
    found: NDArray[np.float64] = (cost * off * off).reshape(-1, ggml_type.block_size).sum(axis=1)
    return found


@by_type
@with_or_without
def test_no_block_gets_worse(ggml_type: GGMLType, columns: NDArray[np.float32] | None) -> None:
    x = weights()
    reference, best = CODECS[ggml_type].encode(x, columns), encode_best(ggml_type, x, columns)
    before, after = (errors(ggml_type, x, blocks, columns) for blocks in (reference, best))
    assert np.flatnonzero(after > before).tolist() == []
    assert after.sum() < before.sum()
    same = (best == reference).reshape(len(after), -1).all(axis=1)
    assert (after[~same] < before[~same]).all(), "a block that changed is a better one"


@by_type
def test_normal_weights_get_better_by(ggml_type: GGMLType) -> None:
    x = np.random.default_rng(1).standard_normal((16, 512)).astype(np.float32)
    before = errors(ggml_type, x, CODECS[ggml_type].encode(x), None).sum()
    assert errors(ggml_type, x, encode_best(ggml_type, x), None).sum() < SHARES[ggml_type.name] * before


def test_the_best_of_all_float16_scales() -> None:
    """A block of Q4_0 by trying them all."""
    x = np.random.default_rng(2).standard_normal((4, 32)).astype(np.float32)
    found = errors(GGMLType.Q4_0, x, encode_best(GGMLType.Q4_0, x), None)
    scales = np.arange(0x8000, dtype=np.uint16).view(np.float16).astype(np.float32)
    scales = scales[(scales > 0.01) & (scales < 1)]
    d = np.concatenate([scales, -scales])[:, None, None]
    least = ((np.clip(np.rint(x / d), -8, 7) * d - x) ** 2).sum(axis=2, dtype=np.float64).min(axis=0)
    assert (found < 1.03 * least).all(), found / least


def test_kernels_find_the_same_bytes() -> None:
    """Each form of scales and levels once. On hard weights, and in rows that end within a batch."""
    hard = weights()
    ragged = np.random.default_rng(3).standard_t(4, (13, 768)).astype(np.float32)
    plain, weighted = ("Q5_1", "Q8_0", "Q2_0", "NVFP4"), ("Q4_0", "IQ4_XS", "MXFP4")  # all of them take a minute
    cases = [(GGMLType[name], importance() if name in weighted else None) for name in (*plain, *weighted)]
    Encoders.prepare([(GGMLType.F32, t, w is not None, True) for t, w in cases], 2)
    with Encoders(2) as encoders:
        for ggml_type, columns in cases:
            for x in (hard, ragged):
                given = None if columns is None else np.resize(columns, x.shape[1])
                found = encoders.encode(x, ggml_type, given, best=True)
                rows = (found != encode_best(ggml_type, x, given)).any(axis=1)
                assert np.flatnonzero(rows).tolist() == [], f"{ggml_type.name}: rows that differ"
        with pytest.raises(CodecError, match="float16"):
            encoders.encode(np.full((1, 256), 3e38, np.float32), GGMLType.Q8_0, best=True)
        np.testing.assert_array_equal(  # a type without a search
            encoders.encode(ragged, GGMLType.TQ2_0, best=True), CODECS[GGMLType.TQ2_0].encode(ragged)
        )


def test_files_say_so(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", "alone")
    best, again, plain = tmp_path / "best.gguf", tmp_path / "again.gguf", tmp_path / "plain.gguf"
    done = quantize(tmp_path / "a.gguf", best, "Q8_0", search="Best", overrides=[("ffn_up", "Q4_K")])
    quantize(tmp_path / "a.gguf", plain, "Q8_0", overrides=[("ffn_up", "Q4_K")])
    quantize(best, again, "Q8_0", allow_requantize=True)  # copies what is Q8_0 already, and would be of the reference
    with GGUFFile.open(best) as a, GGUFFile.open(plain) as b, GGUFFile.open(tmp_path / "a.gguf") as source:
        assert a.metadata[KEY] == "best"
        assert KEY not in b.metadata
        assert {k: v.type for k, v in a.tensors.items()} == {k: v.type for k, v in b.tensors.items()}
        for one in done.tensors:
            name, data = one.tensor.name, a.tensors[one.tensor.name].data
            assert one.search == ("best" if one.type is GGMLType.Q8_0 else None)
            if one.search:
                x = CODECS[one.tensor.type].decode(source.tensors[name].data)
                np.testing.assert_array_equal(data, encode_best(one.type, x))
            else:
                np.testing.assert_array_equal(data, b.tensors[name].data)


def test_unknown_names(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", "alone")
    with pytest.raises(InvalidRequest, match="All: reference, best"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0", search="x")
    assert not (tmp_path / "b.gguf").exists()
