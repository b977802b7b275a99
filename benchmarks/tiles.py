"""What tile registers (AMX) can do: by the numbers that are multiplied, and by where they come from.

    python -m benchmarks.tiles

The peak that `speed` and `halfbyte bench --profile` hold prompts against is that of registers alone. A matrix is not
in registers, and a processor may slow down with the numbers it multiplies: each step here adds what a product of
matrices cannot do without. One thread, bfloat16.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from halfbyte.runtime.backends.cpu.features import target
from halfbyte.runtime.backends.cpu.floors import TILE_MACS
from halfbyte.runtime.backends.cpu.simd import tiles
from halfbyte.runtime.backends.cpu.simd.emit import I64, Emitter, Vec
from halfbyte.runtime.backends.cpu.simd.types import address, emitted
from llvmlite import ir
from numba.core import types
from numpy.typing import NDArray

from . import common
from .common import Runs
from .report import Report

BLOCKS, COUNT = 20_000, 8  # blocks of sums in a measurement, tiles of the inner dimension in a block: 256 columns
ROUNDS = 7
PAIR = 2 * tiles.BYTES
NEAR, FAR, SUMS = 1 << 14, 1 << 17, 1 << 19  # bytes of operands in the first- and second-level cache, and of sums


@dataclass(frozen=True)
class Form:
    """Where the left operand is (bytes that it takes turns in; 0: registers), and whether sums wait in memory."""

    left: int
    sums: bool


FORMS = {
    "registers": Form(0, False),
    "operands from the first-level cache": Form(NEAR, False),
    "one of them from the second": Form(FAR, False),
    "and sums, too, after 256 columns": Form(FAR, True),
}
NUMBERS = ("zero", "random")


def _compiled(form: Form) -> Callable[[int, int, int], None]:
    """f(left, right, sums): BLOCKS blocks of two tiles times two."""

    @emitted(types.void, address, address, address)
    def run(e: Emitter, left: Vec, right: Vec, sums: Vec) -> None:
        def load(first: int, at: ir.Value) -> None:
            for i in range(2):
                tiles.load(e, first + i, e.at(at, tiles.BYTES * i))

        def turn(at: ir.Value, i: ir.Value, stride: int, size: int) -> ir.Value:
            return e.b.add(at, e.b.and_(e.b.mul(i, ir.Constant(I64, stride)), ir.Constant(I64, size - 1)))

        def block(n: ir.Value, _: list[Vec]) -> list[Vec]:
            here = turn(sums.ll, n, 4 * tiles.BYTES, SUMS)
            if form.sums:
                for i in range(4):
                    tiles.load(e, i, e.at(here, tiles.BYTES * i))

            def step(k: ir.Value, _: list[Vec]) -> list[Vec]:
                if form.left:
                    load(4, turn(left.ll, e.b.add(e.b.mul(n, ir.Constant(I64, COUNT)), k), PAIR, form.left))
                    load(6, turn(right.ll, k, PAIR, NEAR))
                for total in range(4):
                    tiles.multiply(e, total, 4 + total // 2, 6 + total % 2)
                return []

            e.loop(ir.Constant(I64, COUNT), [], step)
            if form.sums:
                for i in range(4):
                    tiles.store(e, i, e.at(here, tiles.BYTES * i))
            return []

        for i in range(4):
            tiles.clear(e, i)
        load(4, left.ll)
        load(6, right.ll)
        e.loop(ir.Constant(I64, BLOCKS), [], block)

    def call(config, left, right, sums):  # type: ignore[no-untyped-def]
        tiles.configure(config)
        run(left, right, sums)
        tiles.release(0)

    made: Any = numba.njit(types.void(*[types.uint64] * 4), nogil=True)(call)
    config = np.zeros(64, np.uint8)
    return lambda left, right, sums: made(config.ctypes.data, left, right, sums)


def _operand(size: int, numbers: str) -> NDArray[np.uint16]:
    """bfloat16: zero, or between 1 and 2 and of either sign. A cache line begins where it does."""
    rng, room = np.random.default_rng(1), np.empty(size // 2 + 32, np.uint16)
    found = room[-room.ctypes.data % 64 // 2 :][: size // 2]
    found[:] = 0
    if numbers == "random":
        found |= (rng.integers(0, 1 << 16, found.size, np.uint16) & 0x807F) | 0x3F80
    return found


def measure() -> dict[str, dict[str, Runs]]:
    """GMAC/s by form and numbers, all in turn."""
    forms = {name: _compiled(form) for name, form in FORMS.items()}
    operands = {numbers: (_operand(FAR, numbers), _operand(NEAR, numbers)) for numbers in NUMBERS}
    sums = np.zeros(SUMS // 4 + 16, np.float32)[16:]
    found: dict[str, dict[str, list[float]]] = {form: {numbers: [] for numbers in NUMBERS} for form in forms}
    for _ in range(ROUNDS):
        for form, run in forms.items():
            for numbers, (left, right) in operands.items():
                sums[:] = 0
                begin = time.perf_counter()
                run(left.ctypes.data, right.ctypes.data, sums.ctypes.data)
                seconds = time.perf_counter() - begin
                found[form][numbers].append(BLOCKS * COUNT * TILE_MACS / seconds / 1e9)
    return {form: {n: Runs(tuple(values)) for n, values in by.items()} for form, by in found.items()}


def main() -> int:
    args = common.parser(__doc__.partition("\n")[0] if __doc__ else None).parse_args()
    if not target().isa.tiles:
        common.give_up("this processor has no tile registers, or the system does not give them")
    report, found = Report("tiles", "Tile registers, one thread"), measure()
    report.data.update({form: {n: runs.as_json() for n, runs in by.items()} for form, by in found.items()})
    rows = [(form, *(runs.show() for runs in by.values())) for form, by in found.items()]
    header = ("", *(f"{numbers} numbers" for numbers in NUMBERS))
    report.table("GMAC/s, median with the lowest and the highest", header, rows)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
