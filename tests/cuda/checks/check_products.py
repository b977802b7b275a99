"""Products of prompts by cuBLAS: every type of weight becomes bfloat16, and is multiplied."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType
from halfbyte.formats.quants import codec_for, decode
from halfbyte.runtime.backends.cuda import cublas
from halfbyte.runtime.backends.cuda.allocate import DeviceMemory
from halfbyte.runtime.backends.cuda.backend import CUDABackend, needed_bytes, shared_bytes
from halfbyte.runtime.backends.cuda.executor import CUDAExecutor
from halfbyte.runtime.backends.cuda.kernels import dequantize
from halfbyte.runtime.backends.cuda.kernels.linear import FLOATS
from halfbyte.runtime.backends.cuda.package import SIMULATED, cuda
from halfbyte.runtime.backends.cuda.shared import BRAIN_CAPABILITY
from halfbyte.runtime.backends.cuda.weights import UNPACK, table_of
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.ir import Graph, Node, Rows, Value, Weight
from halfbyte.runtime.step import Step

TYPES = sorted({*UNPACK, *FLOATS})
N, COLS, TOKENS = (5, 256, 3) if SIMULATED else (1237, 4096 + 256, 517)
# NF4 and FP4 have levels of eight bits. Of the others some weights lie on the border between two bfloat16, and fall to
# either, by how they are computed. Relative to the largest result.
# Tensor cores cut bits off of the sums that they carry through a row of exact numbers.
EXACT = 2e-6 if SIMULATED else 5e-5
TOLERANCE, ROUNDED = 2e-3, dict.fromkeys(("NF4", "NF4_32", "FP4", "FP4_32"), 1.2e-2)

if not SIMULATED and not (cublas.is_used(cublas.LEAST) and tuple(cuda.gpus[0].compute_capability) >= BRAIN_CAPABILITY):
    pytest.skip("nvmath-python is not installed, or this GPU has no bfloat16", allow_module_level=True)


def to_brain(values: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def weights_of(name: str, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of a random matrix, and what they mean."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    weights = rng.standard_normal((N, cols)).astype(np.float32)
    codec = codec_for(GGMLType[name])
    data = codec.encode(weights) if name in FLOATS else codec.encode(weights, np.ones(cols, np.float32))
    return data, decode(data, GGMLType[name])


@pytest.mark.parametrize("name", TYPES)
def test_every_type(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two parts, of which the last is smaller; added to a bias and a residual, or to nothing."""
    cols = COLS + 8 if name in FLOATS else COLS
    data, values = weights_of(name, cols)
    monkeypatch.setattr(cublas, "PART_ROWS", 4)
    monkeypatch.setattr(cublas, "PART", 2 * cols * (N - 1))
    rng, memory = np.random.default_rng(1), DeviceMemory()
    x, before = (rng.standard_normal((TOKENS, size)).astype(np.float32) for size in (cols, N))
    bias = np.arange(N, dtype=np.float32)
    stream = cuda.stream()
    blas = cublas.CuBLAS(memory, stream)
    blas.reserve(name, N, cols)
    blas.settle()
    w, table = (memory.upload(array) for array in (data.reshape(-1).view(np.uint8), table_of(name)))
    memory.finish()
    matrix = cublas.Matrix(name, w, data.shape[1], table, N, cols)
    given = cuda.to_device(x.reshape(-1))
    if name != "F32":
        words = cuda.device_array(-(-x.size // 2), np.int32)
        dequantize.to_brain[7, 32, stream](given, x.size, words)
        x, given = to_brain(x), words
    expected = x @ (to_brain(values) if name not in FLOATS or name == "F16" else values).T
    out = cuda.to_device(np.full(TOKENS * N, np.nan, np.float32))
    for adds in (False, True):
        if adds:
            arrays = cuda.to_device(bias), True, cuda.to_device(before.reshape(-1)), True
            dequantize.begin[7, 32, stream](*arrays, N, TOKENS, out)
            expected = expected + before + bias
        blas.multiply(matrix, given, TOKENS, out, adds=adds)
        stream.synchronize()
        found = out.copy_to_host().reshape(TOKENS, N)
        tolerance = EXACT if name in FLOATS else ROUNDED.get(name, TOLERANCE)
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    blas.close()


def test_sizes_decide() -> None:
    assert cublas.tokens_from("Q4_0", 64) == cublas.TOKENS_FROM_QUANTIZED >= cublas.LEAST
    assert cublas.tokens_from("BF16", 64) == cublas.TOKENS_FROM["BF16"]
    assert cublas.tokens_from("F16", 63) == cublas.NEVER
    assert not cublas.is_used(cublas.LEAST - 1)


def weight(name: str, type_: GGMLType, *shape: int) -> Weight:
    values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    return Weight(name, type_, shape, codec_for(type_).encode(values).view(np.uint8))


def layer(type_: GGMLType) -> Graph:
    """A norm, gate and up with one bias, and what is added to a residual."""
    x, residual = (Value(i, f"v{i}", Rows.TOKENS, cols) for i, cols in enumerate((32, 7)))
    normed, hidden, out = (Value(2 + i, f"v{2 + i}", Rows.TOKENS, cols) for i, cols in enumerate((32, 64, 7)))
    single = GGMLType.F32
    gate, up, down = weight("g", type_, 64, 32), weight("up", type_, 64, 32), weight("down", type_, 7, 64)
    nodes = (
        Node("rms_norm", "norm", (x,), (normed,), {"weight": weight("n", single, 32)}, {"eps": 1e-5, "heads": 1}),
        Node(
            "linear_glu", "glu", (normed,), (hidden,),
            {"gate": gate, "up": up, "up_bias": weight("b", single, 64)}, {"act": "silu"},
        ),
        Node("linear_add", "down", (hidden, residual), (out,), {"weight": down}, {}),
    )  # fmt: skip
    return Graph(nodes, out, (), given=(x, residual), kept=(out,))


@pytest.mark.parametrize("type_", [GGMLType.Q8_0, GGMLType.BF16, GGMLType.F32], ids=lambda t: t.name)
def test_steps_of_many_tokens(type_: GGMLType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of four tokens by cuBLAS, of two by kernels; generated tokens as well."""
    graph, made, rng = layer(type_), [], np.random.default_rng(5)
    monkeypatch.setattr(cublas, "TOKENS_FROM", dict.fromkeys(FLOATS, 3))
    monkeypatch.setattr(cublas, "TOKENS_FROM_QUANTIZED", 4)
    monkeypatch.setattr(cublas, "LEAST", 3)
    before = cublas.CuBLAS.multiply

    def multiply(self: cublas.CuBLAS, w: cublas.Matrix, x: object, m: int, *rest: object, **more: bool) -> None:
        made.append((w.type, m))
        before(self, w, x, m, *rest, **more)

    monkeypatch.setattr(cublas.CuBLAS, "multiply", multiply)
    executors = [b.compile(graph, n_pages=1, max_tokens=5, threads=1) for b in (CUDABackend(), ReferenceBackend())]
    for tokens, is_prompt in ((4, True), (2, True), (4, False)):
        numbers = np.arange(tokens, dtype=np.int32)
        step = Step(numbers, numbers, 0 * numbers, np.zeros((1, 1), np.int32), numbers[:0], is_prompt=is_prompt)
        given = {v.id: rng.standard_normal((tokens, v.cols)).astype(np.float32) for v in graph.given}
        found, expected = (executor.run_part(step, given)[graph.logits.id] for executor in executors)
        tolerance = 1e-5 if type_ is GGMLType.F32 else 2e-2
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    executors[0].close()
    assert made == [(type_.name, 4)] * 3


def test_memory_is_counted() -> None:
    """The same as is taken; where cuBLAS is used its workspace, and room for the largest weight."""
    graph = layer(GGMLType.Q8_0)
    for tokens, expected in ((cublas.LEAST - 1, 0), (64, cublas.WORKSPACE + 2 * 64 * 32)):
        executor = CUDAExecutor(graph, 1, tokens)
        assert executor.n_bytes == needed_bytes(graph, 1, tokens)
        assert executor.shared.n_bytes == expected
        assert shared_bytes([graph], tokens) == shared_bytes([graph, graph], tokens) == expected
        executor.close()
        assert executor.shared.is_closed


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The package is there and cannot load what it calls: kernels make all products, and a warning says why."""

    def fail(*args: object) -> None:
        raise RuntimeError("libcublas.so.13 is not found")

    monkeypatch.setattr(cublas, "CuBLAS", fail)
    assert cublas.opened(DeviceMemory(), None) is None
    assert "libcublas.so.13 is not found" in caplog.text
