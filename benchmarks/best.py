"""What `--search best` is worth: errors and predictions of types with and without it, at the same bytes.

    python -m benchmarks.best ../shared/models/docs8m
    python -m benchmarks.best --model smollm2 --type Q4_0 --type IQ4_NL --windows 8

The folder holds a trained Llama model in Hugging Face layout, and a text `heldout.txt`; other models are judged by
benchmarks/text.txt. The importance comes from another text: Python's own documentation (pydoc_data.topics). Every
matrix gets the type. Files run widened to float32, so that predictions differ by their weights alone. Divergences are
from the model as it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import halfbyte
import numpy as np
from halfbyte.converters.imatrix import Sums, collect
from halfbyte.converters.quantize import quantize, read_importance
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.formats.quants import FORMS, decode, row_powers
from halfbyte.tools.compare import TextCost
from halfbyte.tools.perplexity import cut_windows
from numpy.typing import NDArray
from tokenizers import Tokenizer

from . import common
from .engines import Ours
from .report import Report
from .weight_types import write_float32

CONTEXT = 256
Windows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Subject:
    """A model, windows of a text that it is judged by with its logits, and its importance from others."""

    name: str
    path: Path
    windows: Windows
    logits: list[NDArray[np.float32]]
    imatrix: Path


@dataclass(frozen=True)
class Found:
    """Of one file. error: over all weights, as the search counts it, by what they would cost if they became zero."""

    error: float
    kl: float
    kl_error: float
    ppl: float
    n_bytes: int


def subject(name: str, path: Path, ids: Sequence[int], other: Sequence[int], args: argparse.Namespace) -> Subject:
    target = common.cache_dir() / f"best-{name}.imatrix.gguf"
    windows, others = (list(cut_windows(some, CONTEXT, None)) for some in (ids, other))
    engine, sums = Ours(path, context=CONTEXT, threads=args.threads), Sums(["pydoc_data.topics"], chunk_size=CONTEXT)
    collect(engine._executor, others[: args.calibration], sums).write(target)
    engine.close()
    windows = windows[: args.windows]
    return Subject(name, path, windows, [found.copy() for found in logits(path, windows, args.threads)], target)


def subjects(args: argparse.Namespace) -> Iterator[Subject]:
    calibration = "\n".join(topics.values())
    if args.folder:
        tokenizer = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
        text = (args.folder / "heldout.txt").read_text(encoding="utf-8")
        ids, other = (tokenizer.encode(some, add_special_tokens=False).ids for some in (text, calibration))
        yield subject(args.folder.name, write_float32(args.folder), ids, other, args)
    for name in args.models or ():
        path = common.resolve(name)
        tokens = halfbyte.load_tokenizer(path)
        ids, other = (tokens.encode(some) for some in (common.TEXT.read_text(encoding="utf-8"), calibration))
        yield subject(common.label(name), widened(path, common.cache_dir() / "best-source.gguf"), ids, other, args)


def widened(path: Path, target: Path) -> Path:
    """The model with float32 weights."""
    with GGUFFile.open(path) as file:
        writer = GGUFWriter(target)
        writer.add_all(file.metadata)
        for name, tensor in file.tensors.items():
            writer.add_tensor(name, tensor.shape, GGMLType.F32)
        with writer.open():
            for name, tensor in file.tensors.items():
                writer.write_tensor(name, decode(tensor.data, tensor.type))
    return target


def logits(path: Path, windows: Windows, threads: int) -> Iterator[NDArray[np.float32]]:
    engine = Ours(path, context=CONTEXT, threads=threads)
    for window in windows:
        yield engine.logits(window)
    engine.close()


def weighted_error(before: Path, after: Path, columns: dict[str, NDArray[np.float32]]) -> float:
    error = whole = 0.0
    with GGUFFile.open(before) as a, GGUFFile.open(after) as b:
        for name, tensor in b.tensors.items():
            if tensor.type not in FORMS:
                continue
            x, y = decode(a.tensors[name].data, a.tensors[name].type), decode(tensor.data, tensor.type)
            cost = np.float32(1)
            if name in columns:
                cost = columns[name].reshape(-1) * np.sqrt(row_powers(x)[..., None] + x * x)
            error += float((cost * (y - x) ** 2).sum(dtype=np.float64))
            whole += float((cost * x * x).sum(dtype=np.float64))
    return error / whole


def measure(one: Subject, type_: GGMLType, search: str, weighted: bool, args: argparse.Namespace) -> Found:
    path, wide = (common.cache_dir() / f"best-{one.name}{end}.gguf" for end in ("", "-float32"))
    given = read_importance(one.imatrix) if weighted else None
    quantize(
        one.path, path, "Q8_0", overrides=[(".", type_)], output_type=type_, embedding_type=type_, importance=given,
        search=search, threads=args.threads,
    )  # fmt: skip
    cost = TextCost()
    changed = logits(widened(path, wide), one.windows, args.threads)
    for window, before, after in zip(one.windows, one.logits, changed, strict=True):
        cost.add(before, after, window)
    told = cost.summary()
    with GGUFFile.open(path) as file:
        n_bytes = sum(tensor.n_bytes for tensor in file.tensors.values())
    error = weighted_error(one.path, path, dict(given.columns) if given else {})
    return Found(error, told["kl_mean"], told["kl_error"], told["ppl_changed"], n_bytes)


def add_to(report: Report, one: Subject, args: argparse.Namespace) -> None:
    rows = []
    for name in args.types or [t.name for t in FORMS]:
        for weighted in (False, True):
            common.note(f"{one.name}: {name}{', with importance' * weighted}")
            pair = [measure(one, GGMLType[name], search, weighted, args) for search in ("reference", "best")]
            reference, best = pair
            key = f"{one.name} {name}{' importance' * weighted}"
            report.data[key] = {"reference": vars(reference), "best": vars(best)}
            kind = "importance" if weighted else "plain"
            rows.append((
                name, kind, f"{best.error / reference.error:.3f}", f"{best.kl / reference.kl:.3f}",
                *(f"{found.kl:.5f} ± {found.kl_error:.5f}" for found in pair), *(f"{found.ppl:.3f}" for found in pair),
                f"{best.n_bytes / 1e6:.2f}",
            ))  # fmt: skip
            same = best.n_bytes == reference.n_bytes
            report.goal_true(f"{key}: the same bytes", "yes" if same else "no", same)
            report.goal_at_most(f"{key}: error by the reference's", best.error / reference.error, 1, "", 3)
    header = ("Type", "Errors", "Error", "KL", "KL reference", "KL best", "PPL reference", "PPL best", "MB")
    report.table(f"{one.name}: best by reference; {len(one.windows)} windows of {CONTEXT} tokens", header, rows)
    worse = [key for key, row in report.data.items() if row["best"]["kl"] > row["reference"]["kl"]]
    report.note(f"The lower error has the larger KL in {len(worse)} of {len(report.data)} rows. {', '.join(worse)}")


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=())
    parser.add_argument("folder", type=Path, nargs="?", help="a model in Hugging Face layout, with heldout.txt")
    parser.add_argument("--type", action="append", dest="types", help="default: all that have a search")
    parser.add_argument("--windows", type=common.positive, default=32, help="of the text, to judge by")
    parser.add_argument("--calibration", type=common.positive, default=64, help="windows for the importance")
    args = parser.parse_args()
    report = Report("best", "Better encoders beside ggml's, at the same bytes")
    for one in subjects(args):
        add_to(report, one, args)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
