"""A converted checkpoint beside transformers: what it predicts, and how it tokenizes.

    python -m benchmarks.converted ../shared/models/docs8m
    python -m benchmarks.converted FOLDER --recipe F16 --recipe Q4_K_M --text FILE

`halfbyte convert` makes a file of each recipe. transformers computes logits of the text in float32, window by window,
with the folder; ours come from the reference backend for F32 and from the CPU backend for all recipes. Tokens are
compared for each line of the text, and for texts of many scripts with each added token. transformers is needed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from halfbyte import convert, load_tokenizer
from halfbyte.converters.vocab.agreement import TEXTS
from halfbyte.tools.compare import TextCost
from halfbyte.tools.perplexity import cut_windows
from numpy.typing import NDArray

from tests.convert.tokenizer_equality import differences
from tests.models.running import distance

from . import common
from .engines import Ours
from .report import Report

WINDOW = 256
RECIPES = ("F32", "F16", "Q8_0", "Q4_K_M")
TOLERANCE = 1e-4
Logits = list[NDArray[np.float32]]


def their_logits(folder: Path, windows: Sequence[Sequence[int]]) -> Logits:
    import torch

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return [model(torch.tensor([list(window)])).logits[0].numpy() for window in windows]


def our_logits(path: Path, windows: Sequence[Sequence[int]], backend: str, threads: int) -> Logits:
    engine = Ours(path, context=WINDOW, threads=threads, backend=backend)
    found = [engine.logits(window).copy() for window in windows]
    engine.close()
    return found


def other_tokens(folder: Path, path: Path, texts: Sequence[str]) -> list[str]:
    """Texts that get other ids, with the tokens around a text or without them."""
    theirs: Any = transformers.AutoTokenizer.from_pretrained(folder)
    return differences(
        load_tokenizer(path), lambda text, framed: theirs.encode(text, add_special_tokens=framed), iter(texts)
    )


def cost_row(
    name: str, size: int, expected: Logits, found: Logits, windows: Sequence[Sequence[int]]
) -> tuple[float, list[str]]:
    """The largest error, and a row of the table."""
    cost = TextCost()
    for window, a, b in zip(windows, expected, found, strict=True):
        cost.add(a, b, window)
    about = cost.summary()
    error = max(distance(b, a) for a, b in zip(expected, found, strict=True))
    return error, [
        name, f"{size / 1e6:.2f}", f"{error:.1e}", f"{about['kl_mean']:.2e}", f"{100 * about['same_top']:.2f} %",
        f"{about['ppl_changed']:.4f}", f"{about['ppl_first']:.4f}",
    ]  # fmt: skip


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=())
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/models/docs8m"))
    parser.add_argument("--text", type=Path, help="default: heldout.txt of the folder")
    parser.add_argument("--recipe", action="append", dest="recipes", help=f"repeatable; default: {' '.join(RECIPES)}")
    parser.add_argument("--windows", type=common.positive, default=24)
    args = parser.parse_args()
    transformers.logging.disable_progress_bar()
    text = (args.text or args.folder / "heldout.txt").read_text(encoding="utf-8")
    ids = transformers.AutoTokenizer.from_pretrained(args.folder).encode(text, add_special_tokens=False)
    windows = list(cut_windows(ids, WINDOW, None))[: args.windows]
    expected, rows = their_logits(args.folder, windows), []
    name = args.folder.resolve().name
    report = Report("converted", f"{name} converted, beside transformers: {len(windows)} windows of {WINDOW} tokens")
    with tempfile.TemporaryDirectory(dir=common.cache_dir()) as temp:
        for recipe in args.recipes or RECIPES:
            common.note(recipe)
            path = Path(temp) / f"{name}-{recipe}.gguf"
            convert(args.folder, path, recipe)
            for backend in ("reference", "cpu") if recipe == "F32" else ("cpu",):
                found = our_logits(path, windows, backend, args.threads)
                error, row = cost_row(f"{recipe}, {backend}", path.stat().st_size, expected, found, windows)
                rows.append(row)
                if backend == "reference":
                    report.goal_at_most("reference beside transformers", 1e6 * error, 1e6 * TOLERANCE, "millionths", 1)
            last = path
        texts = [*dict.fromkeys(text.splitlines()), *TEXTS]
        other = len(other_tokens(args.folder, last, texts))
    header = ("File", "MB", "Largest error", "Mean KL", "Same top token", "Perplexity", "transformers'")
    report.table("Predictions", header, rows)
    report.goal_true("the same tokens", f"{len(texts) - other} of {len(texts)} texts", other == 0)
    report.data = {"rows": rows, "texts": len(texts), "other_tokens": other}
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
