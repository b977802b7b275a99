"""A synthetic bfloat16 checkpoint becomes a quantized GGUF file: seconds, memory, disk; beside llama.cpp's way.

    python -m benchmarks.convert --shape 7b --llama-cpp FOLDER    # of llama.cpp's sources, where its converter is

Ours runs under a limit of 2 GB of memory beside mapped files, and once more with its check of what the file predicts
(`--verify`). Theirs needs torch and transformers, and has no limit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from . import checkpoints, common, processes
from .common import Runs
from .report import Report

LIMIT = 2_000_000_000
OURS, VERIFIED, THEIRS = "Halfbyte", "Halfbyte, checked", "llama.cpp"
PEAK, RATIO = 1e9, 2.0  # wanted: bytes of memory at most, and times as fast as llama.cpp's way


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=())
    parser.add_argument("--shape", default="7b")
    parser.add_argument("--recipe", default="Q4_K_M")
    parser.add_argument("--rounds", type=common.positive, default=3)
    parser.add_argument("--llama-cpp", type=Path, help="llama.cpp's sources; without them only our side is measured")
    args = parser.parse_args()
    report = Report("convert", f"Converting a checkpoint to {args.recipe}, {args.threads} threads")
    folder = checkpoints.ensure(args.shape)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    sides = {OURS: ["--limit", str(LIMIT)], VERIFIED: ["--limit", str(LIMIT), "--verify"]}
    if args.llama_cpp:
        sides[THEIRS] = ["--llama-cpp", str(args.llama_cpp)]
    told: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    output = 0
    with tempfile.TemporaryDirectory(dir=common.cache_dir()) as work:
        for number in range(args.rounds):
            for side, options in sides.items():
                if side == VERIFIED and number:
                    continue  # its seconds are compared with nothing
                common.note(f"{side}, round {number + 1}")
                target = Path(work) / "made.gguf"
                arguments = ["-m", "benchmarks.first_convert", str(folder), str(target), args.recipe]
                told[side].append(processes.run([*arguments, "--threads", str(args.threads), *options]).json())
                output = target.stat().st_size
                target.unlink()
    seconds = {side: Runs(tuple(one["seconds"] for one in found)) for side, found in told.items()}
    peak = {side: max(one["peak"] for one in found) for side, found in told.items()}
    between = max((one.get("between", 0) for one in told.get(THEIRS, [])), default=0)
    rows = [
        (side, seconds[side].show(), f"{size / seconds[side].median / 1e6:.0f}", f"{peak[side] / 1e6:.0f}",
         f"{(between if side == THEIRS else 0) / 1e9:.1f}")
        for side in sides
    ]  # fmt: skip
    header = ("Program", "Seconds", "MB/s of the source", "Most memory, MB", "Disk beside the result, GB")
    report.table(f"{args.shape}: {size / 1e9:.1f} GB to {output / 1e9:.1f} GB", header, rows)
    report.data = {side: {"seconds": seconds[side].as_json(), "peak": peak[side]} for side in sides} | {"source": size}
    report.goal_at_most("most memory", max(peak[OURS], peak[VERIFIED]) / 1e6, PEAK / 1e6, "MB", 0)
    if THEIRS in sides:
        ratio = seconds[THEIRS].ratio(seconds[OURS])
        report.goal_at_least("end to end", ratio.median, RATIO, "times llama.cpp")
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
