"""The child of benchmarks.quantize: quantize a model once, and print one JSON line.

python -m benchmarks.first_quantize halfbyte|llama_cpp SOURCE TARGET RECIPE --threads N [--weighted]

With --weighted errors cost what an importance says that is made up, the same for both programs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.recipe_models import importance_of

from .processes import peak_memory

Columns = dict[str, NDArray[np.float32]]


def ours(source: Path, target: Path, recipe: str, threads: int, columns: Columns | None) -> float:
    from halfbyte import quantize
    from halfbyte.converters.quantize import Importance

    importance = None if columns is None else Importance(columns)
    begin = time.perf_counter()
    quantize(source, target, recipe, importance=importance, threads=threads, allow_requantize=True)
    return time.perf_counter() - begin


def theirs(source: Path, target: Path, recipe: str, threads: int, columns: Columns | None) -> float:
    from halfbyte.converters.quantize import recipe_named

    from . import peers

    peers.start()
    file_type = recipe_named(recipe)[1].file_type
    begin = time.perf_counter()
    peers.quantize(source, target, file_type, threads=threads, importance=columns, allow_requantize=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=("halfbyte", "llama_cpp"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--weighted", action="store_true")
    args = parser.parse_args()
    run = ours if args.program == "halfbyte" else theirs
    columns = importance_of(args.source) if args.weighted else None
    seconds = run(args.source, args.target, args.recipe, args.threads, columns)
    print(json.dumps({"seconds": seconds, "peak": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
