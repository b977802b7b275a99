"""Whether memory stays as it is while tokens are generated: 10,000 of them, in one text and in many.

    python -m benchmarks.memory

First a prompt fills the whole context, so that every page of keys and values has been written once. What the process
holds from then on should be a flat line; its slope is fitted by least squares.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import halfbyte
import numpy as np
from halfbyte.tools.bench import BANNED

from . import common, targets
from .processes import memory_held
from .report import Report

MODEL = "smollm2"
EVERY = 250  # tokens between samples
SHORT = 500  # tokens of one text out of many
PROMPT_TOKENS = 16


@dataclass
class Samples:
    """Bytes of main memory of this process after so many generated tokens."""

    tokens: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def add(self, tokens: int) -> None:
        gc.collect()  # what Python has not yet noticed to be free is no leak
        self.tokens.append(tokens)
        self.resident.append(memory_held().resident)

    @property
    def slope(self) -> float:
        """Bytes per token."""
        return slope(self.tokens, self.resident)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line that fits best, without the noise of its own arithmetic."""
    return round(float(np.polyfit(np.asarray(x, np.float64), np.asarray(y, np.float64), 1)[0]), 6) + 0.0


def measure(path: Path, total: int, threads: int) -> dict[str, Samples]:
    """One text of `total` tokens, and texts of SHORT tokens that have as many together."""
    context = PROMPT_TOKENS + total
    with halfbyte.Model.load(path, threads=threads, context=context, parallel=1) as model:
        fill = common.random_tokens(context - 1, model.vocab_size, seed=1).tolist()
        generate(model, fill, 1, 0, Samples())
        generate(model, fill[:PROMPT_TOKENS], EVERY, 0, Samples())
        return {
            f"one text of {total:,} tokens": texts(model, total, total),
            f"texts of {min(SHORT, total):,} tokens": texts(model, total, min(SHORT, total)),
        }


def texts(model: halfbyte.Model, total: int, each: int) -> Samples:
    """Generate texts of `each` tokens until there are `total`."""
    samples = Samples()
    samples.add(0)
    for number in range(total // each):
        prompt = common.random_tokens(PROMPT_TOKENS, model.vocab_size, seed=2 + number).tolist()
        generate(model, prompt, each, number * each, samples)
    return samples


def generate(model: halfbyte.Model, prompt: list[int], count: int, before: int, samples: Samples) -> None:
    ends = dict.fromkeys(model.tokenizer.eog_ids, BANNED)
    generation = model.generate(prompt, max_tokens=count, temperature=0.8, seed=before, logit_bias=ends)
    for number, _ in enumerate(generation.events(), 1):
        if number % EVERY == 0:
            samples.add(before + number)


def add_to(report: Report, name: str, found: dict[str, Samples]) -> None:
    """Table, goals and numbers of one model."""
    rows = []
    for what, samples in found.items():
        growth = samples.slope * targets.GROWTH_TOKENS
        first, last, most = samples.resident[0], samples.resident[-1], max(samples.resident)
        rows.append((what, *(f"{size / 1e6:.2f}" for size in (first, last, most)), f"{samples.slope:.1f}"))
        title = f"{name}: growth in {targets.GROWTH_TOKENS:,} tokens, {what}"
        report.goal_at_most(title, growth / 1e6, targets.GROWTH / 1e6, "MB")
        report.data[f"{name}, {what}"] = {**vars(samples), "bytes_per_token": samples.slope}
    header = ("While generating", "First MB", "Last MB", "Most MB", "Slope, bytes a token")
    report.table(f"{name}: main memory of the process, mapped file included", header, rows)


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=(MODEL,))
    parser.add_argument("--tokens", type=common.positive, default=targets.GROWTH_TOKENS, help="of each kind of text")
    args = parser.parse_args()
    if args.tokens < 2 * EVERY:
        parser.error(f"--tokens is at least {2 * EVERY}: a sample is taken every {EVERY}")
    return args


def main() -> int:
    args = arguments()
    report = Report("memory", f"Memory over {args.tokens:,} generated tokens, {args.threads} threads")
    for model in common.chosen_models(args):
        common.note(f"measuring {common.label(model)}")
        add_to(report, common.label(model), measure(common.resolve(model), args.tokens, args.threads))
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
