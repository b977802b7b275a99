"""How far ahead rows of weights should be asked for: several ways, in turn in one process.

    python -m benchmarks.ahead                # the types whose rows differ most
    python -m benchmarks.ahead --type Q6_K

Each way is a product of rows compiled with other requests (runtime/backends/cpu/kernels/linear/ahead.py). All read the
same 256 MB with one token, one after the other in random order, so that a memory that others use as well treats all of
them alike. What counts is how a way compares with the first one in the same round, not the number.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType
from halfbyte.runtime.backends.cpu import objects
from halfbyte.runtime.backends.cpu.backend import kernel_names
from halfbyte.runtime.backends.cpu.compile import ensure_compiled
from halfbyte.runtime.backends.cpu.kernels.linear.ahead import OF_CODES
from halfbyte.runtime.backends.cpu.matrices import FLOATS, KERNEL_TYPES

from tests.builders_quants import random_blocks

from . import common
from .common import Runs
from .kernels import CACHED_ROWS, COLS, FAR_BYTES, Bench, packets
from .report import Report

TYPES = ("Q4_0", "Q4_K", "Q6_K", "Q8_0", "F16", "F32")
ROUNDS = 200
Requests = tuple[tuple[int, bool], ...]
# Bytes ahead, and whether into the first-level cache; first how codes are read here.
WAYS: dict[str, Requests] = {
    "as kernels do": OF_CODES,
    "2 kB near, 8 kB far": ((2048, True), (8192, False)),
    "4 kB near, 6 kB far": ((4096, True), (6144, False)),
    "5 kB near, 6 kB far": ((5120, True), (6144, False)),
    "3 kB near": ((3072, True),),
    "6 kB far": ((6144, False),),
    "2 kB near": ((2048, True),),
    "none": (),
}


def compiled(kernel: str, requests: Requests) -> bytes:
    """The file of a kernel with other requests; to be called in a process of its own."""
    from halfbyte.runtime.backends.cpu.jit import compile_kernel
    from halfbyte.runtime.backends.cpu.kernels.linear import ahead

    ahead.OF_CODES = ahead.OF_NUMBERS = requests
    return compile_kernel(kernel)


def addresses(kernel: str) -> dict[str, int]:
    """Entry points of all ways."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for way, requests in WAYS.items():
        with context.Pool(1) as pool:
            found[way] = objects.link(*objects.unpack(pool.apply(compiled, (kernel, requests))))
    return found


def measure(bench: Bench, name: str) -> dict[str, Runs]:
    """GB/s of weights, by way."""
    kind, rng, kernel = GGMLType[name], np.random.default_rng(1), f"linear_rows.{name}"
    near = random_blocks(kind, (CACHED_ROWS, COLS), rng)
    far = np.tile(near, (FAR_BYTES // near.nbytes, 1))
    x = rng.standard_normal((1, COLS)).astype(np.float32)
    given: dict[str, Any] = {
        "w": far, "x": x if name in FLOATS else packets(bench, x), "out": np.zeros((1, len(far)), np.float32),
        "row_bytes": kind.row_bytes(COLS), "n": len(far), "cols": COLS, "repeat": 1, "limit": 1,
    }  # fmt: skip
    ways = addresses(kernel)
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in rng.permutation(list(ways)):
            seconds = bench.seconds_once(ways[way], kernel, {"n_tokens": 1}, given)
            speeds[way].append(far.nbytes / seconds / 1e9)
    return {way: Runs(tuple(values)) for way, values in speeds.items()}


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--type", action="append", dest="types", choices=sorted(KERNEL_TYPES), help="repeatable")
    args = parser.parse_args()
    ensure_compiled({*kernel_names(), "quantize_packets"}, workers=args.threads)
    report, bench = Report("ahead", f"Asking ahead for rows in memory, {args.threads} threads"), Bench(args.threads)
    rows, times = [], []
    for name in args.types or TYPES:
        common.note(f"measuring {name}")
        found = measure(bench, name)
        report.data[name] = {way: [runs.median, runs.low, runs.high] for way, runs in found.items()}
        rows.append((name, *(runs.show() for runs in found.values())))
        first, *others = found.values()
        times.append((name, *(f"{runs.ratio(first).median:.2f}" for runs in others)))
    report.table("GB/s of weights, median with the lowest and the highest", ("Type", *WAYS), rows)
    report.table("Times the first way, median of the rounds", ("Type", *list(WAYS)[1:]), times)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
