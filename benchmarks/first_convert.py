"""The child of benchmarks.convert: convert a checkpoint once, and print one JSON line.

python -m benchmarks.first_convert FOLDER TARGET RECIPE --threads N [--limit BYTES] [--verify] [--llama-cpp FOLDER]

With --llama-cpp it is done as people do it today: convert_hf_to_gguf.py to BF16, then llama.cpp's own quantizing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from .processes import peak_memory


def ours(folder: Path, target: Path, recipe: str, threads: int, *, verify: bool) -> dict[str, float]:
    from halfbyte import convert

    begin = time.perf_counter()
    convert(folder, target, recipe, threads=threads, verify=verify)
    return {"seconds": time.perf_counter() - begin, "peak": peak_memory()}


def theirs(folder: Path, target: Path, recipe: str, threads: int, sources: Path) -> dict[str, float]:
    import resource

    from halfbyte.converters.quantize import recipe_named

    from . import peers

    between = target.with_suffix(".bf16.gguf")
    begin = time.perf_counter()
    script = sources / "convert_hf_to_gguf.py"
    subprocess.run(
        [sys.executable, str(script), str(folder), "--outtype", "bf16", "--outfile", str(between)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    converted = time.perf_counter()
    peers.start()
    peers.quantize(between, target, recipe_named(recipe)[1].file_type, threads=threads)
    end = time.perf_counter()
    peak = max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, peak_memory())
    disk = between.stat().st_size
    between.unlink()
    return {"seconds": end - begin, "converting": converted - begin, "peak": peak, "between": disk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--limit", type=int, help="bytes of memory that may be asked for, beside mapped files")
    parser.add_argument("--verify", action="store_true", help="compare predictions, too")
    parser.add_argument("--llama-cpp", type=Path)
    args = parser.parse_args()
    if args.limit:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (args.limit, args.limit))
    common = (args.folder, args.target, args.recipe, args.threads)
    told = theirs(*common, args.llama_cpp) if args.llama_cpp else ours(*common, verify=args.verify)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
