"""Kernels for every type of weight: what they unpack, and what they multiply."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType
from halfbyte.formats.quants import codec_for, decode
from halfbyte.runtime.backends.cuda.allocate import DeviceMemory
from halfbyte.runtime.backends.cuda.kernels import fragments, linear, rows, tensor_floats, tensor_tiles, tiles
from halfbyte.runtime.backends.cuda.kernels.linear import FLOATS
from halfbyte.runtime.backends.cuda.kernels.quantize import quantize
from halfbyte.runtime.backends.cuda.package import SIMULATED, cuda
from halfbyte.runtime.backends.cuda.simt import THREADS, WARP, WARPS, blocks
from halfbyte.runtime.backends.cuda.weights import UNPACK, table_of
from halfbyte.runtime.ops.elementwise import apply_activation

TYPES = sorted({*UNPACK, *FLOATS})
ROUNDED = dict.fromkeys(("NF4", "NF4_32", "FP4", "FP4_32"), 1e-2)  # their levels become eight bits
N, COLS, TOKENS = (5, 512, 3) if SIMULATED else (517, 4096, 19)
NONE = np.zeros(1, np.float32)


class Matrix:
    """A random one: its bytes, what they mean, and the arguments of kernels that it makes."""

    def __init__(self, name: str, n: int = N, seed: int = 0, cols: int = COLS) -> None:
        rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
        type_ = GGMLType[name]
        self.name, self.n, self.shares = name, n, cols if name in FLOATS else cols // 32
        weights = rng.standard_normal((n, cols)).astype(np.float32)
        if name in FLOATS:
            codec = codec_for(type_)
            self.data = codec.encode(weights)
        else:
            self.data = codec_for(type_).encode(weights, rng.random(cols).astype(np.float32) + np.float32(0.1))
        self.values = decode(self.data, type_)
        memory = DeviceMemory()
        self.w, self.table = (memory.upload(array) for array in (self.data, table_of(name)))
        memory.finish()

    @property
    def start(self) -> tuple[Any, ...]:
        return self.w, self.data.shape[1], self.table, self.n, self.shares


def activations(name: str, m: int, seed: int = 3, cols: int = COLS) -> tuple[np.ndarray, tuple[Any, ...]]:
    """float32 [m, cols] as kernels see them, and what they are given."""
    x = np.random.default_rng(seed).standard_normal((m, cols)).astype(np.float32)
    x[0, :32] = 0
    device = cuda.to_device(x.reshape(-1))
    if name in FLOATS:
        return x, (device, device, device)
    groups, per_row = x.size // 32, cols // 32
    codes = cuda.to_device(np.zeros(x.size, np.int8))
    scale, sums = cuda.to_device(np.zeros(groups, np.float32)), cuda.to_device(np.zeros(2 * groups, np.float32))
    quantize[blocks(-(-groups // WARPS)), (WARP, WARPS)](device, codes, scale, sums, per_row, groups)
    found = codes.copy_to_host().reshape(-1, 32) * scale.copy_to_host()[:, None]
    assert np.abs(found - x.reshape(-1, 32)).max() <= np.abs(x).max() / 127 * 0.51
    halves = found.reshape(-1, 16).sum(axis=1)
    assert np.allclose(sums.copy_to_host(), halves, atol=1e-4)
    return found.reshape(x.shape), (codes.view(np.int32), scale, sums)


def is_near(found: Any, expected: np.ndarray, tolerance: float) -> bool:
    found = found.copy_to_host().reshape(expected.shape)
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())


def empty(*shape: int) -> Any:
    return cuda.to_device(np.full(int(np.prod(shape)), np.nan, np.float32))


@pytest.mark.parametrize("name", TYPES)
def test_rows_are_unpacked(name: str) -> None:
    matrix, chosen = Matrix(name), np.array([4, 0, 2, 4], np.int32)
    out = empty(len(chosen), COLS)
    w, row_bytes, table, _, shares = matrix.start
    launch = rows.embed(name)[blocks(len(chosen)), THREADS]
    launch(w, row_bytes, table, shares, COLS, cuda.to_device(chosen), len(chosen), np.float32(2), out)
    assert is_near(out, 2 * matrix.values[chosen], ROUNDED.get(name, 1e-7))


@pytest.mark.parametrize("name", TYPES)
def test_products_of_few_rows(name: str) -> None:
    """Three tokens by kernels for two: the last launch has one token too many."""
    matrix, (x, given) = Matrix(name), activations(name, TOKENS)
    bias, before = (np.random.default_rng(i).standard_normal(size).astype(np.float32)
                    for i, size in enumerate((N, TOKENS * N)))  # fmt: skip
    out = empty(TOKENS, N)
    launch = linear.rows(name, 2)[(blocks(-(-N // WARPS)), -(-TOKENS // 2)), (WARP, WARPS)]
    launch(*matrix.start, *given, TOKENS, cuda.to_device(bias), True, cuda.to_device(before), True, out)
    expected = before.reshape(TOKENS, N) + (x @ matrix.values.T + bias)
    assert is_near(out, expected, ROUNDED.get(name, 2e-6))


@pytest.mark.parametrize(("name", "cols"), [
    ("Q4_0", 1120), ("Q8_0", 2080), ("Q6_K", 1280), ("MXFP4", 1056), ("F16", 520), ("BF16", 67), ("F32", 132),
])  # fmt: skip
@pytest.mark.parametrize("n", [1, 3])
def test_rows_begin_and_end_anywhere(name: str, cols: int, n: int) -> None:
    """Several times 1,024 weights and a rest; rows that begin at no multiple of 16 bytes; a last row alone."""
    matrix, (x, given) = Matrix(name, n=n, cols=cols), activations(name, 1, cols=cols)
    out = empty(1, n)
    linear.rows(name, 1)[(1, 1), (WARP, WARPS)](*matrix.start, *given, 1, NONE, False, NONE, False, out)
    assert is_near(out, x @ matrix.values.T, 2e-6)


@pytest.mark.parametrize("name", TYPES)
def test_products_of_many_rows(name: str) -> None:
    matrix, (x, given) = Matrix(name), activations(name, TOKENS)
    out = empty(TOKENS, N)
    grid = -(-N // tiles.ROWS), -(-TOKENS // tiles.TOKENS)
    launch = tiles.tiles(name)[grid, (tiles.ACROSS, tiles.DOWN)]
    launch(*matrix.start, *given, TOKENS, NONE, False, NONE, False, out)
    assert is_near(out, x @ matrix.values.T, ROUNDED.get(name, 2e-6))


@pytest.mark.parametrize("name", sorted({*UNPACK, *tensor_floats.TYPES}))
def test_products_on_tensor_cores(name: str) -> None:
    matrix, (x, given) = Matrix(name), activations(name, TOKENS)
    bias, before = (np.random.default_rng(i).standard_normal(size).astype(np.float32)
                    for i, size in enumerate((N, TOKENS * N)))  # fmt: skip
    out = empty(TOKENS, N)
    grid = -(-N // fragments.ROWS), -(-TOKENS // fragments.TOKENS)
    kernel = tensor_floats.tensor_floats(name) if name in FLOATS else tensor_tiles.tensor_tiles(name)
    launch = kernel[grid, (WARP, fragments.WARPS)]
    launch(*matrix.start, *given, TOKENS, cuda.to_device(bias), True, cuda.to_device(before), True, out)
    expected = before.reshape(TOKENS, N) + (x @ matrix.values.T + bias)
    assert is_near(out, expected, ROUNDED.get(name, 2e-6))


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "F16"])
def test_several_weights_at_once(name: str) -> None:
    """Three of different heights, of which the first has a bias; and two."""
    (x, given), sizes = activations(name, 2), (N, 3, N - 1)
    matrices = [Matrix(name, n=size, seed=i) for i, size in enumerate(sizes)]
    for count in (3, 2):
        bias, outs = np.arange(N, dtype=np.float32), [empty(2, size) for size in sizes]
        arguments: list[Any] = []
        for number, (matrix, out) in enumerate(zip(matrices, outs, strict=True)):
            n = matrix.n if number < count else 0
            arguments += [matrix.w, n, cuda.to_device(bias), number == 0, out]
        launch = linear.together(name, 2)[(blocks(-(-sum(sizes[:count]) // WARPS)), 1), (WARP, WARPS)]
        _, row_bytes, table, _, shares = matrices[0].start
        launch(*arguments, row_bytes, table, shares, *given, 2)
        for number in range(count):
            expected = x @ matrices[number].values.T + (bias if number == 0 else 0)
            assert is_near(outs[number], expected, 2e-6)


@pytest.mark.parametrize("name", ["Q4_K", "IQ3_S", "F16"])
def test_gate_up_and_activation(name: str) -> None:
    gate, up, (x, given) = Matrix(name), Matrix(name, seed=1), activations(name, 2)
    bias, out = np.arange(N, dtype=np.float32), empty(2, N)
    launch = linear.gated(name, 2, "silu")[(blocks(-(-N // WARPS)), 1), (WARP, WARPS)]
    launch(gate.w, up.w, *gate.start[1:], *given, 2, NONE, False, cuda.to_device(bias), True, out)
    expected = apply_activation(x @ gate.values.T, "silu") * (x @ up.values.T + bias)
    assert is_near(out, expected, 5e-6)


@pytest.mark.parametrize("name", ["Q6_K", "MXFP4", "BF16"])
@pytest.mark.parametrize("shared", [True, False])
def test_experts(name: str, shared: bool) -> None:
    """Two tokens with two of three experts each; x has a row a token, or one for each of their experts."""
    stack, (x, given) = Matrix(name, n=3 * N), activations(name, 2 if shared else 4)
    ids, out = np.array([2, 0, 1, 1], np.int32), empty(4, N)
    launch = linear.experts(name)[(4, blocks(-(-N // WARPS))), (WARP, WARPS)]
    w, row_bytes, table, _, shares = stack.start
    launch(w, row_bytes, table, N, shares, *given, cuda.to_device(ids), 2, shared, NONE, False, out)
    matrices = stack.values.reshape(3, N, COLS)
    expected = np.stack([x[slot // 2 if shared else slot] @ matrices[e].T for slot, e in enumerate(ids)])
    assert is_near(out, expected, 2e-6)
