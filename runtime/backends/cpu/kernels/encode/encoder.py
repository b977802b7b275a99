"""What an encoder is: the size of its groups and blocks, and how sixteen groups become the bytes of whole blocks."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ...args import ENCODE_LINES, LINE_BYTES
from ...args import GROUPS as LANES
from ...simd.emit import I1, Vec
from .lanes import Groups, Lines


class Batch:
    """Sixteen groups that are being encoded: their lines, and the blocks that they become."""

    def __init__(
        self, kind: type[Encoder], g: Groups, x: ir.Value, out: ir.Value, free_at: ir.Value, points: ir.Value,
        weighted: bool,
    ) -> None:  # fmt: skip
        self.e, self.g, self.per = g.e, g, kind.per
        self.x = x  # where the weights are, block after block
        self.points = points  # where the table of the points of a grid is, for types that have one
        self.weighted = weighted  # there is an importance: it stands in the lines of costs
        self.power: Vec | None = None  # float32 [16]: of a group's row or block, for types that ask for it
        self.put_costs: Callable[[], None]  # what errors cost a search, into its lines: see `_cost` in quants/best.py
        self._out, self._block_bytes = out, kind.block_bytes
        self._free_at, self._free = free_at, ENCODE_LINES - 3 * kind.size
        self.is_bad = g.e.const(I1, [0] * LANES)

    def blocks(self) -> list[tuple[ir.Value, int]]:
        """Address and first group of each."""
        return [(self.e.at(self._out, i * self._block_bytes), i * self.per) for i in range(LANES // self.per)]

    def lines(self, count: int) -> Lines:
        """Memory that nothing else uses."""
        return Lines(self.e, self._memory(count))

    def groups(self, size: int) -> Groups:
        """Sixteen groups of something else, say of scales."""
        return Groups(self.e, size, self._memory(3 * size))

    def _memory(self, lines: int) -> ir.Value:
        self._free -= lines
        assert self._free >= 0, "an encoder needs more than ENCODE_LINES"
        at = self._free_at
        self._free_at = self.e.at(at, LINE_BYTES * lines)
        return at

    def half(self, scale: Vec) -> Vec:
        """float16 bits; a scale that they cannot hold makes the batch bad."""
        bits = self.e.float_to_half(scale)
        self.is_bad = self.is_bad | self.e.compare(bits & 0x7C00, "==", 0x7C00)
        return bits

    def must_be_numbers(self, scale: Vec) -> None:
        """Weights of 1e19 and more, whose squares are infinite, have no scale."""
        self.is_bad = self.is_bad | self.e.compare(scale, "!=", scale)

    def weigh(self) -> None:
        """The costs become what an error costs, from the importance of the columns and the power around them."""
        power = self.power
        assert power is not None
        self.is_bad = self.is_bad | self.e.compare(power, "==", float("inf"))
        root = f"llvm.sqrt.v{LANES}f32"
        self.g.set_costs(lambda x, columns: columns * self.e.call(root, x.ll.type, power + x * x))


class Encoder:
    """A type. Subclasses set the sizes and encode a batch."""

    size = 32  # weights of a group
    per = 1  # groups of a block
    block_bytes = 0
    power_of = ""  # whose mean square the cost of an error depends on: of a "row", a "block", or none
    factor = 1.0  # and how much of it

    @classmethod
    def encode(cls, b: Batch) -> None:
        raise TypeError(f"{cls.__name__} does not say how it encodes")


__all__ = ["LANES", "LINE_BYTES", "Batch", "Encoder"]
