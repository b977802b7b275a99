"""Encoders as kernels against their definition in NumPy: every byte, on weights that are hard and on random ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS, CodecError
from halfbyte.runtime.backends.cpu.args import ENCODE_SCRATCH_BYTES, GROUPS
from halfbyte.runtime.backends.cpu.encode import KERNEL_TYPES, Encoders, kernel_of
from numpy.typing import NDArray

from ..encoder_inputs import COLS, importance, weights
from ..kernel_harness import call

TYPES = [GGMLType[name] for name in KERNEL_TYPES]
by_name = pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
with_or_without = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])


@pytest.fixture(scope="module")
def encoders() -> Iterator[Encoders]:
    with Encoders(2) as encoders:
        yield encoders


def random_weights(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-9, 3, (shape[0], 1))
    return (rng.standard_t(3, shape) * sizes).astype(np.float32)


def given(cols: int, weighted: bool) -> NDArray[np.float32] | None:
    return np.resize(importance(), cols) if weighted else None


@by_name
@with_or_without
def test_hard_weights(encoders: Encoders, ggml_type: GGMLType, weighted: bool) -> None:
    x, columns = weights(), given(COLS, weighted)
    expected = CODECS[ggml_type].encode(x, columns)
    found = encoders.encode(x, ggml_type, columns)
    assert np.flatnonzero((found != expected).any(axis=1)).tolist() == [], "rows that differ"


@by_name
@with_or_without
@pytest.mark.parametrize("shape", [(1, 256), (3, 768), (37, 1280)])
def test_random_weights(encoders: Encoders, ggml_type: GGMLType, weighted: bool, shape: tuple[int, int]) -> None:
    """Of shapes that are not whole batches."""
    x, columns = random_weights(shape, shape[0]), given(shape[1], weighted)
    np.testing.assert_array_equal(encoders.encode(x, ggml_type, columns), CODECS[ggml_type].encode(x, columns))


@pytest.mark.parametrize("ggml_type", [t for t in TYPES if t.block_size == 32], ids=lambda t: t.name)
@with_or_without
def test_rows_that_end_within_a_batch(encoders: Encoders, ggml_type: GGMLType, weighted: bool) -> None:
    x, columns = random_weights((29, 96), 4), given(96, weighted)
    np.testing.assert_array_equal(encoders.encode(x, ggml_type, columns), CODECS[ggml_type].encode(x, columns))


@by_name
@with_or_without
def test_any_number_of_threads_and_no_byte_outside(ggml_type: GGMLType, weighted: bool) -> None:
    codec, at_once = CODECS[ggml_type], GROUPS // KERNEL_TYPES[ggml_type.name]
    x = random_weights((5 * at_once, codec.block_size), 5)
    columns = given(codec.block_size, weighted)
    expected = codec.encode(x, columns)
    for nth in (1, 3, 7):
        memory = np.full(expected.size + 128, 0xA5, np.uint8)
        out, bad = memory[64:-64], np.zeros(1, np.int64)
        power = np.add.accumulate(x * x, axis=1)[:, -1] / np.float32(x.shape[1])
        more = {} if columns is None else {"columns": columns, "power": power}
        call(
            kernel_of(ggml_type, weighted=weighted), nth=nth, scratch=ENCODE_SCRATCH_BYTES, x=x, out=out, bad=bad, n=5,
            cols=codec.block_size, **more,
        )  # fmt: skip
        np.testing.assert_array_equal(out, expected.reshape(-1))
        assert (memory[:64] == 0xA5).all() and (memory[-64:] == 0xA5).all() and not bad[0]


@by_name
@with_or_without
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_cannot_be_encoded(encoders: Encoders, ggml_type: GGMLType, weighted: bool, value: float) -> None:
    x = random_weights((40, 512), 6)
    x[33, 300] = value
    if value == 3e38 and "FP4" in ggml_type.name:
        assert encoders.encode(x, ggml_type).shape[0] == 40  # they have no float16 scale
        return
    words = "float16" if value == 3e38 else "weight 300 of row 33"
    with pytest.raises(CodecError, match=rf"{ggml_type.name}.*{words}"):
        encoders.encode(x, ggml_type, given(512, weighted))


def test_types_without_a_kernel_and_empty_arrays(encoders: Encoders) -> None:
    x = random_weights((3, 256), 7)
    np.testing.assert_array_equal(encoders.encode(x, GGMLType.TQ2_0), CODECS[GGMLType.TQ2_0].encode(x))
    assert encoders.encode(x[:0], GGMLType.Q4_K).shape == (0, 144)
    with pytest.raises(CodecError, match="100 weights"):
        encoders.encode(np.zeros((2, 100), np.float32), GGMLType.Q4_0)


def test_an_importance_of_each_row_is_not_taken_for_that_of_columns(encoders: Encoders) -> None:
    x, given = random_weights((4, 64), 8), np.abs(random_weights((4, 64), 9))
    expected = CODECS[GGMLType.Q4_0].encode(x, given)
    np.testing.assert_array_equal(encoders.encode(x, GGMLType.Q4_0, given), expected)


def test_the_tables_agree() -> None:
    from halfbyte.runtime.backends.cpu.kernels.encode.table import ENCODERS

    assert {name: kind.per for name, kind in ENCODERS.items()} == KERNEL_TYPES
    for name, kind in ENCODERS.items():
        assert (kind.size * kind.per, kind.block_bytes) == (GGMLType[name].block_size, GGMLType[name].block_bytes)
        assert (kind.power_of == "row") == CODECS[GGMLType[name]].needs_row_power
