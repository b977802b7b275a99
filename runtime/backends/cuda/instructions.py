"""Loads and instructions as LLVM writes them, for a GPU. Their forms for the simulator: simulated.py.

Addresses are byte offsets into a uint8 array. What ends in `_at` takes an index into an array of words or floats:
Numba's own indexing looks whether an index is negative, which costs more than some loads.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .package import cuda

types: Any = cuda.types
intrinsic: Any = __import__(f"{cuda.__name__}.extending", fromlist=["intrinsic"]).intrinsic
_I8, _I16, _I32 = (ir.IntType(bits) for bits in (8, 16, 32))


def _at(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, element: ir.Type) -> Any:
    data = builder.bitcast(context.make_array(array_type)(context, builder, array).data, ir.PointerType(_I8))
    return builder.bitcast(builder.gep(data, [offset]), ir.PointerType(element))


def _elements(element: ir.Type, count: int, result: Any) -> Any:
    """A load of elements `count` * i and those behind it, `count` together; the array begins at a multiple of 16."""

    @intrinsic
    def load(typing: Any, array: Any, i: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data, index = args
            offset = builder.mul(index, ir.Constant(index.type, 4 * count))
            vector = element if count == 1 else ir.VectorType(element, count)
            found = builder.load(_at(context, builder, signature.args[0], data, offset, vector), align=4 * count)
            if count == 1:
                return found
            parts = [builder.extract_element(found, ir.Constant(_I32, k)) for k in range(count)]
            return context.make_tuple(builder, signature.return_type, parts)

        return result(array, types.int64), codegen

    return load


word_at = _elements(_I32, 1, types.int32)
float_at = _elements(ir.FloatType(), 1, types.float32)
pair_at = _elements(ir.FloatType(), 2, types.UniTuple(types.float32, 2))
four_at = _elements(_I32, 4, types.UniTuple(types.int32, 4))
floats_at = _elements(ir.FloatType(), 4, types.UniTuple(types.float32, 4))


def _load(element: ir.IntType, align: int) -> Any:
    """A load of an unsigned number as int32."""

    @intrinsic
    def load(typing: Any, array: Any, offset: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(_at(context, builder, signature.args[0], *args, element), align=align)
            return value if element is _I32 else builder.zext(value, _I32)

        return types.int32(array, types.int64), codegen

    return load


byte, short, word = _load(_I8, 1), _load(_I16, 2), _load(_I32, 4)


@intrinsic
def four(typing: Any, array: Any, offset: Any) -> Any:
    """16 bytes at an address that is a multiple of 16, as four int32: one load."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = builder.load(_at(context, builder, signature.args[0], *args, ir.VectorType(_I32, 4)), align=16)
        words = [builder.extract_element(vector, ir.Constant(_I32, i)) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(types.int32, 4)(array, types.int64), codegen


@intrinsic
def put_four(typing: Any, array: Any, offset: Any, words: Any) -> Any:
    """Such four words to such an address: one store."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where, at, given = args
        vector = ir.Constant(ir.VectorType(_I32, 4), ir.Undefined)
        for i in range(4):
            word = builder.extract_value(given, i)
            vector = builder.insert_element(vector, word, ir.Constant(_I32, i))
        pointer = _at(context, builder, signature.args[0], where, at, ir.VectorType(_I32, 4))
        builder.store(vector, pointer, align=16)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.UniTuple(types.int32, 4)), codegen


@intrinsic
def half(typing: Any, array: Any, offset: Any) -> Any:
    """A float16 at an even address, as float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_at(context, builder, signature.args[0], *args, ir.HalfType()), align=2)
        return builder.fpext(value, ir.FloatType())

    return types.float32(array, types.int64), codegen


@intrinsic
def half_of(typing: Any, bits: Any) -> Any:
    """The float16 with these 16 bits, as float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.bitcast(builder.trunc(args[0], _I16), ir.HalfType())
        return builder.fpext(value, ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def float_of(typing: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def bits_of(typing: Any, value: Any) -> Any:
    """The bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _I32)

    return types.int32(types.float32), codegen


@intrinsic
def brain_pair(typing: Any, low: Any, high: Any) -> Any:
    """Two float32, rounded to bfloat16: `low` in the lower bits. From compute capability 8.0 on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = ir.FunctionType(_I32, [ir.FloatType()] * 2)
        return builder.asm(function, "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", args, False)

    return types.int32(types.float32, types.float32), codegen


def _assembly(text: str) -> Any:
    """An instruction with three operands of 32 bits."""

    @intrinsic
    def instruction(typing: Any, a: Any, b: Any, c: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function = ir.FunctionType(_I32, [_I32] * 3)
            return builder.asm(function, f"{text} $0, $1, $2, $3;", "=r,r,r,r", args, False)

        return types.int32(types.int32, types.int32, types.int32), codegen

    return instruction


def _products(columns: int) -> Any:
    """An instruction of a warp's tensor core: 16 rows of int8 times 8 tokens of int8, added to int32."""
    n_a, n_b = columns // 8, columns // 16
    names = [f"${i}" for i in range(4 + n_a + n_b + 4)]
    groups = [names[:4], names[4 : 4 + n_a], names[4 + n_a : 4 + n_a + n_b], names[4 + n_a + n_b :]]
    operands = ", ".join("{" + ", ".join(group) + "}" for group in groups)
    text = f"mma.sync.aligned.m16n8k{columns}.row.col.s32.s8.s8.s32 {operands};"
    constraints = ",".join(["=r"] * 4 + ["r"] * (n_a + n_b + 4))
    words = types.UniTuple(types.int32, 4)

    @intrinsic
    def multiply(typing: Any, a: Any, b: Any, c: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            sizes = zip(args, (n_a, n_b, 4), strict=True)
            inputs = [builder.extract_value(arg, i) for arg, size in sizes for i in range(size)]
            function = ir.FunctionType(ir.LiteralStructType([_I32] * 4), [_I32] * len(inputs))
            found = builder.asm(function, text, constraints, inputs, True)  # not to be moved: all lanes take part
            return context.make_tuple(builder, words, [builder.extract_value(found, i) for i in range(4)])

        return words(types.UniTuple(types.int32, n_a), types.UniTuple(types.int32, n_b), words), codegen

    return multiply


products_of_16, products_of_32 = _products(16), _products(32)


@intrinsic
def products_of_floats(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """The same for 8 columns of float32, of which the first 11 bits of a significand are multiplied ("tf32")."""
    bits, floats = types.UniTuple(types.int32, 4), types.UniTuple(types.float32, 4)
    text = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, "
    single = ir.FloatType()

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sizes = zip(args, (4, 2, 4), strict=True)
        inputs = [builder.extract_value(arg, i) for arg, size in sizes for i in range(size)]
        function = ir.FunctionType(ir.LiteralStructType([single] * 4), [_I32] * 6 + [single] * 4)
        constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
        found = builder.asm(function, text + "{$10, $11, $12, $13};", constraints, inputs, True)
        return context.make_tuple(builder, floats, [builder.extract_value(found, i) for i in range(4)])

    return floats(bits, types.UniTuple(types.int32, 2), floats), codegen


funnel = _assembly("shf.r.wrap.b32")  # the lowest 32 bits of b and a side by side, moved down by c of 0 to 31
dp4a = _assembly("dp4a.s32.s32")  # c plus the products of the four signed bytes of a and b
prmt = _assembly("prmt.b32")  # four of the eight bytes of a and b, by the lowest three bits of the four nibbles of c
