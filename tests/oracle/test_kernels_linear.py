"""Products with weights: both kernels of every type against float64 arithmetic on the decoded weights."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import codec_for, decode
from halfbyte.runtime.backends.cpu import args as records
from halfbyte.runtime.backends.cpu.args import (
    PACKET_BYTES,
    PACKET_COLS,
    PACKET_PARTS,
    ROW_SCRATCH_BYTES,
    gemm_scratch_bytes,
)
from halfbyte.runtime.backends.cpu.features import target
from halfbyte.runtime.backends.cpu.kernels.linear.packets import MOST, SECOND
from numpy.typing import NDArray

from tests.builders_quants import random_blocks
from tests.kernel_harness import call
from tests.tolerances import FLOAT32_SUM, INT8_ACTIVATIONS, INT8_LEVELS, INT16_TERMS

QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"]
QUANTIZED += ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0"]
QUANTIZED += ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
QUANTIZED += ["NF4", "NF4_32"]  # FP4 and FP4_32 are these with another table
FLOATS = ["F32", "F16", "BF16"]


def quantized(x: NDArray[np.float32], nth: int = 2) -> dict[str, np.ndarray]:
    """The int8 form of x for products of panels, made by the kernel."""
    tokens, cols = x.shape
    packed = np.full(records.tiled(tokens) * cols // 32 * records.PACKED_BYTES, 0xA5, np.uint8)
    call("quantize", nth=nth, tokens=tokens, x=x, packed=packed, cols=cols, repeat=1)
    return {"packed": packed}


def parts_of(x: NDArray[np.float32], nth: int = 2) -> dict[str, np.ndarray]:
    """That form as codes [tokens, cols] and numbers [tokens, ...], in the order of linear/act.py; terms as float64."""
    (tokens, cols), tile = x.shape, records.tiled(1)
    groups = cols // 32
    tiles = quantized(x, nth)["packed"].reshape(-1, groups * tile * records.PACKED_BYTES)
    blocks = tiles[:, : 48 * tile * groups].reshape(-1, groups, 48 * tile)
    terms = tiles[:, 48 * tile * groups :].reshape(-1, 4, groups * tile * 4)
    codes = blocks[..., : 32 * tile].reshape(-1, groups, 8, tile, 4).transpose(0, 3, 1, 2, 4)
    parts = {"codes": codes.reshape(-1, cols)[:tokens].view(np.int8)}
    for name, dtype, first, n in (("scale", "f4", 0, 1), ("neg32", "i4", 1, 1), ("neg16", "i4", 2, 2)):
        field = np.ascontiguousarray(blocks[..., 4 * tile * (8 + first) : 4 * tile * (8 + first + n)]).view(dtype)
        parts[name] = field.reshape(-1, groups, n, tile).transpose(0, 3, 1, 2).reshape(-1, groups * n)[:tokens]
    unit = np.ascontiguousarray(terms[:, 3, : 4 * tile]).view(np.float32).reshape(-1, 1)
    for i, name in enumerate(("centre_sum", "sum16", "centres")):
        pairs = np.ascontiguousarray(terms[:, i]).view(np.int16).reshape(-1, groups, tile, 2).transpose(0, 2, 1, 3)
        numbers = (pairs.reshape(-1, 2 * groups) * unit.astype(np.float64))[:tokens]
        parts[name] = numbers[:, : (groups + 1) // 2 * 2 if name == "centres" else None]
    return parts | {"unit": unit[:tokens]}


def as_seen(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The activations that the int8 form of x for panels stands for."""
    parts = parts_of(x)
    codes = parts["codes"].astype(np.float64) + np.repeat(zero_points(x), 32, axis=1)
    return codes * np.repeat(parts["scale"].astype(np.float64), 32, axis=1)


def zero_points(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each 32 columns. The kernel stores only terms that are made of them."""
    blocks = x.reshape(len(x), -1, 32)
    high, low = np.maximum(blocks.max(-1), 0), np.maximum(-blocks.min(-1), 0)
    span = high + low
    inverse = np.divide(np.float32(254), span, out=np.zeros_like(span), where=span != 0)
    return np.rint((high - low) * np.float32(0.5) * inverse).astype(np.float64)


def empty_packets(tokens: int, cols: int) -> np.ndarray:
    """Packets [tokens, packets of a row] of nonsense."""
    return np.full((tokens, -(-cols // PACKET_COLS), PACKET_BYTES), 77, np.uint8)


def in_packets(x: NDArray[np.float32], nth: int = 2) -> np.ndarray:
    """The int8 form of x in packets, made by the kernel."""
    made = empty_packets(*x.shape)
    call("quantize_packets", nth=nth, tokens=len(x), x=x, packets=made, cols=x.shape[1], repeat=1)
    return made


def part_of(packets: np.ndarray, name: str) -> np.ndarray:
    """A part of each packet: codes int8 [..., 4, 16, 4] (vector, lane, byte), the others [..., 16]."""
    if name == "codes":
        return packets[..., :256].view(np.int8).reshape(*packets.shape[:-1], 4, 16, 4)
    start = PACKET_PARTS[name]
    return packets[..., start : start + 64].view(np.int32 if name.startswith("neg") else np.float32)


def seen_in(packets: np.ndarray, cols: int) -> NDArray[np.float64]:
    """The activations that packets stand for, in the order of the columns."""
    codes = part_of(packets, "codes").astype(np.float64)
    scale = part_of(packets, "scale").astype(np.float64)[..., None, :, None]
    values = codes * scale  # [tokens, packet, vector m, lane 2 g + j, byte]
    tokens, count = values.shape[:2]
    return values.reshape(tokens, count, 4, 8, 8).swapaxes(2, 3).reshape(tokens, -1)[:, :cols]


def columns(kind: GGMLType) -> list[int]:
    """Ones of which rows are multiplied whole with several tokens, and one of which they are multiplied in parts."""
    block = kind.block_size
    return [256, 768, 2304] if block == 256 else [block, 3 * block, 256, 512 + 3 * block, 2048 + 3 * block]


def tolerance(kernel: str, name: str) -> float:
    """Of a product by rows or by panels, relative to the sum of absolute products."""
    return INT16_TERMS if kernel == "linear_gemm" and name not in FLOATS else FLOAT32_SUM


def as_multiplied(weight: np.ndarray, kind: GGMLType) -> NDArray[np.float64]:
    """The weights that kernels multiply with: those of NF4 and FP4 have levels of eight bits."""
    values = decode(weight, kind).astype(np.float64)
    if not kind.name.startswith(("NF4", "FP4")):
        return values
    from halfbyte.formats.quants.four_bit import EIGHT_BIT_UNITS

    absmax = weight.reshape(-1, kind.block_bytes)[:, :2].copy().view("<f2").astype(np.float64)
    one = EIGHT_BIT_UNITS[kind.name[:3].lower()]
    levels = values.reshape(len(absmax), -1) / np.where(absmax, absmax, 1.0)
    return (np.rint(one * levels) / one * absmax).reshape(values.shape)


@pytest.mark.parametrize("name", ["NF4", "NF4_32", "FP4"])
def test_levels_of_eight_bits(name: str) -> None:
    kind, x = GGMLType[name], np.random.default_rng(1).standard_normal((64, 1024)).astype(np.float32)
    rows = codec_for(kind).encode(x)
    exact = decode(rows, kind)
    assert np.linalg.norm(as_multiplied(rows, kind) - exact) < INT8_LEVELS * np.linalg.norm(exact)


@pytest.mark.parametrize("kernel", ["linear_rows", "linear_gemm"])
@pytest.mark.parametrize("name", [*QUANTIZED, *FLOATS, "FP4"])
def test_products(name: str, kernel: str) -> None:
    kind, rng = GGMLType[name], np.random.default_rng(len(name))
    sizes = columns(kind) if name not in FLOATS else [1, 15, 16, 31, 172, 2134]
    for cols in sizes:
        for n, tokens, nth in ((1, 1, 1), (37, 7, 3), (65, 13, 2)):
            weight = random_blocks(kind, (n, cols), rng)
            x = rng.standard_normal((tokens, cols)).astype(np.float32)
            bias = rng.standard_normal(n).astype(np.float32) if n > 1 else None
            operand, seen = {"x": x}, x.astype(np.float64)
            if name not in FLOATS and kernel == "linear_rows":
                operand = {"x": in_packets(x)}
                seen = seen_in(operand["x"], cols)
            elif name not in FLOATS:
                operand, seen = quantized(x), as_seen(x)
            residual = rng.standard_normal((tokens, n)).astype(np.float32) if tokens != 7 else None
            out = np.full((tokens, n), np.nan, np.float32)
            limit = tokens if kernel == "linear_rows" else 0
            size = ROW_SCRATCH_BYTES if kernel == "linear_rows" else gemm_scratch_bytes(cols)
            call(
                f"{kernel}.{name}", nth=nth, tokens=tokens, scratch=size, w=weight, row_bytes=kind.row_bytes(cols),
                n=n, out=out,
                bias=0 if bias is None else bias, residual=0 if residual is None else residual, cols=cols, repeat=1,
                limit=limit, **operand,
            )  # fmt: skip
            multiplied = as_multiplied(weight, kind)
            expected = seen @ multiplied.T + (0 if bias is None else bias)
            worst = np.abs(seen) @ np.abs(multiplied).T + 1e-3
            worst += 0 if bias is None else np.abs(bias)
            if residual is not None:
                expected += residual
                worst += np.abs(residual)
            worst_ratio = (np.abs(out - expected) / worst).max()
            assert worst_ratio <= tolerance(kernel, name), (name, cols, n, worst_ratio)


@pytest.mark.parametrize("kernel", ["linear_rows", "linear_gemm"])
def test_the_limit_leaves_the_work_to_the_other_kernel(kernel: str) -> None:
    x, weight = np.ones((3, 32), np.float32), np.ones((2, 32), np.float32)
    out = np.full((3, 2), -1, np.float32)
    limit = 2 if kernel == "linear_rows" else 3
    arguments = {"w": weight, "row_bytes": 128, "n": 2, "cols": 32, "repeat": 1, "x": x, "out": out}
    call(f"{kernel}.F32", nth=2, tokens=3, limit=limit, **arguments)
    assert (out == -1).all()


def test_activations_to_int8() -> None:
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((5, 96)) * np.logspace(-4, 4, 5)[:, None]).astype(np.float32)
    x[2, 32:64] = 0.0
    x[3, :32] += 50_000.0  # all on one side of zero
    x[4, 5] = 1e6  # an outlier: the step is a 254th of the range, not a 127th of the largest
    made = parts_of(x, nth=3)
    blocks = x.reshape(5, 3, 32)
    span = np.maximum(blocks.max(-1), 0) - np.minimum(blocks.min(-1), 0)
    assert np.allclose(made["scale"], span / 254, rtol=1e-6)
    seen = as_seen(x)
    error = np.abs(seen.reshape(5, 3, 32) - blocks).max(-1)
    assert (error <= span / 254 * 1.001).all()  # half a step, and half a step more at an end where the zero was rounded
    codes = made["codes"].astype(np.int64)
    assert not codes[2, 32:64].any()
    offset = 128 if target().isa.dot == "vpdpbusd" else 1
    assert (made["neg32"] == -offset * codes.reshape(5, 3, 32).sum(-1)).all()
    assert (made["neg16"] == -offset * codes.reshape(5, 6, 16).sum(-1)).all()
    rows = rng.standard_normal((7, 320)).astype(np.float32)
    assert np.linalg.norm(as_seen(rows) - rows) / np.linalg.norm(rows) < INT8_ACTIVATIONS


@pytest.mark.parametrize("cols", [32, 96, 128])
def test_terms_of_corrections(cols: int) -> None:
    rng, groups = np.random.default_rng(cols), cols // 32
    x = rng.standard_normal((7, cols)) * np.logspace(-4, 4, 7)[:, None] + rng.standard_normal((7, 1))
    x = x.astype(np.float32)
    x[3] = 0.0
    made, seen = parts_of(x), as_seen(x)
    centre = 32 * zero_points(x) * made["scale"]
    sums = seen.reshape(7, groups, 2, 16).sum(-1)
    exact = np.stack([centre, sums.sum(-1), *np.moveaxis(sums, 2, 0)], axis=-1)
    largest = np.abs(exact).max((1, 2))
    assert np.allclose(made["unit"][:, 0], np.maximum(largest, 1e-30) / 32767, rtol=1e-5)
    half = 0.501 * made["unit"]
    assert (np.abs(made["centre_sum"] - exact[..., :2].reshape(7, -1)) <= half).all()
    assert (np.abs(made["sum16"] - exact[..., 2:].reshape(7, -1)) <= half).all()
    assert (np.abs(made["centres"][:, :groups] - centre) <= half).all()
    assert not made["centres"][:, groups:].any()


@pytest.mark.parametrize("cols", [32, 96, 256, 800])
def test_activations_to_packets(cols: int) -> None:
    rng = np.random.default_rng(cols)
    x = (rng.standard_normal((5, cols)) * np.logspace(-4, 4, 5)[:, None]).astype(np.float32)
    x[2, :32], x[3, :32], x[4, 5] = 0.0, x[3, :32] + 50_000.0, 1e6
    packets = in_packets(x, nth=3)
    parts = {name: part_of(packets, name) for name in PACKET_PARTS}
    padded = np.zeros((5, len(packets[0]) * 256), np.float32)
    padded[:, :cols] = x
    # Lane 2 g + j: columns 32 g + 8 m + 4 j + b.
    lanes = padded.reshape(5, -1, 8, 4, 2, 4).transpose(0, 1, 2, 4, 3, 5).reshape(5, -1, 16, 16)
    largest = np.abs(lanes).max(-1)
    steps = np.divide(largest, parts["scale"], out=np.full_like(largest, MOST), where=largest != 0)
    assert (np.isclose(steps, MOST, rtol=1e-5) | np.isclose(steps, SECOND, rtol=1e-5)).all()
    seen = np.zeros_like(padded, np.float64)
    seen[:, :cols] = seen_in(packets, cols)
    error = np.abs(seen - padded).reshape(5, -1, 8, 4, 2, 4).transpose(0, 1, 2, 4, 3, 5).reshape(lanes.shape).max(-1)
    assert (error <= parts["scale"] / 2 * 1.001).all()
    codes = parts["codes"].astype(np.int64).sum(-1)  # [tokens, packet, vector, lane]
    assert np.array_equal(parts["neg"], -codes.sum(2))
    assert np.array_equal(parts["neg_first"], -codes[:, :, :2].sum(2))
    sums = -parts["neg"] * parts["scale"].astype(np.float64)
    assert np.allclose(parts["sum"], sums, rtol=1e-5, atol=1e-6 * np.abs(x).max())
    lanes_used = (cols - 1) % 256 // 16 + 1
    for name, part in parts.items():
        last = part[:, -1].swapaxes(-2, -1) if name == "codes" else part[:, -1]
        assert not last[..., lanes_used:].any(), name


@pytest.mark.parametrize("name", [*QUANTIZED, *FLOATS])
def test_a_row_product_has_the_same_bits_in_any_company(name: str) -> None:
    kind, rng = GGMLType[name], np.random.default_rng(4)
    cols = columns(kind)[-1] if name in QUANTIZED else 2134
    weight, x = random_blocks(kind, (9, cols), rng), rng.standard_normal((13, cols)).astype(np.float32)

    def product(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.full((len(rows), 9), np.nan, np.float32)
        operand = {"x": rows if name in FLOATS else in_packets(rows)}
        call(
            f"linear_rows.{name}", tokens=len(rows), w=weight, row_bytes=kind.row_bytes(cols), n=9, out=out, cols=cols,
            repeat=1, limit=len(rows), **operand,
        )  # fmt: skip
        return out

    alone = np.concatenate([product(x[t : t + 1]) for t in range(len(x))])
    for tokens in (2, 3, 4, 7, 8, 13):
        assert np.array_equal(product(x[:tokens]), alone[:tokens]), tokens


@pytest.mark.parametrize("name", [*QUANTIZED, *FLOATS])
def test_embedding_rows(name: str) -> None:
    kind, rng = GGMLType[name], np.random.default_rng(7)
    for cols in columns(kind) if name in QUANTIZED else [1, 33]:
        weight = random_blocks(kind, (11, cols), rng)
        ids = np.array([10, 0, 3, 3, 7], np.int32)
        out = np.full((5, cols), np.nan, np.float32)
        call(
            f"embed.{name}", nth=2, tokens=5, step={"tokens": ids}, w=weight, row_bytes=kind.row_bytes(cols), n=11,
            out=out, cols=cols, source=0, factor=1.5,
        )  # fmt: skip
        expected = decode(weight, kind)[ids] * np.float32(1.5)
        assert np.allclose(out, expected, rtol=3e-7, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "F16"])
@pytest.mark.parametrize("shared", [0, 1])
def test_expert_rows(name: str, shared: int) -> None:
    for cols in columns(GGMLType[name]) if name in QUANTIZED else [17, 256]:
        check_expert_rows(name, shared, cols)


def check_expert_rows(name: str, shared: int, cols: int) -> None:
    kind, rng = GGMLType[name], np.random.default_rng(9)
    tokens, used, experts, n = 5, 2, 7, 19
    weight = random_blocks(kind, (experts, n, cols), rng)
    bias = rng.standard_normal((experts, n)).astype(np.float32)
    ids = rng.integers(0, experts, (tokens, used)).astype(np.int32)
    rows = tokens if shared else tokens * used
    x = rng.standard_normal((rows, cols)).astype(np.float32)
    operand = {"x": x if name in FLOATS else in_packets(x)}
    seen = x.astype(np.float64) if name in FLOATS else seen_in(operand["x"], cols)
    out = np.full((tokens * used, n), np.nan, np.float32)
    call(
        f"expert_rows.{name}", nth=3, tokens=tokens, w=weight, row_bytes=kind.row_bytes(cols), n=n, n_expert=experts,
        bias=bias, out=out, ids=ids, n_used=used, shared=shared, cols=cols, **operand,
    )  # fmt: skip
    matrices = decode(weight, kind).astype(np.float64)
    for row, expert in enumerate(ids.ravel()):
        expected = matrices[expert] @ seen[row // used if shared else row] + bias[expert]
        assert np.allclose(out[row], expected, rtol=1e-4, atol=1e-5)
