"""Hold encoders and decoders against ggml's on very many blocks of every type, and count those that differ.

    python -m tests.oracle.blocks                     # a million blocks of every type; needs llama-cpp-python
    python -m tests.oracle.blocks --types Q4_K IQ3_S --blocks 20000 --numpy-every 8
    python -m tests.oracle.blocks --plant --output benchmarks/results

Weights of twenty kinds (inputs.py) are encoded by NumPy, by kernels and by ggml, with and without an importance of
their columns; what ggml made, and as many blocks of random bytes, are decoded by NumPy and by ggml. Exit code 1 where a
block differs without a reason (reasons.py), or where a planted fault is not seen.

--output is a folder for blocks.md and blocks.json; types that are not run again keep what is in it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS
from halfbyte.runtime.backends.cpu.encode import KERNEL_TYPES, UNWEIGHTED, Encoders

from ...encoder_inputs import NEED_IMPORTANCE
from ...fixtures.make.encoders import Ggml
from . import faults
from .check import KERNEL, NUMPY, Encode, Sides, check
from .record import Run, record

PLANTED_BLOCKS = 4000


def variants(ggml_type: GGMLType) -> list[bool]:
    """Without an importance and with one, as far as ggml takes it and it changes something."""
    if ggml_type.name in NEED_IMPORTANCE:
        return [True]
    return [False] if ggml_type.name in {*UNWEIGHTED, "F32"} else [False, True]


def encoders_of(ggml_type: GGMLType, kernels: Encoders) -> dict[str, Encode]:
    """NumPy's, and where there is one a kernel."""
    made: dict[str, Encode] = {NUMPY: lambda ggml_type, x, given: CODECS[ggml_type].encode(x, given)}
    if ggml_type.name in KERNEL_TYPES:
        made[KERNEL] = lambda ggml_type, x, given: kernels.encode(x, ggml_type, given)
    return made


def planted(ggml_type: GGMLType, sides: Sides, seed: int, *, weighted: bool) -> dict[str, int]:
    """Fault -> blocks that were seen to differ because of it."""

    def differing(name: str, sides: Sides) -> int:
        return check(ggml_type, sides, blocks=PLANTED_BLOCKS, seed=seed, weighted=weighted).differ(name)

    before, last, seen = differing(NUMPY, sides), list(sides.encoders)[-1], {}
    seen[f"{last}: one bit of one block"] = differing(last, faults.one_bit_changed(sides, last)) - before
    rule = faults.rule_of(ggml_type, weighted=weighted)
    if rule:
        with faults.rounding_changed(ggml_type, rule):
            seen[f"{NUMPY}: {faults.WORDS[rule]}"] = differing(NUMPY, sides) - before
    return seen


ALL = [t for t in sorted(CODECS) if t.on_disk]  # ggml divides by the size of a block, which others do not have


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", metavar="TYPE", choices=[t.name for t in ALL])
    parser.add_argument("--blocks", type=int, default=1_000_000, help="of each type, with and without an importance")
    parser.add_argument("--numpy-every", type=int, default=1, metavar="N", help="NumPy, which is slow, takes one in N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", action="store_true", help="show that faults are seen, on a few blocks of each type")
    parser.add_argument("--output", type=Path, help="folder for a record, blocks.md and blocks.json")
    options = parser.parse_args(arguments)
    types = [GGMLType[name] for name in options.types] if options.types else ALL
    ggml, runs = Ggml(), []
    with Encoders(1) as kernels:
        for ggml_type, weighted in ((t, weighted) for t in types for weighted in variants(t)):
            started, sides = time.perf_counter(), Sides(encoders_of(ggml_type, kernels), ggml.encode, ggml.decode)
            found = check(
                ggml_type, sides, blocks=options.blocks, seed=options.seed, weighted=weighted,
                every={NUMPY: options.numpy_every} if KERNEL in sides.encoders else {},
            )  # fmt: skip
            seen = planted(ggml_type, sides, options.seed, weighted=weighted) if options.plant else {}
            run = Run(ggml_type.name, weighted, options.seed, found, seen)
            print(f"{run.line()}; {time.perf_counter() - started:.0f} s", flush=True)
            runs.append(run)
    if options.output:
        record(runs, options.output)
    return 0 if all(run.is_good for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
