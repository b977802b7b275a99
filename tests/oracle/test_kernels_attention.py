"""kv_store and attention against the reference of the op, on scattered pages with junk wherever nobody may look."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.runtime.backends.cpu.args import (
    SPLIT_TOKENS,
    decode_kernel,
    partials_bytes,
    prompt_attention_bytes,
    scratch_bytes,
)
from halfbyte.runtime.backends.cpu.features import target
from halfbyte.runtime.cache.kv import KVPool
from halfbyte.runtime.graph.ir import KVSpec
from halfbyte.runtime.ops import OPS
from halfbyte.runtime.step import PAGE, Step
from numpy.typing import DTypeLike, NDArray

from tests.kernel_harness import call, queue_of
from tests.oracle.test_kernels_linear import empty_packets, in_packets
from tests.tolerances import ATTENTION, BRAIN_ATTENTION

LAYER = 3
# Tokens and first positions of each sequence of a step. T = 1, 2, 7, 33 and 70.
STEPS = {
    1: [(1, 317)],
    2: [(1, 40), (1, 0)],
    7: [(4, 30), (1, 0), (2, 97)],
    33: [(33, 17)],
    70: [(3, 0), (66, 31), (1, 128)],
}
# Heads, key/value heads, key dim, value dim: rows of one token 1 2 3 5 7 10 71, dims that are no multiple of a vector.
SHAPES = [
    (3, 3, 24, 40),
    (4, 2, 256, 112),
    (6, 2, 80, 48),
    (5, 1, 64, 32),
    (14, 2, 33, 96),
    (20, 2, 48, 64),
    (71, 1, 16, 24),
]
# With float32 pages: rows that read pages in place, and values that are no whole vectors. Each is one kernel.
F32_DECODE_SHAPES = [(3, 3, 24, 40), (4, 2, 256, 112), (5, 1, 64, 32)]
# Contexts of two parts and of the most, several tokens with and without parts, and more tokens than are split.
DECODE_STEPS = {1: [(1, 317)], 3: [(1, 700), (1, 0), (1, 513)], 33: STEPS[33], 40: [(1, 5000)]}
# Tile registers: dims that are multiples of 32 and 16, steps that begin and end inside blocks of 128 keys.
BLOCK_STEPS = {**STEPS, 230: [(170, 37), (60, 300)]}
BLOCK_SHAPES = [(4, 2, 256, 112), (5, 1, 64, 32), (3, 3, 32, 16), (71, 1, 64, 80)]


def make_step(parts: list[tuple[int, int]], window: int, rng: np.random.Generator) -> Step:
    """Pages in no order; pages that no token sees are missing from the table."""
    columns = max(first + n - 1 for n, first in parts) // PAGE + 2
    pages = rng.permutation(len(parts) * columns + 3)[: len(parts) * columns].reshape(len(parts), columns)
    for s, (n, first) in enumerate(parts):
        pages[s, (first + n - 1) // PAGE + 1 :] = -1
        if window:
            pages[s, : max(0, first - window + 1) // PAGE] = -1
    positions = np.concatenate([np.arange(first, first + n) for n, first in parts])
    sequence = np.repeat(np.arange(len(parts)), [n for n, _ in parts])
    arrays = (np.zeros(len(positions)), positions, sequence, pages, [])
    return Step(*(np.ascontiguousarray(array, np.int32) for array in arrays))


def make_pool(
    step: Step, parts: list[tuple[int, int]], spec: KVSpec, rng: np.random.Generator, dtype: DTypeLike = np.float16
) -> KVPool:
    """NaN everywhere but in the history of each sequence."""
    pool = KVPool([spec], int(step.pages.max()) + 3, dtype)
    keys, values = pool.keys[LAYER], pool.values[LAYER]
    keys[:], values[:] = np.nan, np.nan
    for s, (_, first) in enumerate(parts):
        for position in range(first):
            page = int(step.pages[s, position // PAGE])
            if page >= 0:
                key = rng.standard_normal((spec.n_head_kv, spec.key_dim))
                pool.store(LAYER, page, position % PAGE, key, rng.standard_normal((spec.n_head_kv, spec.value_dim)))
    return pool


def copy_of(pool: KVPool, spec: KVSpec) -> KVPool:
    copy = KVPool([spec], pool.n_pages, pool.dtype)
    copy.keys[LAYER][:], copy.values[LAYER][:] = pool.keys[LAYER], pool.values[LAYER]
    return copy


def run(
    pool: KVPool, q: NDArray, k: NDArray, v: NDArray, step: Step, spec: KVSpec, n_head: int, nth: int, *,
    scale: float, softcap: float, cancelled: bool = False, blocks: str = "", decode: bool = False,
    packets: NDArray | int = 0, floats: bool = True, whole: bool = False,
) -> NDArray[np.float32]:  # fmt: skip
    """What the executor does for an attention node; `blocks`: a variant in tile registers; `decode`: split contexts,
    with the result as int8 in `packets` too, or only there (`floats`).
    """
    where = {"keys": pool.keys[LAYER], "values": pool.values[LAYER]}
    sizes = {"n_head_kv": spec.n_head_kv, "key_dim": spec.key_dim, "value_dim": spec.value_dim}
    counters = np.full(SPLIT_TOKENS * spec.n_head_kv, 5, np.int64)  # as a cancelled step leaves them
    call(f"kv_store.{pool.kv_type}", nth=nth, step=step, k=k, v=v, **where, **sizes, counters=counters)
    out = np.full((len(q), n_head * spec.value_dim), np.nan, np.float32)
    kernel, scratch = f"attention.{pool.kv_type}", scratch_bytes(n_head, *sizes.values())
    if blocks:
        kernel, scratch = f"attention_blocks.{blocks}", prompt_attention_bytes(spec.key_dim, spec.value_dim)
    if decode:
        kernel = decode_kernel(n_head, spec.n_head_kv, spec.value_dim, pool.kv_type)
    partials = np.full(partials_bytes(n_head, spec.n_head_kv, spec.value_dim) + 64, 0xFF, np.uint8)
    call(
        kernel, nth=nth, step=step, cancelled=cancelled, scratch=scratch, q=q, out=out if floats else 0, **where,
        **sizes, n_head=n_head, scale=scale, window=spec.window, softcap=softcap, counters=counters,
        partials=partials[-partials.ctypes.data % 64 :], queue=queue_of(nth),
        packets=packets, whole=int(whole),
    )  # fmt: skip
    return out


@pytest.mark.parametrize("tokens", [1, 7, 70])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[3] % 32 == 0], ids=lambda s: "-".join(map(str, s)))
@pytest.mark.parametrize("both", [True, False])
def test_attention_as_int8(shape: tuple[int, int, int, int], tokens: int, both: bool) -> None:
    """The bits that `quantize` would make of the float32 result, with that result and without."""
    n_head, n_head_kv, key_dim, value_dim = shape
    rng = np.random.default_rng([tokens, *shape])
    spec, step = KVSpec(LAYER, n_head_kv, key_dim, value_dim, 0), make_step(STEPS[tokens], 0, rng)
    pool = make_pool(step, STEPS[tokens], spec, rng)
    sizes = (n_head * key_dim, n_head_kv * key_dim, n_head_kv * value_dim)
    q, k, v = (rng.standard_normal((tokens, size)).astype(np.float32) for size in sizes)
    expected = run(pool, q, k, v, step, spec, n_head, 2, scale=0.2, softcap=0.0, decode=True)
    made = empty_packets(*expected.shape)
    out = run(pool, q, k, v, step, spec, n_head, 3, scale=0.2, softcap=0.0, decode=True, packets=made, floats=both)
    assert np.array_equal(made, in_packets(expected))
    assert not both or np.array_equal(out, expected)


@pytest.mark.parametrize("tokens", STEPS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s)))
def test_attention(shape: tuple[int, int, int, int], tokens: int) -> None:
    _compare(shape, STEPS[tokens], blocks="")


@pytest.mark.parametrize("tokens", DECODE_STEPS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s)))
def test_attention_in_parts(shape: tuple[int, int, int, int], tokens: int) -> None:
    _compare(shape, DECODE_STEPS[tokens], blocks="", decode=True)


@pytest.mark.parametrize("tokens", [7, 70])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s)))
def test_attention_on_float32_pages(shape: tuple[int, int, int, int], tokens: int) -> None:
    _compare(shape, STEPS[tokens], blocks="", dtype=np.float32)


@pytest.mark.parametrize("tokens", [3, 33])
@pytest.mark.parametrize("shape", F32_DECODE_SHAPES, ids=lambda s: "-".join(map(str, s)))
def test_attention_in_parts_on_float32_pages(shape: tuple[int, int, int, int], tokens: int) -> None:
    _compare(shape, DECODE_STEPS[tokens], blocks="", decode=True, dtype=np.float32)


@pytest.mark.parametrize("shape", [(6, 2, 80, 48), (20, 2, 48, 64)], ids=lambda s: "-".join(map(str, s)))
def test_parts_give_the_same_bits_in_any_company(shape: tuple[int, int, int, int]) -> None:
    """By one thread, by five that share the parts of a token, and by five that each do all parts of theirs."""
    n_head, n_head_kv, key_dim, value_dim = shape
    rng, parts = np.random.default_rng(8), [(1, 1301), *[(1, 20 * s) for s in range(10)]]
    spec, step = KVSpec(LAYER, n_head_kv, key_dim, value_dim, 0), make_step(parts, 0, rng)
    pool = make_pool(step, parts, spec, rng)
    sizes = (n_head * key_dim, n_head_kv * key_dim, n_head_kv * value_dim)
    q, k, v = (rng.standard_normal((len(parts), size)).astype(np.float32) for size in sizes)
    options = {"scale": 0.2, "softcap": 0.0, "decode": True}
    together = run(pool, q, k, v, step, spec, n_head, 5, **options)
    arrays = (step.tokens[:1], step.positions[:1], step.sequence[:1], step.pages[:1], step.outputs)
    for nth in (1, 5):
        alone = run(pool, q[:1], k[:1], v[:1], Step(*arrays), spec, n_head, nth, **options)
        assert np.array_equal(alone, together[:1]), nth


@pytest.mark.skipif(not target().isa.tiles, reason="no tile registers, or the system does not give them")
@pytest.mark.parametrize("variant", ["exact", "fast"])
@pytest.mark.parametrize("tokens", BLOCK_STEPS)
@pytest.mark.parametrize("shape", BLOCK_SHAPES, ids=lambda s: "-".join(map(str, s)))
def test_attention_in_tiles(shape: tuple[int, int, int, int], tokens: int, variant: str) -> None:
    _compare(shape, BLOCK_STEPS[tokens], blocks=variant)


def _compare(
    shape: tuple[int, int, int, int], parts: list[tuple[int, int]], *, blocks: str, decode: bool = False,
    dtype: DTypeLike = np.float16,
) -> None:  # fmt: skip
    n_head, n_head_kv, key_dim, value_dim = shape
    tokens = sum(n for n, _ in parts)
    rng = np.random.default_rng([tokens, *shape])
    for nth, window, softcap in ((1, 0, 0.0), (2, 1, 5.0), (3, 40, 0.0), (5, 70, 2.5), (2, 0, 3.0)):
        spec = KVSpec(LAYER, n_head_kv, key_dim, value_dim, window)
        step = make_step(parts, window, rng)
        pool = make_pool(step, parts, spec, rng, dtype)
        expected_pool = copy_of(pool, spec)
        sizes = (n_head * key_dim, n_head_kv * key_dim, n_head_kv * value_dim)
        q, k, v = (rng.standard_normal((tokens, size)).astype(np.float32) for size in sizes)
        found = run(
            pool, q, k, v, step, spec, n_head, nth, scale=1.3 / key_dim**0.5, softcap=softcap, blocks=blocks,
            decode=decode,
        )  # fmt: skip
        expected = OPS["attention"].reference(
            q, k, v, layer=LAYER, n_head=n_head, n_head_kv=n_head_kv, key_dim=key_dim, value_dim=value_dim,
            scale=1.3 / key_dim**0.5, window=window, softcap=softcap, step=step, kv=expected_pool,
        )  # fmt: skip
        for name in ("keys", "values"):
            stored, wanted = getattr(pool, name)[LAYER], getattr(expected_pool, name)[LAYER]
            assert np.array_equal(stored, wanted, equal_nan=True), name
        tolerance = BRAIN_ATTENTION if blocks == "fast" else ATTENTION
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max(), (nth, window, softcap)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[-1]], ids=lambda s: "-".join(map(str, s)))
def test_attention_over_whole_texts(shape: tuple[int, int, int, int]) -> None:
    """Texts of one token, of whole pages and of some more, also behind what is in the cache already."""
    n_head, n_head_kv, key_dim, value_dim = shape
    parts, rng = [(1, 0), (2 * PAGE, 0), (90, 0), (9, 40)], np.random.default_rng(shape)
    spec, step = KVSpec(LAYER, n_head_kv, key_dim, value_dim, 0), make_step(parts, 0, rng)
    sizes = (n_head * key_dim, n_head_kv * key_dim, n_head_kv * value_dim)
    q, k, v = (rng.standard_normal((len(step.tokens), size)).astype(np.float32) for size in sizes)
    for nth, softcap in ((1, 0.0), (3, 2.5)):
        pool = make_pool(step, parts, spec, rng)
        expected = OPS["attention"].reference(
            q, k, v, layer=LAYER, n_head=n_head, n_head_kv=n_head_kv, key_dim=key_dim, value_dim=value_dim,
            scale=0.3, softcap=softcap, causal=False, step=step, kv=copy_of(pool, spec),
        )  # fmt: skip
        found = run(pool, q, k, v, step, spec, n_head, nth, scale=0.3, softcap=softcap, whole=True)
        assert np.abs(found - expected).max() <= ATTENTION * np.abs(expected).max(), nth


def test_scores_far_apart() -> None:
    """Scores from -3e4 to 3e4: the softmax is all on one key, and nothing overflows on the way."""
    rng = np.random.default_rng(1)
    spec, parts = KVSpec(LAYER, 1, 16, 32), [(5, 90)]
    step = make_step(parts, 0, rng)
    pool = make_pool(step, parts, spec, rng)
    q, k, v = (rng.standard_normal((5, size)).astype(np.float32) for size in (32, 16, 32))
    expected_pool = copy_of(pool, spec)
    found = run(pool, q, k, v, step, spec, 2, 2, scale=1e3, softcap=0.0)
    expected = OPS["attention"].reference(
        q, k, v, layer=LAYER, n_head=2, n_head_kv=1, key_dim=16, value_dim=32, scale=1e3, step=step, kv=expected_pool
    )
    assert np.abs(found - expected).max() <= 1e-2  # a score of 3e4 errs by 4e-3, and so does its probability


def test_nan_is_not_hidden() -> None:
    rng = np.random.default_rng(2)
    spec, parts = KVSpec(LAYER, 2, 16, 16), [(3, 40)]
    step = make_step(parts, 0, rng)
    pool = make_pool(step, parts, spec, rng)
    q, k, v = (rng.standard_normal((3, size)).astype(np.float32) for size in (64, 32, 32))
    q[1, 16] = np.nan  # query head 1 of 4
    found = run(pool, q, k, v, step, spec, 4, 2, scale=0.2, softcap=0.0).reshape(3, 4, 16)
    assert np.isnan(found[1, 1]).all()
    found[1, 1] = 0
    assert np.isfinite(found).all()


def test_a_cancelled_step_does_nothing() -> None:
    rng = np.random.default_rng(3)
    spec, parts = KVSpec(LAYER, 2, 16, 16), [(3, 40)]
    step = make_step(parts, 0, rng)
    pool = make_pool(step, parts, spec, rng)
    q, k, v = (rng.standard_normal((3, size)).astype(np.float32) for size in (64, 32, 32))
    assert np.isnan(run(pool, q, k, v, step, spec, 4, 2, scale=0.2, softcap=0.0, cancelled=True)).all()


def test_values_to_half() -> None:
    """kv_store rounds to nearest even, also subnormal halves; too large becomes infinite."""
    x = np.array([1.0, -1.0, 2049.0, 2051.0, 65519.0, 65520.0, -1e9, 6e-8, 2.9e-8, 1e-5, 0.0, -0.0], np.float32)
    x = np.concatenate([x, np.float32(1) + np.arange(20, dtype=np.float32) * np.float32(2.0**-12)])
    spec = KVSpec(LAYER, 1, 32, 32)
    pool = KVPool([spec], 1)
    step = Step(*(np.array(a, np.int32) for a in ([0], [0], [0], [[0]], [])))
    sizes = {"n_head_kv": 1, "key_dim": 32, "value_dim": 32}
    call("kv_store.f16", step=step, k=x, v=x, keys=pool.keys[LAYER], values=pool.values[LAYER], **sizes)
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).view(np.uint16)
    assert (pool.keys[LAYER][0, 0, :, 0].copy().view(np.uint16) == wanted).all()
    assert (pool.values[LAYER][0, 0, 0].view(np.uint16) == wanted).all()
