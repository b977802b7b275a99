"""Quantizing beside llama.cpp: how long it takes, how much memory, and whether the files are the same.

    python -m benchmarks.quantize                                        # needs 5 GB of disk beside the model
    python -m benchmarks.quantize --model smollm2 --model gemma3-270m --rounds 1

Each time is that of a fresh process, without the start of Python and the imports; both programs take turns. Both files
are compared tensor by tensor. Weights that are quantized already are allowed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halfbyte.formats.gguf import GGUFFile

from . import common, peers, processes, targets
from .common import Runs
from .report import Report
from .rounds import OURS, THEIRS

MODEL = "synthetic:F16"
WEIGHTED = ("IQ1", "IQ2", "IQ3")  # recipes whose names begin so get an importance
TIMED = tuple(recipe for model, recipe in targets.QUANTIZE if model == MODEL)
COMPARED = (
    "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_S", "Q5_K_M", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4_MOE",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Seconds and peak memory in bytes of each side, by rounds; and tensors that are the same, of how many."""

    seconds: dict[str, Runs]
    peak: dict[str, Runs]
    same: int
    tensors: int
    is_same_file: bool


def measure(source: Path, recipe: str, rounds: int, threads: int, folder: Path) -> Found:
    """Quantize in turns; the first round is not counted where there are several."""
    sides = (OURS, THEIRS)
    told: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    files = {side: folder / f"{side}.gguf" for side in sides}
    for number in range(rounds + (rounds > 1)):
        for side in sides[:: 1 if number % 2 else -1]:
            files[side].unlink(missing_ok=True)
            arguments = ["-m", "benchmarks.first_quantize", side, str(source), str(files[side]), recipe]
            arguments += ["--threads", str(threads), *["--weighted"] * recipe.startswith(WEIGHTED)]
            found = processes.run(arguments).json()
            if number or rounds == 1:
                told[side].append(found)
    seconds, peak = (
        {side: Runs(tuple(one[what] for one in told[side])) for side in sides} for what in ("seconds", "peak")
    )
    return Found(seconds, peak, *compare(files[OURS], files[THEIRS]))


def compare(ours: Path, theirs: Path) -> tuple[int, int, bool]:
    """Tensors that are the same, of how many, and whether all bytes of the files are."""
    with GGUFFile.open(ours) as a, GGUFFile.open(theirs) as b:
        both = [(a.tensors[name], tensor) for name, tensor in b.tensors.items() if name in a.tensors]
        same = sum(x.type is y.type and np.array_equal(x.data, y.data) for x, y in both)
        count = len(a.tensors.keys() | b.tensors.keys())
    return same, count, ours.read_bytes() == theirs.read_bytes()


def add_to(report: Report, name: str, found: dict[str, Found]) -> None:
    rows = []
    for recipe, one in found.items():
        ratio = one.seconds[THEIRS].ratio(one.seconds[OURS])
        memory = [f"{one.peak[side].high / 1e6:.0f}" for side in (OURS, THEIRS)]
        same = f"{one.same} of {one.tensors}, {'the whole file' if one.is_same_file else 'not the header'}"
        rows.append((recipe, *(one.seconds[side].show() for side in (OURS, THEIRS)), ratio.show(2), *memory, same))
        report.data[f"{name} {recipe}"] = {
            "seconds": {side: one.seconds[side].as_json() for side in one.seconds},
            "peak": {side: one.peak[side].as_json() for side in one.peak}, "same": one.same, "tensors": one.tensors,
        }  # fmt: skip
        if (name, recipe) in targets.QUANTIZE:
            report.goal_at_least(f"{name} to {recipe}", ratio.median, targets.QUANTIZE[name, recipe], "times llama.cpp")
    header = ("Recipe", "Halfbyte s", "llama.cpp s", "Ratio", "Halfbyte MB", "llama.cpp MB", "Same tensors")
    report.table(f"{name}: seconds, most memory, and tensors that are equal byte by byte", header, rows)
    most, wanted = max(one.peak[OURS].high for one in found.values()) / 1e6, targets.QUANTIZE_MEMORY / 1e6
    report.goal_at_most(f"{name}: most memory", most, wanted, "MB", 0)
    equal = sum(one.same == one.tensors for one in found.values())
    report.goal_true(f"{name}: all tensors the same", f"{equal} of {len(found)} recipes", equal == len(found))


def main() -> int:
    parser = parser_for(__doc__, MODEL)
    args = parser.parse_args()
    report = Report("quantize", f"Quantizing beside llama.cpp, {args.threads} threads")
    return run(report, args, TIMED, COMPARED)


def parser_for(doc: str | None, model: str) -> argparse.ArgumentParser:
    parser = common.parser(doc.partition("\n")[0] if doc else None, models=(model,))
    parser.add_argument("--recipe", action="append", dest="recipes", help="default: all, some of them once")
    parser.add_argument("--rounds", type=common.positive, default=5, help="counted rounds of those with a goal")
    return parser


def run(report: Report, args: argparse.Namespace, timed: Sequence[str], compared: Sequence[str]) -> int:
    """Quantize by the recipes asked for, or all; those that are not timed in one round."""
    if not peers.is_installed():
        common.give_up(peers.MISSING)
    for model in common.chosen_models(args):
        source, found = common.resolve(model), {}
        with tempfile.TemporaryDirectory(dir=common.cache_dir()) as folder:
            for recipe in args.recipes or (*timed, *compared):
                common.note(f"{common.label(model)} to {recipe}")
                rounds = args.rounds if recipe in timed else 1
                found[recipe] = measure(source, recipe, rounds, args.threads, Path(folder))
        add_to(report, common.label(model), found)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
