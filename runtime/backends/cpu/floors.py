"""The floors under every time: how fast this machine reads these weights, and multiplies, when it does nothing else.

Measured with the executor's own team of threads, so that they hold for what is compared with them. Weights are read
where they are mapped: a model that fits a cache is read from there by the kernels as well as by the probe.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import objects
from .args import PROBE_BLOCK, PROBE_RING, STEP, args_of, probe_tile
from .compile import ensure_compiled
from .executor import CPUExecutor
from .features import target
from .team import Team
from .work import Work

TILE_MACS = 4 * 16 * 16 * 32  # multiply-adds of a round of probe_tiles: two tiles with two
ENOUGH = 0.02  # seconds of one measurement; the best of several counts, since neighbours only slow down
REPEATS = 7
READ_AT_MOST = 2 << 30  # bytes of one pass over the weights: of larger models the first ones


@dataclass(frozen=True)
class Floors:
    """Bytes, and multiply-adds of int8, of float32, of tiles and of pairs of bfloat16 (0: there are none) per second.

    All threads together.
    """

    read: float
    int8: float
    float32: float
    tiles: float = 0.0
    pairs: float = 0.0

    def seconds(self, work: Work) -> float:
        """The least time that this work can take: the longer of its reading and its arithmetic."""
        return max(self._times(work).values())

    def bound(self, work: Work) -> str:
        """Which of the two it is: "read", or "int8", "float", "tiles" or "pairs"; "" where there is nothing to do."""
        times = self._times(work)
        name = max(times, key=times.__getitem__)
        return name if times[name] > 0 else ""

    def _times(self, work: Work) -> dict[str, float]:
        peaks = {"int8": self.int8} if work.numbers == "int8" else {"float": self.float32}
        if work.numbers in ("int8", "half"):  # bfloat16 loses nothing that matters of these weights
            peaks |= {"tiles": self.tiles, "pairs": self.pairs}
        name = max(peaks, key=peaks.__getitem__)
        return {"read": work.n_bytes / self.read, name: work.macs / peaks[name]}


def measure(executor: CPUExecutor) -> Floors:
    """Takes half a second and more for a model of gigabytes. The executor must not be running a step."""
    isa = target().isa
    brain = [name for name, there in (("probe_tiles", isa.tiles), ("probe_pairs", isa.pairs)) if there]
    ensure_compiled(["probe_read", "probe_int8", "probe_float", *brain], workers=executor.team.n)
    probe, per_round = _Probe(executor.team), probe_tile()[0] * probe_tile()[1]
    return Floors(
        read=probe.read(_weights(executor)),
        int8=probe.multiply("probe_int8") * per_round * 4 * isa.lanes,
        float32=probe.multiply("probe_float") * per_round * isa.lanes,
        tiles=probe.multiply("probe_tiles") * TILE_MACS if isa.tiles else 0.0,
        pairs=probe.multiply("probe_pairs") * per_round * 2 * isa.lanes if isa.pairs else 0.0,
    )


def _weights(executor: CPUExecutor) -> list[NDArray[np.uint8]]:
    """What a decode step reads, each array once, in its order. Of an embedding it reads a row."""
    nodes = [call.node for call in executor.plans[0].calls if call.node.op != "embed"]
    arrays = {w.data.ctypes.data: w.data for node in nodes for w in node.weights.values()}
    return list(arrays.values())


def _lines(n: int) -> NDArray[np.uint8]:
    """Memory of n cache lines, the first of which starts where a line does."""
    raw = np.zeros(64 * n + 64, np.uint8)
    return raw[-raw.ctypes.data % 64 :][: 64 * n]


class _Probe:
    """Runs probe kernels as a step of the team."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._out = _lines(team.n)
        self._ring = _lines(2 * PROBE_RING // 64)
        self._ring[:] = 1  # as float32 this is tiny, normal, and its sums stay finite
        self._step, self._never = np.zeros((), STEP), np.zeros(1, np.int64)

    def read(self, arrays: list[NDArray[np.uint8]]) -> float:
        """Bytes per second; infinite when there is hardly one to read."""
        calls, total = [], 0
        for array in arrays:
            blocks = array.nbytes // PROBE_BLOCK
            if blocks and total < READ_AT_MOST:
                calls.append(self._args("probe_read", at=array.ctypes.data, blocks=blocks))
                total += blocks * PROBE_BLOCK
        if not calls:
            return math.inf
        times = 1
        while (best := self._best([("probe_read", calls * times)])) < ENOUGH and times < 1 << 16:
            times = max(times + 1, int(times * min(16, 1.2 * ENOUGH / best)))
        return total * times / best

    def multiply(self, kernel: str) -> float:
        """Rounds per second, of all threads."""
        rounds = 1 << 14
        while True:
            args = self._args(kernel, x=self._ring.ctypes.data, rounds=rounds)
            best = self._best([(kernel, [args])])
            if best >= ENOUGH:
                return rounds * self._team.n / best
            rounds = max(rounds + 1, int(rounds * min(16, 1.2 * ENOUGH / best)))

    def _args(self, kernel: str, **values: int) -> NDArray[Any]:
        args = np.zeros((), args_of(kernel))
        for name, value in {**values, "out": self._out.ctypes.data}.items():
            args[name] = value
        return args

    def _best(self, groups: list[tuple[str, list[NDArray[Any]]]]) -> float:
        rows = [(objects.load(kernel), args.ctypes.data, 0) for kernel, many in groups for args in many]
        table, seconds = np.array(rows, np.int64), []
        for _ in range(REPEATS):
            started = time.perf_counter()
            self._team.run(table, self._step, self._never)
            seconds.append(time.perf_counter() - started)
        return min(seconds)
