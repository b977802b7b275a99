"""What CUDA kernels reach of a GPU's bandwidth, and whole models on it: needs one, and pip install 'halfbyte[cuda]'.

    python -m benchmarks.cuda                     # everything; a 7 B model of random weights is written first (4 GB)
    python -m benchmarks.cuda --only kernels --type Q4_K
    python -m benchmarks.cuda --only kernels --type all

A product with one row of activations reads a weight once: its floor is the weight's bytes over the bandwidth of a copy
on the same device (bytes read plus bytes written). Matrices take turns, so many that none is left in the L2 cache.
Kernels are timed by device events around recordings of many launches, models by the host's clock; all are medians.
Where torch with CUDA is installed its bf16 products of the same shapes are measured beside them. Results are written
after each part; one that fails does not keep the next from running, and its goals count as missed. In the simulator
(NUMBA_ENABLE_CUDASIM=1) times mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from halfbyte.runtime.backends.cuda import package

from . import common
from .cuda_goals import TYPES, Board, chosen
from .cuda_models import TRAINED
from .cuda_parts import PARTS, run, run_apart

PROMPT, GENERATED = 512, 32


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=("synthetic:Q4_0@7b",))
    parser.add_argument("--only", action="append", choices=PARTS, help="repeatable; default: all")
    parser.add_argument("--type", action="append", dest="types", help="of weights; repeatable, or `all`")
    parser.add_argument("--matrix", default="4096x14336", help="rows x columns")
    parser.add_argument("--offloaded", default=TRAINED, help="the model of the table by layers")
    parser.add_argument("--prompt", type=common.positive, default=PROMPT)
    parser.add_argument("--generated", type=common.positive, default=GENERATED)
    args = parser.parse_args(argv)
    try:
        package.require()
    except package.CUDAError as error:
        common.give_up(str(error))
    from halfbyte.runtime.backends.cuda.lower import KERNEL_TYPES

    known = sorted(KERNEL_TYPES)
    args.types = known if args.types == ["all"] else args.types or list(TYPES)
    if unknown := sorted(set(args.types) - KERNEL_TYPES):
        parser.error(f"--type {unknown[0]}: no type with kernels; there are {', '.join(known)}")
    args.only = [name for name in PARTS if name in (args.only or PARTS)]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    title = f"CUDA: {package.describe()['devices'][0]['name']}"
    board = Board("cuda", title, targets=chosen(args.only, args.types))
    if left_out := [name for name in PARTS if name not in args.only]:
        board.note(f"Left out, with their goals: {', '.join(left_out)}.")
    for name in args.only:
        common.note(f"measuring: {name}")
        board = (run if package.SIMULATED else run_apart)(name, PARTS[name], board, args)
        board.write(args.out)
    return max(board.finish(args.out), int(bool(board.failed)))


if __name__ == "__main__":
    raise SystemExit(main())
