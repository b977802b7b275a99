"""Emitting vector code: a vector value in a Python variable, operators for instructions, Python loops for unrolling.

A kernel's inner part is written as a Python function over `Vec` values that runs once, when the kernel is compiled.
LLVM splits vectors wider than the target's registers, so code is written for 16 float32 (or 64 int8) on every machine.
What has no portable form is in dot.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from llvmlite import ir

from ..features import Isa, target

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
_FAST = ("nsz", "arcp", "contract", "afn", "reassoc")
_ROUNDED = ("nsz",)  # not none: Numba gives all flags to instructions that have none


class Vec:
    """An LLVM value (vector or scalar) with operators. Integers wrap; `>>` is logical; division is for floats."""

    __slots__ = ("e", "ll")

    def __init__(self, e: Emitter, ll: ir.Value) -> None:
        self.e, self.ll = e, ll

    @property
    def element(self) -> ir.Type:
        return self.ll.type.element if isinstance(self.ll.type, ir.VectorType) else self.ll.type

    @property
    def n(self) -> int:
        """Number of lanes; 0 for a scalar."""
        return self.ll.type.count if isinstance(self.ll.type, ir.VectorType) else 0

    def _is_float(self) -> bool:
        return isinstance(self.element, ir.FloatType | ir.HalfType)

    def _binary(self, other: Vec | float, integer: str, floating: str) -> Vec:
        right = self.e.like(self, other)
        if self._is_float():
            return Vec(self.e, getattr(self.e.b, floating)(self.ll, right.ll, flags=self.e.flags))
        return Vec(self.e, getattr(self.e.b, integer)(self.ll, right.ll))

    def __add__(self, other: Vec | float) -> Vec:
        return self._binary(other, "add", "fadd")

    def __sub__(self, other: Vec | float) -> Vec:
        return self._binary(other, "sub", "fsub")

    def __mul__(self, other: Vec | float) -> Vec:
        return self._binary(other, "mul", "fmul")

    def __truediv__(self, other: Vec | float) -> Vec:
        return self._binary(other, "sdiv", "fdiv")

    def __and__(self, other: Vec | int) -> Vec:
        return self._binary(other, "and_", "and_")

    def __or__(self, other: Vec | int) -> Vec:
        return self._binary(other, "or_", "or_")

    def __xor__(self, other: Vec | int) -> Vec:
        return self._binary(other, "xor", "xor")

    def __lshift__(self, other: Vec | int) -> Vec:
        return self._binary(other, "shl", "shl")

    def __rshift__(self, other: Vec | int) -> Vec:
        return self._binary(other, "lshr", "lshr")

    def __neg__(self) -> Vec:
        return self.e.like(self, 0) - self

    def take(self, lanes: Sequence[int]) -> Vec:
        """Lanes of this vector in a new order, repeats allowed."""
        return self.e.shuffle(self, self, lanes)

    def lane(self, i: int) -> Vec:
        return Vec(self.e, self.e.b.extract_element(self.ll, ir.Constant(I32, i)))


class Emitter:
    """Builds code at the end of an LLVM builder's block, for one instruction-set level.

    `exact`: operators are done one by one, as written and rounded each. Only in kernels that are `exact`, too.
    """

    def __init__(self, builder: ir.IRBuilder, isa: Isa | None = None, *, exact: bool = False) -> None:
        self.b = builder
        self.isa = isa or target().isa
        self.flags = () if exact else _FAST

    # ---- constants, types
    def const(self, element: ir.Type, values: Sequence[float]) -> Vec:
        return Vec(self, ir.Constant(ir.VectorType(element, len(values)), list(values)))

    def scalar(self, element: ir.Type, value: float) -> Vec:
        return Vec(self, ir.Constant(element, value))

    def like(self, model: Vec, value: Vec | float) -> Vec:
        """`value` as an operand for `model`: numbers and scalars become all lanes."""
        if isinstance(value, Vec):
            return self.splat(value, model.n) if model.n and not value.n else value
        if isinstance(model.element, ir.FloatType | ir.HalfType):
            value = float(value)
        return Vec(self, ir.Constant(model.ll.type, [value] * model.n if model.n else value))

    def zero(self, element: ir.Type, n: int) -> Vec:
        return self.const(element, [0.0 if isinstance(element, ir.FloatType) else 0] * n)

    def plus(self, x: Vec, y: Vec) -> Vec:
        """x + y of float operands that are rounded first: no sum is rearranged across it."""
        return Vec(self, self.b.fadd(x.ll, y.ll, flags=_ROUNDED))

    def times(self, x: Vec, y: Vec) -> Vec:
        """x * y, likewise."""
        return Vec(self, self.b.fmul(x.ll, y.ll, flags=_ROUNDED))

    def over(self, x: Vec, y: Vec) -> Vec:
        """x / y, likewise."""
        return Vec(self, self.b.fdiv(x.ll, y.ll, flags=_ROUNDED))

    # ---- memory: addresses are 64-bit integers
    def constant(self, data: bytes) -> ir.Value:
        """The address of bytes that become a part of the kernel, once."""
        module, name = self.b.module, f"halfbyte.constant.{hashlib.sha256(data).hexdigest()[:16]}"
        if name not in module.globals:
            kind = ir.ArrayType(I8, len(data))
            made = ir.GlobalVariable(module, kind, name)
            made.linkage, made.global_constant, made.align = "internal", True, 64
            made.initializer = ir.Constant(kind, bytearray(data))
        return self.b.ptrtoint(module.globals[name], I64)

    def at(self, address: ir.Value, offset: int | ir.Value = 0) -> ir.Value:
        if isinstance(offset, int):
            if offset == 0:
                return address
            offset = ir.Constant(I64, offset)
        return self.b.add(address, offset)

    def index(self, address: ir.Value, i: ir.Value, stride: int) -> ir.Value:
        return self.b.add(address, self.b.mul(i, ir.Constant(I64, stride)))

    def load(self, element: ir.Type, n: int, address: ir.Value, offset: int = 0) -> Vec:
        """n elements (0: a scalar) at any alignment."""
        kind = ir.VectorType(element, n) if n else element
        value = self.b.load(self.b.inttoptr(self.at(address, offset), kind.as_pointer()), typ=kind)
        value.align = 1
        return Vec(self, value)

    def store(self, value: Vec, address: ir.Value, offset: int = 0) -> None:
        pointer = self.b.inttoptr(self.at(address, offset), value.ll.type.as_pointer())
        self.b.store(value.ll, pointer).align = 1

    def prefetch(self, address: ir.Value, offset: int, *, near: bool = True) -> None:
        """Ask for a cache line that will be read soon, into all caches or all but the first. Any address is allowed."""
        from numba.core import cgutils

        pointer = I8.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        function = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0")
        place = self.b.inttoptr(self.at(address, offset), pointer)
        locality = 3 if near else 2
        self.b.call(function, [place, *(ir.Constant(I32, k) for k in (0, locality, 1))])  # 0: to read, 1: data

    # ---- lanes
    def splat(self, value: Vec, n: int) -> Vec:
        undefined = ir.Constant(ir.VectorType(value.ll.type, n), ir.Undefined)
        one = self.b.insert_element(undefined, value.ll, ir.Constant(I32, 0))
        return Vec(self, self.b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, n), [0] * n)))

    def shuffle(self, a: Vec, b: Vec, lanes: Sequence[int]) -> Vec:
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return Vec(self, self.b.shuffle_vector(a.ll, b.ll, mask))

    def pick_bytes(self, source: Vec, places: Sequence[int]) -> Vec:
        """Bytes of a register of 64 in any order (AVX-512 VBMI), with anything behind the last that is wanted."""
        index = self.const(I8, [*places, *[0] * (64 - len(places))])
        return self.call("llvm.x86.avx512.permvar.qi.512", source.ll.type, source, index)

    def concat(self, parts: Sequence[Vec]) -> Vec:
        """Vectors (a power of two of them) end to end."""
        while len(parts) > 1:
            parts = [self.shuffle(a, b, range(2 * a.n)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def gather(self, scalars: Sequence[Vec]) -> Vec:
        """Scalars into the lanes of a vector."""
        vector = ir.Constant(ir.VectorType(scalars[0].ll.type, len(scalars)), ir.Undefined)
        for i, value in enumerate(scalars):
            vector = self.b.insert_element(vector, value.ll, ir.Constant(I32, i))
        return Vec(self, vector)

    def bitcast(self, value: Vec, element: ir.Type, n: int) -> Vec:
        return Vec(self, self.b.bitcast(value.ll, ir.VectorType(element, n) if n else element))

    # ---- conversions
    def _convert(self, op: str, value: Vec, element: ir.Type) -> Vec:
        kind = ir.VectorType(element, value.n) if value.n else element
        return Vec(self, getattr(self.b, op)(value.ll, kind))

    def widen_unsigned(self, value: Vec, element: ir.Type) -> Vec:
        return self._convert("zext", value, element)

    def widen_signed(self, value: Vec, element: ir.Type) -> Vec:
        return self._convert("sext", value, element)

    def truncate(self, value: Vec, element: ir.Type) -> Vec:
        return self._convert("trunc", value, element)

    def to_float(self, value: Vec) -> Vec:
        """Signed integers to float32."""
        return self._convert("sitofp", value, F32)

    def to_integer(self, value: Vec) -> Vec:
        """float32 to int32 without the fraction, for numbers that fit."""
        return self._convert("fptosi", value, I32)

    def half_to_float(self, value: Vec) -> Vec:
        """float16 bits (element I16) to float32."""
        if self.isa.f16c or self.isa.dot == "sdot":
            half = self.bitcast(value, F16, value.n)
            return self._convert("fpext", half, F32)
        # Without the instruction: shift exponent and mantissa into place and correct the bias by an exact product.
        bits = self.widen_unsigned(value, I32)
        magnitude = self.bitcast((bits & 0x7FFF) << 13, F32, value.n) * 2.0**112
        special = self.like(bits, 0x7F800000) | ((bits & 0x3FF) << 13)
        finite = Vec(self, self.b.icmp_unsigned("<", (bits & 0x7C00).ll, self.like(bits, 0x7C00).ll))
        chosen = self.select(finite, self.bitcast(magnitude, I32, value.n), special)
        return self.bitcast(chosen | ((bits & 0x8000) << 16), F32, value.n)

    def float_to_half(self, value: Vec) -> Vec:
        """float32 to float16 bits (element I16), rounding to nearest even."""
        if self.isa.f16c or self.isa.dot == "sdot":
            return self.bitcast(self._convert("fptrunc", value, F16), I16, value.n)
        bits = self.bitcast(value, I32, value.n)
        magnitude = bits & 0x7FFFFFFF
        scaled = self.bitcast(magnitude, F32, value.n)
        # Normal halves: rebias, then add half of the last place, ties to even. Subnormal: let an addition round.
        rebased = magnitude - (112 << 23)
        normal = (rebased + 0xFFF + ((magnitude >> 13) & 1)) >> 13
        subnormal = self.bitcast(scaled + 0.5, I32, value.n) - 0x3F000000
        infinite = self.like(bits, 0x7C00)
        nan = self.like(bits, 0x7E00)
        b = self.b
        small = Vec(self, b.icmp_unsigned("<", magnitude.ll, self.like(bits, 113 << 23).ll))
        large = Vec(self, b.icmp_unsigned(">=", magnitude.ll, self.like(bits, 0x477FF000).ll))
        is_nan = Vec(self, b.icmp_unsigned(">", magnitude.ll, self.like(bits, 0x7F800000).ll))
        half = self.select(is_nan, nan, self.select(large, infinite, self.select(small, subnormal, normal)))
        return self.truncate(half | ((bits >> 16) & 0x8000), I16)

    def brain_to_float(self, value: Vec) -> Vec:
        """bfloat16 bits (element I16) to float32."""
        return self.bitcast(self.widen_unsigned(value, I32) << 16, F32, value.n)

    # ---- arithmetic
    def call(self, name: str, result: ir.Type, *operands: Vec) -> Vec:
        """Call an LLVM intrinsic."""
        from numba.core import cgutils

        kind = ir.FunctionType(result, [o.ll.type for o in operands])
        function = cgutils.get_or_insert_function(self.b.module, kind, name)
        return Vec(self, self.b.call(function, [o.ll for o in operands]))

    def fma(self, x: Vec, y: Vec, z: Vec) -> Vec:
        """x * y + z; one rounding where the machine has it."""
        name = f"llvm.fmuladd.v{x.n}f32" if x.n else "llvm.fmuladd.f32"
        return self.call(name, x.ll.type, x, self.like(x, y), self.like(x, z))

    def rotate(self, x: Vec, left: Sequence[int]) -> Vec:
        """Integer lanes rotated by a constant each."""
        name = f"llvm.fshl.v{x.n}i{x.element.width}"
        return self.call(name, x.ll.type, x, x, self.const(x.element, [k % x.element.width for k in left]))

    def select(self, condition: Vec, yes: Vec, no: Vec) -> Vec:
        return Vec(self, self.b.select(condition.ll, yes.ll, self.like(yes, no).ll))

    def less(self, x: Vec, y: Vec | float) -> Vec:
        return self.compare(x, "<", y)

    def compare(self, x: Vec, op: str, y: Vec | float) -> Vec:
        """A bit for each lane; integers are signed, and of NaN nothing is true but that it differs."""
        right = self.like(x, y).ll
        if not x._is_float():
            return Vec(self, self.b.icmp_signed(op, x.ll, right))
        return Vec(self, self.b.fcmp_unordered(op, x.ll, right) if op == "!=" else self.b.fcmp_ordered(op, x.ll, right))

    def below(self, count: ir.Value, n: int) -> Vec:
        """True in the first `count` (int64) of n lanes."""
        limit = self.splat(Vec(self, self.b.trunc(count, I32)), n)
        return Vec(self, self.b.icmp_signed("<", self.const(I32, range(n)).ll, limit.ll))

    def maximum(self, x: Vec, y: Vec | float) -> Vec:
        other = self.like(x, y)
        return self.select(self.less(other, x), x, other)

    def minimum(self, x: Vec, y: Vec | float) -> Vec:
        other = self.like(x, y)
        return self.select(self.less(x, other), x, other)

    def limited(self, x: Vec, low: int, high: int) -> Vec:
        """Signed integers, none below `low` or above `high`."""
        for name, bound in (("smax", low), ("smin", high)):
            x = self.call(f"llvm.{name}.v{x.n}i{x.element.width}", x.ll.type, x, self.like(x, bound))
        return x

    def any(self, flags: Vec) -> ir.Value:
        """One bit: whether any lane of a comparison is true."""
        word = self.b.bitcast(flags.ll, ir.IntType(flags.n))
        return self.b.icmp_unsigned("!=", word, ir.Constant(word.type, 0))

    def absolute(self, x: Vec) -> Vec:
        return self.call(f"llvm.fabs.v{x.n}f32", x.ll.type, x)

    def round_even(self, x: Vec) -> Vec:
        """float32 to the nearest int32 (ties to even) for |x| < 2^22, by the classic addition of 1.5 * 2^23."""
        magic = self.like(x, 12582912.0)
        shifted = Vec(self, self.b.fadd(x.ll, magic.ll))  # no fast-math: it would cancel the constant
        return self.bitcast(shifted, I32, x.n) - 0x4B400000

    def sum(self, x: Vec) -> Vec:
        """All lanes added: float32 in a tree, integers exactly."""
        if x._is_float():
            start = ir.Constant(F32, -0.0)
            from numba.core import cgutils

            kind = ir.FunctionType(F32, [F32, x.ll.type])
            function = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.vector.reduce.fadd.v{x.n}f32")
            return Vec(self, self.b.call(function, [start, x.ll], fastmath=("reassoc",)))
        return self.call(f"llvm.vector.reduce.add.v{x.n}i{x.element.width}", x.element, x)

    def sums(self, vectors: Sequence[Vec]) -> Vec:
        """The sum of each of 1, 2, 4 or 8 float vectors of 16 lanes, as lanes.

        The upper half of its lanes is added to the lower, and so on: in the same order whatever the others are.
        """
        parts, width = list(vectors), 16
        while width > 1:
            half = width // 2
            if width == 16 or len(parts) == 1:
                pairs = [(v, v) for v in parts]
            else:
                pairs = list(zip(parts[::2], parts[1::2], strict=True))
            parts = [self._halves_added(a, b, half) for a, b in pairs]
            width = half
        return parts[0]

    def _halves_added(self, a: Vec, b: Vec, half: int) -> Vec:
        """Of each 2 * half lanes of a, then of b (once when it is a): the second half plus the first."""
        n = a.n if a is b else 2 * a.n
        first = [k for k in range(n) if k // half % 2 == 0]
        return self.plus(self.shuffle(a, b, first), self.shuffle(a, b, [k + half for k in first]))

    def largest(self, x: Vec) -> Vec:
        """The largest lane of a float vector without NaN."""
        while x.n > 1:
            half = x.n // 2
            x = self.maximum(x.take(range(half)), x.take(range(half, x.n)))
        return x.lane(0)

    # ---- control flow
    def when(self, flag: ir.Value, carried: Sequence[Vec], body: Callable[[list[Vec]], list[Vec]]) -> list[Vec]:
        """carried = body(carried) if flag (one bit). Returns the carried values after it."""
        return self.loop(self.b.zext(flag, I64), carried, lambda _, values: body(values))

    def loop(
        self, count: ir.Value, carried: Sequence[Vec], body: Callable[[ir.Value, list[Vec]], list[Vec]]
    ) -> list[Vec]:
        """for i in range(count): carried = body(i, carried). Returns the carried values after the last round."""
        b = self.b
        before, head, done = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
        inside = b.append_basic_block("body")
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(ir.Constant(I64, 0), before)
        phis = [b.phi(value.ll.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value.ll, before)
        b.cbranch(b.icmp_signed("<", i, count), inside, done)
        b.position_at_end(inside)
        results = body(i, [Vec(self, phi) for phi in phis])
        after = b.block
        i.add_incoming(b.add(i, ir.Constant(I64, 1)), after)
        for phi, value in zip(phis, results, strict=True):
            phi.add_incoming(value.ll, after)
        b.branch(head)
        b.position_at_end(done)
        return [Vec(self, phi) for phi in phis]
