"""What types cost a model that was trained: every recipe, with and without an importance matrix, beside llama.cpp.

    python -m benchmarks.trained ../shared/models/docs8m
    python -m benchmarks.trained FOLDER --recipe Q4_K_M --windows 8

The folder holds a Llama model in Hugging Face layout whose rows are multiples of 256, and a text `heldout.txt`. It
becomes a GGUF file in F16, which both programs quantize; the files are compared tensor by tensor. Each program then
predicts the text with its own file, and is compared with itself in F16. The importance matrix is what
`halfbyte imatrix` finds on another text, the topics of Python's `help()`; both programs use it.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte import quantize
from halfbyte.converters.quantize import RECIPES, Importance, read_importance
from halfbyte.formats.errors import InvalidRequest
from halfbyte.formats.gguf import GGMLType
from halfbyte.tools.compare import TextCost
from halfbyte.tools.perplexity import cut_windows
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tests.builders import write

from . import common, peers, processes
from .engines import Engine, Ours
from .peers import LlamaCpp
from .report import Report
from .rounds import OURS, THEIRS
from .sameness import Same, compare
from .weight_types import read_checkpoint

WINDOW = 256  # tokens: what docs8m was trained with
NORMAL, CONTROL = 1, 3  # kinds of tokens in a GGUF vocabulary
Logits = list[NDArray[np.float32]]  # of each window, [WINDOW, vocabulary]


@dataclass(frozen=True)
class Found:
    """One recipe: bytes of tensors, bits per weight, which tensors are the same, and by program what it costs."""

    n_bytes: int
    bits: float
    same: Same
    cost: dict[str, dict[str, float | int]]


def write_float16(folder: Path) -> Path:
    """The folder's model with its vocabulary as a GGUF file in the cache folder, in F16."""
    metadata, tensors = read_checkpoint(folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {**content["model"]["vocab"], **{token["content"]: token["id"] for token in content["added_tokens"]}}
    special = {token["id"] for token in content["added_tokens"]}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    metadata |= {
        "general.file_type": RECIPES["F16"].file_type,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": sorted(ids, key=lambda token: ids[token]),
        "tokenizer.ggml.token_type": np.int32([CONTROL if i in special else NORMAL for i in sorted(ids.values())]),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    return write(metadata, tensors, common.cache_dir() / f"trained-{folder.name}-F16.gguf", GGMLType.F16)


def measure_importance(model: Path, chunks: int) -> Importance:
    """What `halfbyte imatrix` finds on the topics of Python's help."""
    topics = pydoc_data.topics.topics
    text, target = common.cache_dir() / "python-topics.txt", model.with_suffix(".imatrix.gguf")
    text.write_text("\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    options = ["-o", str(target), "--overwrite", "--context", str(WINDOW), "--chunks", str(chunks), "--json"]
    processes.run(["-m", "halfbyte", "imatrix", str(model), str(text), *options])
    return read_importance(target)


def predictions(engine: Engine, windows: Sequence[Sequence[int]]) -> Logits:
    return [engine.logits(window).copy() for window in windows]


def engine_of(program: str, path: Path, threads: int) -> Engine:
    if program == OURS:
        return Ours(path, context=WINDOW, threads=threads)
    # Its AMX code ends with an illegal instruction on some machines; numbers are what is asked here, not speed.
    return LlamaCpp(path, context=WINDOW, threads=threads, flash_attention="off", repack=False)


def cost_of(
    program: str, path: Path, windows: Sequence[Sequence[int]], exact: Logits, threads: int
) -> dict[str, float | int]:
    """What the program's predictions with this file are like beside those with the original."""
    engine, cost = engine_of(program, path, threads), TextCost()
    for window, first in zip(windows, exact, strict=True):
        cost.add(first, engine.logits(window), window)
    engine.close()
    return cost.summary()


def measure(
    source: Path,
    recipe: str,
    importance: Importance | None,
    windows: Sequence[Sequence[int]],
    exact: dict[str, Logits],
    threads: int,
) -> Found | None:
    """One recipe by both programs; None where it needs an importance."""
    with tempfile.TemporaryDirectory(dir=common.cache_dir()) as folder:
        files = {side: Path(folder, f"{side}.gguf") for side in (OURS, THEIRS)}
        try:
            summary = quantize(source, files[OURS], recipe, importance=importance, threads=threads)
        except InvalidRequest:
            return None
        peers.quantize(source, files[THEIRS], RECIPES[recipe].file_type, importance=importance, threads=threads)
        cost = {side: cost_of(side, path, windows, exact[side], threads) for side, path in files.items()}
        weights = sum(one.tensor.n_elements for one in summary.tensors)
        return Found(summary.bytes_after, 8 * summary.bytes_after / weights, compare(*files.values()), cost)


def add_to(report: Report, found: dict[tuple[str, bool], Found]) -> None:
    rows, costs = [], []
    for (recipe, weighted), one in found.items():
        name = (recipe, "yes" if weighted else "no")
        rows.append((*name, f"{one.n_bytes / 1e6:.2f}", f"{one.bits:.2f}", one.same.show(), one.same.by_type()))
        a, b = one.cost[OURS], one.cost[THEIRS]
        costs.append((
            *name,
            *(f"{c['ppl_changed']:.3f}" for c in (a, b)),
            *(f"{c['kl_mean']:.5f} +- {c['kl_error']:.5f}" for c in (a, b)),
            *(f"{c['kl_99']:.4f}" for c in (a, b)),
            *(f"{100 * c['same_top']:.2f} %" for c in (a, b)),
        ))  # fmt: skip
        about = {"bytes": one.n_bytes, "bits_per_weight": one.bits, **one.same.as_json(), "cost": one.cost}
        report.data[f"{recipe}{' weighted' * weighted}"] = about
    report.table(
        "Files: bytes of tensors, and how many of them are llama.cpp's byte by byte",
        ("Recipe", "Importance", "MB", "Bits per weight", "Same tensors", "By type"), rows,
    )  # fmt: skip
    measures = ("Perplexity", "Mean KL", "99 % KL", "Same top token")
    both = [f"{what}{who}" for what in measures for who in ("", ", llama.cpp")]
    title = "Predictions: each program with its own file, beside itself in F16"
    report.table(title, ("Recipe", "Importance", *both), costs)
    equal = sum(one.same.all for one in found.values())
    report.goal_true("all tensors the same", f"{equal} of {len(found)} files", equal == len(found))
    worse = [name for name, one in found.items() if one.cost[OURS]["kl_mean"] > one.cost[THEIRS]["kl_mean"]]
    report.goal_true("mean KL no worse than llama.cpp's", f"{len(found) - len(worse)} of {len(found)} files", not worse)


def describe(windows: Sequence[Sequence[int]], importance: Importance, exact: dict[str, Any]) -> str:
    ppl = ", ".join(f"{cost['ppl_first']:.3f} ({who})" for who, cost in exact.items())
    return (
        f"{len(windows)} windows of {WINDOW} tokens, of which the second half is scored. Perplexity in F16: {ppl}. "
        f"The importance matrix is of {importance.chunks} windows of the topics of Python's `help()`."
    )


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/models/docs8m"), help="the model")
    parser.add_argument("--recipe", action="append", dest="recipes", help="repeatable; default: all")
    parser.add_argument("--windows", type=common.positive, default=64, help="of the held-out text")
    parser.add_argument("--chunks", type=common.positive, default=400, help="windows for the importance matrix")
    args = parser.parse_args()
    if not peers.is_installed():
        common.give_up(peers.MISSING)
    source = write_float16(args.folder)
    importance = measure_importance(source, args.chunks)
    tokenizer = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    text = (args.folder / "heldout.txt").read_text(encoding="utf-8")
    ids = list(tokenizer.encode(text, add_special_tokens=False).ids)
    windows = list(cut_windows(ids, WINDOW, None))[: args.windows]
    exact, costs = {}, {}
    for side in (OURS, THEIRS):
        engine = engine_of(side, source, args.threads)
        exact[side] = predictions(engine, windows)
        engine.close()
        costs[side] = cost_of(side, source, windows, exact[side], args.threads)
    report = Report("trained", f"Quantized by every recipe: {args.folder.name}, beside llama.cpp")
    report.note(describe(windows, importance, costs))
    found: dict[tuple[str, bool], Found] = {}
    for recipe in args.recipes or [name for name in RECIPES if name not in ("F32", "F16")]:
        for given in (None, importance):
            common.note(f"{recipe}{' with an importance matrix' * (given is not None)}")
            one = measure(source, recipe, given, windows, exact, args.threads)
            if one is not None:
                found[recipe, given is not None] = one
    add_to(report, found)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
