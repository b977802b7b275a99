"""Sixteen groups of weights side by side: line j holds weight j of each group, and each lane is a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from ...args import GROUPS as LANES
from ...args import LINE_BYTES
from ...simd.emit import F32, I1, I8, I32, I64, Emitter, Vec
from ...simd.tiles import transposed

Index = int | ir.Value  # of a line


class Lines:
    """Vectors of sixteen lanes in memory, one after the other."""

    def __init__(self, e: Emitter, at: ir.Value) -> None:
        self.e, self._at = e, at

    def get(self, j: Index, element: ir.Type = F32) -> Vec:
        return self.e.load(element, LANES, self._line(j))

    def put(self, j: Index, line: Vec) -> None:
        self.e.store(line, self._line(j))

    def get_lane(self, j: Index, lane: ir.Value, element: ir.Type = F32) -> Vec:
        return self.e.load(element, 0, self.e.index(self._line(j), lane, 4))

    def put_lane(self, j: Index, lane: ir.Value, value: Vec) -> None:
        self.e.store(value, self.e.index(self._line(j), lane, 4))

    def _line(self, j: Index) -> ir.Value:
        return self.e.at(self._at, LINE_BYTES * j) if isinstance(j, int) else self.e.index(self._at, j, LINE_BYTES)


class Groups:
    """Lines in a thread's private memory: of `size` weights, of what their errors cost, and of their codes."""

    def __init__(self, e: Emitter, size: int, at: ir.Value) -> None:
        self.e, self.size = e, size
        self.xs, self.costs, self.codes = (Lines(e, e.at(at, LINE_BYTES * size * k)) for k in range(3))

    def x(self, j: Index) -> Vec:
        """float32 [16]"""
        return self.xs.get(j)

    def cost(self, j: Index) -> Vec:
        """float32 [16]"""
        return self.costs.get(j)

    def code(self, j: Index) -> Vec:
        """int32 [16]"""
        return self.codes.get(j, I32)

    def put_x(self, j: Index, x: Vec) -> None:
        self.xs.put(j, x)

    def put_cost(self, j: Index, cost: Vec) -> None:
        self.costs.put(j, cost)

    def put_code(self, j: Index, code: Vec) -> None:
        self.codes.put(j, code)

    def each(self, carried: Sequence[Vec], body: Callable[[ir.Value, list[Vec]], list[Vec]]) -> list[Vec]:
        """carried = body(j, carried), line by line."""
        return self.e.loop(ir.Constant(I64, self.size), carried, body)

    def sums(self, count: int, terms: Callable[[ir.Value], Sequence[Vec]]) -> list[Vec]:
        """Of `count` terms of each line their sums, one after the other."""
        zeros = [self.e.zero(F32, LANES)] * count
        return self.each(zeros, lambda j, sums: [a + b for a, b in zip(sums, terms(j), strict=True)])

    def set_costs(self, cost: Callable[[Vec, Vec], Vec]) -> None:
        """cost(x, what stood there) of each line."""

        def body(j: ir.Value, _: list[Vec]) -> list[Vec]:
            self.put_cost(j, cost(self.x(j), self.cost(j)))
            return []

        self.each([], body)


def turn(e: Emitter, groups: Sequence[ir.Value], size: int, put: Callable[[int, Vec], None]) -> None:
    """Sixteen runs of `size` float32, each at its address, into lines."""
    for first in range(0, size, LANES):
        lines = transposed([e.load(F32, LANES, at, 4 * first) for at in groups])
        for j, line in enumerate(lines):
            put(first + j, line)


def byte_rows(lines: Sequence[Vec]) -> list[Vec]:
    """The other way, of int32 below 256: a vector of bytes for each group."""
    parts = []
    for first in range(0, len(lines), LANES):
        small = [line.e.truncate(line, I8) for line in lines[first : first + LANES]]
        parts.append(transposed(small))
    e = lines[0].e
    return [e.concat(pieces) for pieces in zip(*parts, strict=True)]


def lines_of(values: Vec, per: int) -> list[Vec]:
    """One value for each group, `per` of them a block, as lines of blocks: lane k has those of block k, as far as there
    are so many, and then from the first one on again.
    """
    blocks = LANES // per
    return [values.take([per * (k % blocks) + j for k in range(LANES)]) for j in range(per)]


def for_groups(values: Vec, per: int) -> Vec:
    """A value for each block, in the lanes of its groups."""
    return values.take([k // per for k in range(LANES)])


def for_each_lane(e: Emitter, flags: Vec, body: Callable[[ir.Value], None]) -> None:
    """body(lane), lane int64, for those of 16 where a comparison is true."""
    word = e.widen_unsigned(Vec(e, e.b.bitcast(flags.ll, ir.IntType(LANES))), I64)

    def one(_: ir.Value, left: list[Vec]) -> list[Vec]:
        body(e.call("llvm.cttz.i64", I64, left[0], e.scalar(I1, 1)).ll)
        return [left[0] & (left[0] - 1)]

    e.loop(e.call("llvm.ctpop.i64", I64, word).ll, [word], one)


def block_means(e: Emitter, x: ir.Value, per: int, size: int, term: Callable[[Vec], Vec], factor: float = 1.0) -> Vec:
    """`factor` times the mean of term(weight) over each block, in the lanes of its `per` groups of `size`.

    A block's weights at `x` are added one after the other, across its groups: this sum has no lanes to be in.
    """
    blocks, count = LANES // per, per * size

    def body(j: ir.Value, sums: list[Vec]) -> list[Vec]:
        found = [e.load(F32, 0, e.index(x, j, 4), 4 * count * k) for k in range(blocks)]
        return [total + term(one) for total, one in zip(sums, found, strict=True)]

    sums = e.loop(ir.Constant(I64, count), [e.scalar(F32, 0.0)] * blocks, body)
    return for_groups(e.gather([sums[k % blocks] for k in range(LANES)]), per) * factor / float(count)
