"""Quantizing beside llama.cpp: how long it takes, how much memory, and whether the files are the same.

    python -m benchmarks.quantize                            # needs 5 GB of disk beside the models, and three hours
    python -m benchmarks.quantize --model smollm2 --model gemma3-270m --rounds 1
    python -m benchmarks.quantize --model synthetic:F16@360m --recipe Q4_K_M --weighted IQ2_XS

Each time is that of a fresh process, without the start of Python and the imports; both programs take turns. Both files
are compared tensor by tensor. Weights that are quantized already are allowed. `weighted` recipes are with an importance
matrix: of a synthetic model random numbers, of another what `halfbyte imatrix` finds on benchmarks/text.txt.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from halfbyte.converters.imatrix import Sums
from halfbyte.formats.gguf import GGUFFile

from . import common, peers, processes, targets
from .common import Runs
from .report import Report
from .rounds import OURS, THEIRS
from .sameness import Same, compare

MODEL, EXPERTS = "synthetic:F16", "synthetic:F16@moe"
MODELS = (MODEL, EXPERTS, *common.REAL_MODELS)
RECIPES = (
    *targets.QUANTIZE, "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_S", "Q5_K_M", "IQ4_XS", "TQ1_0", "TQ2_0",
)  # fmt: skip
WEIGHTED = ("Q4_K_M", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_M", "IQ2_XS", "IQ2_XXS")  # llama.cpp takes up to 20 minutes
OF_EXPERTS = ("MXFP4_MOE", "Q4_K_M")


@dataclass(frozen=True)
class Found:
    """Seconds and peak memory in bytes of each side, by rounds; and whether the files are the same."""

    seconds: dict[str, Runs]
    peak: dict[str, Runs]
    same: Same


def measure(source: Path, recipe: str, importance: Path | None, rounds: int, threads: int, folder: Path) -> Found:
    """Quantize in turns; the first round is not counted where there are several."""
    sides = (OURS, THEIRS)
    told: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    files = {side: folder / f"{side}.gguf" for side in sides}
    options = ["--threads", str(threads), *(["--imatrix", str(importance)] if importance else [])]
    for number in range(rounds + (rounds > 1)):
        for side in sides[:: 1 if number % 2 else -1]:
            files[side].unlink(missing_ok=True)
            arguments = ["-m", "benchmarks.first_quantize", side, str(source), str(files[side]), recipe]
            found = processes.run([*arguments, *options]).json()
            if number or rounds == 1:
                told[side].append(found)
    seconds, peak = (
        {side: Runs(tuple(one[what] for one in told[side])) for side in sides} for what in ("seconds", "peak")
    )
    return Found(seconds, peak, compare(files[OURS], files[THEIRS]))


def importance_of(model: str, source: Path) -> Path:
    """The file of an importance matrix for the model, in the cache folder."""
    path = common.cache_dir() / f"{source.stem}.imatrix.gguf"
    if not model.startswith("synthetic:"):
        processes.run(["-m", "halfbyte", "imatrix", str(source), str(common.TEXT), "-o", str(path), "--overwrite"])
        return path
    sums, rng = Sums(["random"], chunks=1, chunk_size=512), np.random.default_rng(1)
    with GGUFFile.open(source) as file:
        for name, tensor in file.tensors.items():
            if name.startswith("blk.") and len(tensor.ne) > 1:
                rows = tensor.n_elements // (tensor.ne[0] * tensor.ne[1])
                sums.squares[name] = 512 * rng.lognormal(0, 1, (rows, tensor.ne[0]))
                sums.counts[name] = np.full(rows, 512.0)
    sums.write(path)
    return path


def add_to(report: Report, name: str, found: dict[str, Found]) -> None:
    rows = []
    for recipe, one in found.items():
        ratio = one.seconds[THEIRS].ratio(one.seconds[OURS])
        memory = [f"{one.peak[side].median / 1e6:.0f}" for side in (OURS, THEIRS)]
        times = (one.seconds[side].show() for side in (OURS, THEIRS))
        rows.append((recipe, *times, ratio.show(2), *memory, one.same.show(), one.same.by_type()))
        report.data[f"{name} {recipe}"] = {
            "seconds": {side: one.seconds[side].as_json() for side in one.seconds},
            "peak": {side: one.peak[side].as_json() for side in one.peak}, **one.same.as_json(),
        }  # fmt: skip
        if recipe in targets.QUANTIZE and name == MODEL:
            report.goal_at_least(f"{name} to {recipe}", ratio.median, targets.QUANTIZE[recipe], "times llama.cpp")
    header = (
        "Recipe", "Halfbyte s", "llama.cpp s", "Ratio", "Halfbyte MB", "llama.cpp MB", "Same tensors", "By type",
    )  # fmt: skip
    report.table(f"{name}: seconds, most memory, and tensors that are equal byte by byte", header, rows)
    most, wanted = max(one.peak[OURS].high for one in found.values()) / 1e6, targets.QUANTIZE_MEMORY / 1e6
    report.goal_at_most(f"{name}: most memory", most, wanted, "MB", 0)
    equal = sum(one.same.all for one in found.values())
    report.goal_true(f"{name}: all tensors the same", f"{equal} of {len(found)} recipes", equal == len(found))


def chosen(model: str, args: argparse.Namespace) -> list[tuple[str, bool]]:
    """Recipes for a model, and whether they are weighted: those asked for, or the model's own."""
    plain, weighted = args.recipes or [], args.weighted or []
    if not plain and not weighted:
        plain, weighted = (OF_EXPERTS, OF_EXPERTS[1:]) if model == EXPERTS else (RECIPES, WEIGHTED)
    return [*((recipe, False) for recipe in plain), *((recipe, True) for recipe in weighted)]


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=MODELS)
    parser.add_argument("--recipe", action="append", dest="recipes", help="repeatable; default: those of the issue")
    parser.add_argument("--weighted", action="append", help="a recipe with an importance matrix; repeatable")
    parser.add_argument("--rounds", type=common.positive, default=5, help="counted rounds of --recipe")
    parser.add_argument("--weighted-rounds", type=common.positive, default=1, help="and of --weighted")
    args = parser.parse_args()
    if not peers.is_installed():
        common.give_up(peers.MISSING)
    report = Report("quantize", f"Quantizing beside llama.cpp, {args.threads} threads")
    for model in common.chosen_models(args):
        source, found = common.resolve(model), {}
        wanted = chosen(model, args)
        importance = importance_of(model, source) if any(weighted for _, weighted in wanted) else None
        with tempfile.TemporaryDirectory(dir=common.cache_dir()) as folder:
            for recipe, weighted in wanted:
                name = f"{recipe}{', weighted' * weighted}"
                common.note(f"{common.label(model)} to {name}")
                rounds = args.weighted_rounds if weighted else args.rounds
                given = importance if weighted else None
                found[name] = measure(source, recipe, given, rounds, args.threads, Path(folder))
        add_to(report, common.label(model), found)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
