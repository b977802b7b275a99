"""What has no portable form: the int8 dot product and the table look-up, with one branch for each instruction set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir

from ..features import Isa
from .emit import F32, I8, I16, I32, Emitter, Vec


def is_centred(isa: Isa, bits: int) -> bool:
    """Whether `dot` takes codes less 128, because only products of signed bytes are exact there in one instruction."""
    return bits == 8 and isa.dot in ("vpmaddubsw", "sdot")


def dot(e: Emitter, acc: Vec, codes: Vec, x: Vec, bits: int) -> Vec:
    """acc[i] += sum over 4 of codes[4i..] * x[4i..]: codes are unsigned with `bits` bits (less 128 where `is_centred`).

    acc int32 [n / 4], codes and x int8 [n], x from -127 to 127. Exact on every level.
    """
    width = _dot_width(e.isa)
    if codes.n > width:
        return _in_halves(e, lambda e, *parts: dot(e, *parts, bits), acc, codes, x)
    lanes = codes.n // 4
    kind = ir.VectorType(I32, lanes)
    if e.isa.dot == "vpdpbusd" and codes.n in (16, 32, 64):
        name = f"llvm.x86.avx512.vpdpbusd.{codes.n * 8}"
        return e.call(name, kind, acc, e.bitcast(codes, I32, lanes), e.bitcast(x, I32, lanes))
    if e.isa.dot == "vpmaddubsw" and codes.n == 32:
        return acc + _dot_avx2(e, codes, x, bits)
    if e.isa.dot == "sdot" and codes.n == 16:
        codes = codes ^ 0x80 if is_centred(e.isa, bits) else codes
        return e.call("llvm.aarch64.neon.sdot.v4i32.v16i8", kind, acc, codes, x)
    assert not is_centred(e.isa, bits), "less than a register of codes"
    products = e.widen_unsigned(codes, I32) * e.widen_signed(x, I32)
    parts = [products.take(range(k, codes.n, 4)) for k in range(4)]
    return acc + ((parts[0] + parts[1]) + (parts[2] + parts[3]))


def sum_fours(e: Emitter, acc: Vec, codes: Vec) -> Vec:
    """acc[i] += the sum of codes[4i..], unsigned int8 of any size: a dot product with ones, which cannot saturate."""
    ones = e.like(codes, 1)
    if e.isa.dot == "sdot":
        if codes.n > 16:
            return _in_halves(e, sum_fours, acc, codes)
        return e.call("llvm.aarch64.neon.udot.v4i32.v16i8", acc.ll.type, acc, codes, ones)
    return dot(e, acc, codes, ones, 7 if e.isa.dot == "vpmaddubsw" else 8)


def _in_halves(e: Emitter, function: Callable[..., Vec], acc: Vec, *operands: Vec) -> Vec:
    """The same on the first and on the second half of every operand."""
    parts = []
    for k in (0, 1):
        own = [v.take(range(k * v.n // 2, (k + 1) * v.n // 2)) for v in (acc, *operands)]
        parts.append(function(e, *own))
    return e.concat(parts)


def dot_pairs(e: Emitter, acc: Vec, x: Vec, y: Vec) -> Vec:
    """acc[i] += x[2i] * y[2i] + x[2i + 1] * y[2i + 1]: int32, and pairs of int16 in int32 lanes. A register at most."""
    name = {16: "avx512.vpdpwssd.512", 8: "avx512.vpdpwssd.256"}.get(acc.n)
    if e.isa.dot == "vpdpbusd" and name is not None:
        return e.call(f"llvm.x86.{name}", acc.ll.type, acc, x, y)
    if e.isa.dot == "vpmaddubsw" and acc.n == 8:
        words = [e.bitcast(v, I16, 16) for v in (x, y)]
        return acc + e.call("llvm.x86.avx2.pmadd.wd", acc.ll.type, *words)
    low, high = ([signed_shift(v, 0) for v in (x, y)], [signed_shift(v, 1) for v in (x, y)])
    return acc + low[0] * low[1] + high[0] * high[1]


def signed_shift(value: Vec, half: int) -> Vec:
    """The lower or upper int16 of each int32 lane as int32."""
    e = value.e
    raised = value if half else value << 16
    return Vec(e, e.b.ashr(raised.ll, e.like(value, 16).ll))


def _dot_width(isa: Isa) -> int:
    return {"vpdpbusd": isa.lanes * 4, "vpmaddubsw": 32, "sdot": 16, "widen": 16}[isa.dot]


def _dot_avx2(e: Emitter, codes: Vec, x: Vec, bits: int) -> Vec:
    """The instruction takes one side unsigned and adds pairs in int16, where 2 * 128 * 127 fits: signs go to x."""
    if is_centred(e.isa, bits):
        signs = codes ^ 0x80
        codes, x = (e.call("llvm.x86.avx2.psign.b", v.ll.type, v, signs) for v in (signs, x))
    pairs = e.call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 16), codes, x)
    return e.call("llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), pairs, e.const(I16, [1] * 16))


def lookup16(e: Emitter, table: Sequence[int], index: Vec) -> Vec:
    """table[index] per int8 lane, for indices 0..15."""
    width = {"vpdpbusd": 16 * (e.isa.lanes // 4), "vpmaddubsw": 32}.get(e.isa.dot, 16)
    if index.n > width:
        half = index.n // 2
        parts = [lookup16(e, table, index.take(range(k, k + half))) for k in (0, half)]
        return e.concat(parts)
    name = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b", 16: "llvm.x86.ssse3.pshuf.b.128"}
    values = e.const(I8, list(table) * (index.n // 16))
    if e.isa.dot in ("vpdpbusd", "vpmaddubsw"):
        return e.call(name[index.n], index.ll.type, values, index)
    if e.isa.dot == "sdot" and index.n == 16:
        return e.call("llvm.aarch64.neon.tbl1.v16i8", index.ll.type, values, index)
    result = e.like(index, table[0])
    for i, entry in enumerate(table[1:], 1):
        here = Vec(e, e.b.icmp_unsigned("==", index.ll, e.like(index, i).ll))
        result = e.select(here, e.like(index, entry), result)
    return result


def lookup8(e: Emitter, table: Vec, index: Vec, count: int) -> Vec:
    """table[index] per lane: of 16 float32 the first `count`, eight at most, for the lowest four bits of int32."""
    kind = ir.VectorType(F32, e.isa.lanes)
    if e.isa.lanes == 16:
        return e.call("llvm.x86.avx512.permvar.sf.512", kind, table, index)
    if e.isa.lanes == 8:
        low = table.take(range(8))
        halves = [index.take(range(k, k + 8)) for k in (0, 8)]
        return e.concat([e.call("llvm.x86.avx2.permps", kind, low, half) for half in halves])
    result = e.splat(table.lane(0), index.n)
    for k in range(1, count):
        result = e.select(e.compare(index & 15, "==", k), e.splat(table.lane(k), index.n), result)
    return result


def lookup_low(e: Emitter, table: Sequence[int], index: Vec) -> Vec:
    """table[index & 15] per int8 lane."""
    if e.isa.picks_bytes and index.n == 64:  # an instruction that looks at six bits of an index only
        values = e.const(I8, list(table) * 4)
        return e.call("llvm.x86.avx512.permvar.qi.512", index.ll.type, values, index)
    return lookup16(e, table, index & 15)


def lookup16_floats(e: Emitter, table: Sequence[float], index: Vec) -> list[Vec]:
    """table[index] as float32, for int8 indices 0..15: a vector for each 16 of them."""
    parts = [range(i, i + 16) for i in range(0, index.n, 16)]
    if e.isa.lanes == 16:
        values = e.const(F32, table)
        wide = [e.widen_unsigned(index.take(part), I32) for part in parts]
        return [e.call("llvm.x86.avx512.permvar.sf.512", values.ll.type, values, part) for part in wide]
    planes = np.array(table, np.float32).view(np.uint8).reshape(16, 4).T.tolist()
    found = [lookup16(e, plane, index) for plane in planes]
    result = []
    for part in parts:
        words = [e.widen_unsigned(plane.take(part), I32) << 8 * k for k, plane in enumerate(found)]
        result.append(e.bitcast((words[0] | words[1]) | (words[2] | words[3]), F32, 16))
    return result
