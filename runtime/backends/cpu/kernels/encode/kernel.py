"""The kernel `encode.TYPE`: rows of float32 to blocks.

With `.weighted`, errors cost what an importance says; with `.best`, scales are searched further than ggml does.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Kernel, kernel_family
from ...simd.emit import F32, I32, I64, Emitter, Vec
from ...simd.types import address, emitted
from ..share import share
from .best import searched
from .encoder import LANES, LINE_BYTES, Batch, Encoder
from .lanes import Groups, block_means, turn
from .table import ENCODERS

i64 = types.int64


@kernel_family("encode", exact=True)
def encode(variant: str) -> Kernel:
    """Batch i becomes 16 / per blocks. `bad` becomes 1 where one holds no number, or none that its scale could hold."""
    name, *options = variant.split(".")
    kind = searched(ENCODERS[name]) if "best" in options else ENCODERS[name]
    encode_batch = _batch_encoder(kind, "weighted" in options)
    n_weights, n_bytes = LANES * kind.size, LANES // kind.per * kind.block_bytes

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        start, stop = share(a.n, 1, tid, nth)
        space = step.scratch + np.uint64(tid * step.scratch_bytes)
        for i in range(start, stop):
            x, out = a.x + np.uint64(4 * n_weights * i), a.out + np.uint64(n_bytes * i)
            encode_batch((x, out, space, a.bad, a.columns, a.power, a.points), n_weights * i, a.cols)

    return run


def _batch_encoder(kind: type[Encoder], weighted: bool):  # type: ignore[no-untyped-def]
    @emitted(types.void, types.UniTuple(address, 7), i64, i64, apart=True, exact=True)
    def batch(e: Emitter, where: Vec, first: Vec, cols: Vec) -> None:
        """Sixteen groups from weight `first` of all rows on, each of `cols`."""
        x, out, space, bad, columns, power, points = (e.b.extract_value(where.ll, k) for k in range(7))
        g = Groups(e, kind.size, space)
        turn(e, [e.at(x, 4 * kind.size * k) for k in range(LANES)], kind.size, g.put_x)
        b = Batch(kind, g, x, out, e.at(space, 3 * LINE_BYTES * kind.size), points, weighted)
        b.put_costs = lambda: g.set_costs(lambda line, _: e.like(line, 1.0))
        if weighted:
            starts = [e.b.add(first.ll, ir.Constant(I64, kind.size * k)) for k in range(LANES)]
            own = [e.index(columns, e.b.srem(at, cols.ll), 4) for at in starts]
            rows = [e.index(power, e.b.sdiv(at, cols.ll), 4) for at in starts]
            turn(e, own, kind.size, g.put_cost)
            b.power = _power(e, kind, x, rows)

            def put_costs() -> None:
                turn(e, own, kind.size, g.put_cost)
                b.power = e.gather([e.load(F32, 0, row) for row in rows])
                b.weigh()

            b.put_costs = put_costs
        kind.encode(b)
        is_bad = e.b.or_(e.any(b.is_bad), e.any(_no_numbers(g)))
        e.when(is_bad, [], lambda _: _note(e, bad))

    return batch


def _note(e: Emitter, bad: ir.Value) -> list[Vec]:
    e.store(e.scalar(I64, 1), bad)
    return []


def _no_numbers(g: Groups) -> Vec:
    """Whether a group holds infinity or NaN."""
    e = g.e

    def body(j: ir.Value, most: list[Vec]) -> list[Vec]:
        magnitude = e.bitcast(g.x(j), I32, LANES) & 0x7FFFFFFF
        return [e.call(f"llvm.smax.v{LANES}i32", most[0].ll.type, magnitude, most[0])]

    return e.compare(g.each([e.zero(I32, LANES)], body)[0], ">=", 0x7F800000)


def _power(e: Emitter, kind: type[Encoder], x: ir.Value, rows: list[ir.Value]) -> Vec | None:
    """The mean square around each group: of its row, which stands at an address, or of its block."""
    if kind.power_of == "row":
        return e.gather([e.load(F32, 0, row) for row in rows])
    if kind.power_of == "block":
        return block_means(e, x, kind.per, kind.size, lambda one: one * one) * kind.factor
    return None
