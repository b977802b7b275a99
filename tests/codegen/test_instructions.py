"""What the int8 dot product compiles to on each instruction-set level, also on machines this test does not run on."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import replace

import llvmlite.binding as llvm
import numpy as np
import pytest
from halfbyte.runtime.backends.cpu.features import LEVELS, Isa, choose_level, rejected_levels
from halfbyte.runtime.backends.cpu.kernels.linear.dots import RowProducts
from halfbyte.runtime.backends.cpu.kernels.linear.part import SIZES, Part, Row
from halfbyte.runtime.backends.cpu.kernels.linear.table import QUANTIZED
from halfbyte.runtime.backends.cpu.simd import tiles
from halfbyte.runtime.backends.cpu.simd.dot import dot, dot_pairs
from halfbyte.runtime.backends.cpu.simd.emit import F32, I8, I32, I64, Emitter, Vec
from llvmlite import ir

# level -> triple, CPU, the instruction that must be there, registers that must not
TARGETS = {
    "amx_bf16": ("x86_64-unknown-linux-gnu", "sapphirerapids", r"vpdpbusd\s.*zmm", None),
    "avx512_bf16": ("x86_64-unknown-linux-gnu", "znver4", r"vpdpbusd\s.*zmm", None),
    "avx512_vnni": ("x86_64-unknown-linux-gnu", "icelake-server", r"vpdpbusd\s.*zmm", None),
    "avx_vnni": ("x86_64-unknown-linux-gnu", "alderlake", r"vpdpbusd\s.*ymm", r"zmm"),
    "avx2": ("x86_64-unknown-linux-gnu", "haswell", r"vpmaddubsw\s.*ymm", r"zmm|vpdpbusd"),
    "neon_dotprod": ("aarch64-unknown-linux-gnu", "apple-m1", r"sdot\s+v", None),
    "generic": ("x86_64-unknown-linux-gnu", "x86-64", r"pmaddwd|pmuludq|pmullw", r"ymm|zmm|pmaddubsw"),
}
NAMES = {level.name: level for level in LEVELS}

Body = Callable[[Emitter, list[ir.Value]], list[Vec]]


@pytest.fixture(scope="module", autouse=True)
def all_targets() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def assembly(isa: Isa, triple: str, cpu: str, body: Body, n_arguments: int) -> str:
    """The optimized assembly of f(addresses...), which stores what `body` returns at the last address."""
    parsed, machine = optimized(isa, triple, cpu, body, n_arguments)
    return machine.emit_assembly(parsed)


def optimized(
    isa: Isa, triple: str, cpu: str, body: Body, n_arguments: int
) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The module of that function, and what compiles it."""
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * n_arguments), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    e = Emitter(builder, isa)
    for i, value in enumerate(body(e, list(function.args))):
        e.store(value, function.args[-1], 256 * i)
    builder.ret_void()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(parsed, builder)
    return parsed, machine


def _dot(bits: int) -> Body:
    def body(e: Emitter, args: list[ir.Value]) -> list[Vec]:
        return [dot(e, e.zero(I32, 16), e.load(I8, 64, args[0]), e.load(I8, 64, args[1]), bits)]

    return body


@pytest.mark.parametrize("level", TARGETS)
def test_dot_product(level: str) -> None:
    triple, cpu, wanted, unwanted = TARGETS[level]
    text = assembly(NAMES[level], triple, cpu, _dot(bits=4), 3)
    assert re.search(wanted, text), text
    assert unwanted is None or not re.search(unwanted, text), text
    assert "\tcall" not in text and "\tbl\t" not in text


@pytest.mark.parametrize("level", TARGETS)
def test_products_of_pairs(level: str) -> None:
    """Pairs of int16, for the corrections of products of panels."""
    triple, cpu, _, unwanted = TARGETS[level]
    lanes = NAMES[level].lanes

    def body(e: Emitter, args: list[ir.Value]) -> list[Vec]:
        return [dot_pairs(e, e.load(I32, lanes, args[2]), *(e.load(I32, lanes, at) for at in args[:2]))]

    text = assembly(NAMES[level], triple, cpu, body, 3)
    wanted = {"vpdpbusd": "vpdpwssd", "vpmaddubsw": "vpmaddwd", "sdot": r"\bs?ml[a-z0-9]*", "widen": "pm[a-z]+"}
    assert re.search(wanted[NAMES[level].dot] + r"\s", text), text
    assert unwanted is None or not re.search(unwanted, text), text
    assert "\tcall" not in text and "\tbl\t" not in text


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("avx2"), reason="AVX2 runs where there is AVX2")
def test_codes_of_8_bits_do_not_saturate() -> None:
    """The instruction adds pairs in int16: the largest codes (less 128) with the smallest and the largest factors."""
    triple, cpu, *_ = TARGETS["avx2"]
    parsed, machine = optimized(NAMES["avx2"], triple, cpu, _dot(bits=8), 3)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 3)(engine.get_function_address("f"))
    x = np.repeat(np.array([-127, 127, -1, 0], np.int8), 16)
    for code in (255, 129, 128, 127, 1, 0):
        codes, found = np.full(64, code, np.uint8), np.zeros(16, np.int32)
        run(*(array.ctypes.data for array in (codes, x, found)))
        assert np.array_equal(found, 4 * (code - 128) * x[::4].astype(np.int32)), code


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("level", TARGETS)
@pytest.mark.parametrize("tokens", ["one", "several"])
def test_row_products_use_it(level: str, kind: str, tokens: str) -> None:
    """A whole row product, compiled for a fixed CPU: vectors throughout, no call left over."""
    triple, cpu, wanted, unwanted = TARGETS[level]

    def body(e: Emitter, args: list[ir.Value]) -> list[Vec]:
        products = RowProducts(e, QUANTIZED[kind])
        if tokens == "one":
            return [products.of_one(*args[:4], is_whole=False)]
        products.of_part(Part((Row(*args[:3]), Row(*args[3:6])), *args[6:12]), SIZES[-1])
        return []

    text = assembly(NAMES[level], triple, cpu, body, 13)
    assert re.search(wanted, text), text
    assert unwanted is None or not re.search(unwanted, text)
    assert not re.search(r"\tcallq?\s|\tbl\s", text), "a call into a library"


@pytest.mark.parametrize("is_whole", [True, False])
def test_rows_of_one_token_have_no_branch_but_their_loop(is_whole: bool) -> None:
    """Another one slows reading from memory, though it always goes the same way."""
    triple, cpu, *_ = TARGETS["avx512_vnni"]

    def body(e: Emitter, args: list[ir.Value]) -> list[Vec]:
        return [RowProducts(e, QUANTIZED["Q4_0"]).of_one(*args[:4], is_whole=is_whole)]

    text = assembly(NAMES["avx512_vnni"], triple, cpu, body, 5)
    jumps = re.findall(r"^\tj(?!mp)\w+", text, re.MULTILINE)
    assert len(jumps) <= 3, text  # whether there is a packet, whether two at once, and the loop


def test_blocks_are_picked_out_of_registers() -> None:
    """With AVX-512 VBMI: two instructions for the codes of eight blocks, one for all their scales."""
    triple, cpu, *_ = TARGETS["avx512_vnni"]
    isa = replace(NAMES["avx512_vnni"], picks_bytes=True)

    def body(e: Emitter, args: list[ir.Value]) -> list[Vec]:
        unpacked = QUANTIZED["Q4_0"].in_lanes(e, args[0])
        return [*unpacked.codes, *unpacked.scale]

    text = assembly(isa, triple, cpu, body, 2)
    assert len(re.findall(r"vperm[it]2[bw]\s.*zmm", text)) <= 4, text
    assert "pinsrw" not in text


def test_tiles() -> None:
    """A product of tiles, and the rounding of its operands to bfloat16."""

    def body(e: Emitter, args: list[ir.Value]) -> list[Vec]:
        tiles.clear(e, 0)
        tiles.load(e, 4, args[0])
        tiles.load(e, 6, args[1])
        tiles.multiply(e, 0, 4, 6)
        tiles.store(e, 0, args[2])
        return [tiles.brain_pairs(e, e.load(F32, 16, args[0]), e.load(F32, 16, args[1]))]

    triple, cpu, *_ = TARGETS["amx_bf16"]
    text = assembly(NAMES["amx_bf16"], triple, cpu, body, 3)
    for wanted in ("tilezero", "tileloadd", r"tdpbf16ps\s+%tmm6, %tmm4, %tmm0", "tilestored", r"vcvtne2ps2bf16\s.*zmm"):
        assert re.search(wanted, text), wanted


def test_pairs() -> None:
    """A product of pairs of bfloat16, without tile registers."""

    def body(e: Emitter, args: list[ir.Value]) -> list[Vec]:
        pairs = tiles.brain_pairs(e, e.load(F32, 16, args[0]), e.load(F32, 16, args[0], 64))
        return [tiles.multiply_pairs(e, e.zero(F32, 16), pairs, e.load(I32, 16, args[1]))]

    triple, cpu, *_ = TARGETS["avx512_bf16"]
    text = assembly(NAMES["avx512_bf16"], triple, cpu, body, 3)
    assert re.search(r"vdpbf16ps\s.*zmm", text) and "tmm" not in text, text


def test_levels_are_chosen_by_features() -> None:
    assert choose_level(frozenset()).name == "generic"
    assert choose_level(frozenset({"avx2", "fma", "f16c"})).name == "avx2"
    assert choose_level(frozenset({"avx2", "fma"})).name == "generic"
    for level in LEVELS:
        assert choose_level(level.needs).name == level.name
    everything = frozenset().union(*(level.needs for level in LEVELS))
    assert choose_level(everything) is LEVELS[0]
    assert rejected_levels(frozenset({"avx2", "fma", "f16c"})) == {
        "amx_bf16": ["amx-bf16", "amx-tile", "avx512bf16", "avx512bw", "avx512dq", "avx512f", "avx512vl", "avx512vnni"],
        "avx512_bf16": ["avx512bf16", "avx512bw", "avx512dq", "avx512f", "avx512vl", "avx512vnni"],
        "avx512_vnni": ["avx512bw", "avx512dq", "avx512f", "avx512vl", "avx512vnni"],
        "avx_vnni": ["avxvnni"],
    }
