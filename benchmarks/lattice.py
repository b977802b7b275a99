"""Quantizing to lattice types beside llama.cpp, with an importance: as benchmarks.quantize, on a small model.

    python -m benchmarks.lattice
    python -m benchmarks.lattice --model synthetic:F16@tiny --recipe IQ2_XS --rounds 1

llama.cpp needs minutes for a billion weights by such a recipe; 51 million tell as much.
"""

from __future__ import annotations

from . import targets
from .quantize import parser_for, run
from .report import Report

MODEL = "synthetic:F16@51m"
TIMED = tuple(recipe for model, recipe in targets.QUANTIZE if model == MODEL)


def main() -> int:
    args = parser_for(__doc__, MODEL).parse_args()
    report = Report("lattice", f"Quantizing to lattice types beside llama.cpp, {args.threads} threads")
    return run(report, args, TIMED, ())


if __name__ == "__main__":
    raise SystemExit(main())
