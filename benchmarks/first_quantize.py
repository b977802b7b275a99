"""The child of benchmarks.quantize: quantize a model once, and print one JSON line.

python -m benchmarks.first_quantize halfbyte|llama_cpp SOURCE TARGET RECIPE --threads N [--imatrix FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from .processes import peak_memory


def ours(source: Path, target: Path, recipe: str, threads: int, imatrix: Path | None) -> float:
    from halfbyte import quantize

    begin = time.perf_counter()
    quantize(source, target, recipe, threads=threads, importance=imatrix, allow_requantize=True)
    return time.perf_counter() - begin


def theirs(source: Path, target: Path, recipe: str, threads: int, imatrix: Path | None) -> float:
    from halfbyte.converters.quantize import read_importance, recipe_named

    from . import peers

    peers.start()
    file_type = recipe_named(recipe)[1].file_type
    begin = time.perf_counter()
    importance = None if imatrix is None else read_importance(imatrix)
    peers.quantize(source, target, file_type, threads=threads, importance=importance, allow_requantize=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=("halfbyte", "llama_cpp"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--imatrix", type=Path)
    args = parser.parse_args()
    run = ours if args.program == "halfbyte" else theirs
    seconds = run(args.source, args.target, args.recipe, args.threads, args.imatrix)
    print(json.dumps({"seconds": seconds, "peak": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
