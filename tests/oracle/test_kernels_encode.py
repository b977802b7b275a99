"""Encoders as kernels against their definition in NumPy: every byte, on weights that are hard and on random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS, CodecError
from halfbyte.runtime.backends.cpu.args import ENCODE_SCRATCH_BYTES, GROUPS
from halfbyte.runtime.backends.cpu.encode import ALWAYS_WEIGHTED, KERNEL_TYPES, Encoders, kernel_of
from halfbyte.runtime.backends.cpu.points import LATTICE_TYPES, table_of
from numpy.typing import NDArray

from ..encoder_inputs import GIVEN, NEED_IMPORTANCE, importance, kinds_of, weights
from ..kernel_harness import call
from ..lattice_inputs import HARD, hard

TYPES = [GGMLType[name] for name in KERNEL_TYPES]
FLOATS = [GGMLType.F16, GGMLType.BF16]
HARD_KINDS = [(t, kind) for t in TYPES for kind in kinds_of(t.name)]


def with_or_without(types: Iterable[GGMLType]) -> pytest.MarkDecorator:
    """An importance: of each type both, where it can do without."""
    cases = [(t, weighted) for t in types for weighted in (False, True) if weighted or t.name not in NEED_IMPORTANCE]
    names = [f"{t.name}-{'weighted' if weighted else 'plain'}" for t, weighted in cases]
    return pytest.mark.parametrize(("ggml_type", "weighted"), cases, ids=names)


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


@pytest.mark.parametrize(("ggml_type", "kind"), HARD_KINDS, ids=lambda v: getattr(v, "name", v))
def test_hard_weights(encoders: Encoders, ggml_type: GGMLType, kind: str) -> None:
    x, columns = weights(), GIVEN[kind]()
    expected = CODECS[ggml_type].encode(x, columns)
    found = encoders.encode(x, ggml_type, columns)
    assert np.flatnonzero((found != expected).any(axis=1)).tolist() == [], "rows that differ"


@with_or_without(TYPES)
@pytest.mark.parametrize("shape", [(1, 256), (3, 768), (37, 1280)])
def test_random_weights(encoders: Encoders, ggml_type: GGMLType, weighted: bool, shape: tuple[int, int]) -> None:
    """Of shapes that are not whole batches."""
    x, columns = random_weights(shape, shape[0]), given(shape[1], weighted)
    np.testing.assert_array_equal(encoders.encode(x, ggml_type, columns), CODECS[ggml_type].encode(x, columns))


@with_or_without(t for t in TYPES if t.block_size <= 32)
def test_rows_that_end_within_a_batch(encoders: Encoders, ggml_type: GGMLType, weighted: bool) -> None:
    x, columns = random_weights((29, 96), 4), given(96, weighted)
    np.testing.assert_array_equal(encoders.encode(x, ggml_type, columns), CODECS[ggml_type].encode(x, columns))


@with_or_without(TYPES)
def test_any_number_of_threads_and_no_byte_outside(ggml_type: GGMLType, weighted: bool) -> None:
    codec, at_once = CODECS[ggml_type], KERNEL_TYPES[ggml_type.name]
    x = random_weights((5 * at_once, codec.block_size), 5)
    columns = given(codec.block_size, weighted)
    expected = codec.encode(x, columns)
    for nth in (1, 3, 7):
        memory = np.full(expected.size + 128, 0xA5, np.uint8)
        out, bad = memory[64:-64], np.zeros(1, np.int64)
        power = np.add.accumulate(x * x, axis=1)[:, -1] / np.float32(x.shape[1])
        more = {} if columns is None else {"columns": columns, "power": power}
        if ggml_type.name in LATTICE_TYPES:
            more["points"] = table_of(ggml_type.name)
        call(
            kernel_of(ggml_type, weighted=weighted), nth=nth, scratch=ENCODE_SCRATCH_BYTES, x=x, out=out, bad=bad, n=5,
            cols=codec.block_size, **more,
        )  # fmt: skip
        np.testing.assert_array_equal(out, expected.reshape(-1))
        assert (memory[:64] == 0xA5).all() and (memory[-64:] == 0xA5).all() and not bad[0]


@pytest.mark.parametrize("ggml_type", FLOATS, ids=lambda t: t.name)
def test_floats_between_any_two(encoders: Encoders, ggml_type: GGMLType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of the type, the middles between neighbours, and what is next to these."""
    codec = CODECS[ggml_type]
    every = codec.decode(np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(1, -1))
    numbers = np.sort(every[np.isfinite(every)]).astype(np.float64)
    middles = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf)]
    x = np.concatenate([every[np.isfinite(every)], middles, *beside])[None]
    expected = codec.encode(x)
    monkeypatch.setattr(codec, "encode", None)  # it is not asked
    np.testing.assert_array_equal(encoders.encode(x, ggml_type), expected)


@pytest.mark.parametrize("ggml_type", FLOATS, ids=lambda t: t.name)
def test_floats_at_the_end_of_their_range(encoders: Encoders, ggml_type: GGMLType) -> None:
    """What is beyond becomes infinite; NaN and infinity stay."""
    nan = np.array([0x7F800001, 0xFF8FFFFF, 0x7FC00000, 0xFFFFFFFF, 0x7FA02000], np.uint32).view(np.float32)
    ends = np.array([65504, 65519.99, 65520, 1e30, 3.3895313e38, 3.3961773e38, 3.4e38, np.inf], np.float32)
    for x in (ends[:-1], -ends[:-1], np.concatenate([ends, -ends]), nan):
        np.testing.assert_array_equal(encoders.encode(x[None], ggml_type), CODECS[ggml_type].encode(x[None]))


def test_floats_of_one_type_become_those_of_the_other(encoders: Encoders) -> None:
    """Rows of which no number is a whole batch."""
    for before, after in (FLOATS, FLOATS[::-1]):
        rows = CODECS[before].encode(random_weights((7, 33), 12))
        expected = CODECS[after].encode(CODECS[before].decode(rows))
        np.testing.assert_array_equal(encoders.transcode(rows, before, after), expected)


@with_or_without(t for t in TYPES if t not in FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_cannot_be_encoded(encoders: Encoders, ggml_type: GGMLType, weighted: bool, value: float) -> None:
    x = random_weights((40, 512), 6)
    x[33, 300] = value
    if value == 3e38 and ("FP4" in ggml_type.name or ggml_type is GGMLType.Q8_K):
        assert encoders.encode(x, ggml_type).shape[0] == 40  # they have no float16 scale
        return
    words = "float16" if value == 3e38 else "weight 300 of row 33"
    with pytest.raises(CodecError, match=rf"{ggml_type.name}.*{words}"):
        encoders.encode(x, ggml_type, given(512, weighted))


@with_or_without(t for t in TYPES if t.name in LATTICE_TYPES)
@pytest.mark.parametrize("name", HARD)
def test_hard_lattices(encoders: Encoders, ggml_type: GGMLType, weighted: bool, name: str) -> None:
    x, columns = hard(name)
    given = columns if weighted else None
    np.testing.assert_array_equal(encoders.encode(x, ggml_type, given), CODECS[ggml_type].encode(x, given))


@pytest.mark.parametrize("name", sorted(LATTICE_TYPES))
@pytest.mark.parametrize("cost", [1e33, 3e35, 3e38])
def test_costs_of_which_sums_are_large_or_infinite(encoders: Encoders, name: str, cost: float) -> None:
    """Where kernels do not tell, NumPy is asked."""
    x = np.random.default_rng(10).uniform(-2, 2, (2, 256)).astype(np.float32)
    columns, ggml_type = np.full(256, cost, np.float32), GGMLType[name]
    found, expected = (outcome(encode) for encode in (
        lambda: encoders.encode(x, ggml_type, columns), lambda: CODECS[ggml_type].encode(x, columns),
    ))  # fmt: skip
    assert found == expected
    assert isinstance(expected, str) or cost < 3e38


def outcome(encode: Callable[[], NDArray[np.uint8]]) -> bytes | str:
    """The bytes, or what the error says."""
    try:
        return encode().tobytes()
    except CodecError as error:
        return str(error)


@pytest.mark.parametrize("name", NEED_IMPORTANCE)
def test_an_importance_that_is_needed(encoders: Encoders, name: str) -> None:
    with pytest.raises(CodecError, match=f"{name} needs an importance matrix"):
        encoders.encode(random_weights((2, 256), 11), GGMLType[name])


def test_types_without_a_kernel_and_empty_arrays(encoders: Encoders) -> None:
    x = random_weights((3, 256), 7)
    np.testing.assert_array_equal(encoders.encode(x, GGMLType.F32), CODECS[GGMLType.F32].encode(x))
    assert encoders.encode(x[:0], GGMLType.Q4_K).shape == (0, 144)
    with pytest.raises(CodecError, match="100 weights"):
        encoders.encode(np.zeros((2, 100), np.float32), GGMLType.Q4_0)


def test_an_importance_of_each_row_is_not_taken_for_that_of_columns(encoders: Encoders) -> None:
    x, given = random_weights((4, 64), 8), np.abs(random_weights((4, 64), 9))
    expected = CODECS[GGMLType.Q4_0].encode(x, given)
    np.testing.assert_array_equal(encoders.encode(x, GGMLType.Q4_0, given), expected)


def test_the_tables_agree() -> None:
    from halfbyte.runtime.backends.cpu.kernels.encode.table import ENCODERS

    assert {t.name for t in CODECS if t.on_disk} - {"F32"} == set(ENCODERS) == set(KERNEL_TYPES)
    assert set(NEED_IMPORTANCE) == ALWAYS_WEIGHTED
    for name, kind in ENCODERS.items():
        batch = GROUPS * kind.size, GROUPS // kind.per * kind.block_bytes
        assert batch == tuple(KERNEL_TYPES[name] * n for n in (GGMLType[name].block_size, GGMLType[name].block_bytes))
        assert (kind.power_of == "row") == CODECS[GGMLType[name]].needs_row_power
