"""Choosing a token: milliseconds by setting and by how sure the model is, for a vocabulary of 150,000.

    python -m benchmarks.sampling
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from halfbyte.runtime.engine.sampling import Sampler, SamplingParams
from numpy.typing import NDArray

from . import common
from .report import Report

VOCABULARY = 150_000
SURE = {"sure": 3.0, "unsure": 0.3, "uniform": 0.001}  # standard deviations of normal logits
ALL_OFF: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "greedy": {"temperature": 0.0},
    "every filter off": ALL_OFF,
    "top-p alone": {**ALL_OFF, "top_p": 0.95},
    "min-p alone": {**ALL_OFF, "min_p": 0.05},
    "penalties, else off": {**ALL_OFF, "repeat_penalty": 1.1, "presence_penalty": 0.1},
    "defaults, 5 log probabilities": {"logprobs": 5},
}
LIMIT = 0.5  # ms
ROUNDS = 101


def milliseconds(settings: dict[str, Any], logits: NDArray[np.float32]) -> float:
    """The median of a token."""
    sampler, history, found = Sampler(SamplingParams(seed=1, **settings), logits.size), list(range(100)), []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        sampler.sample(logits, history)
        found.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(found)


def main() -> int:
    args = common.parser(__doc__).parse_args()
    rng, report = np.random.default_rng(0), Report("sampling", f"Choosing one of {VOCABULARY:,} tokens")
    logits = {name: (scale * rng.standard_normal(VOCABULARY)).astype(np.float32) for name, scale in SURE.items()}
    table = {name: {s: milliseconds(settings, v) for s, v in logits.items()} for name, settings in SETTINGS.items()}
    report.data["milliseconds"] = table
    report.table(
        "Milliseconds, medians",
        ("Setting", *(f"model {sure}" for sure in SURE)),
        [(name, *(f"{value:.2f}" for value in row.values())) for name, row in table.items()],
    )
    for name, row in table.items():
        report.goal_at_most(f"{name}, slowest of the {len(row)}", max(row.values()), LIMIT, "ms")
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
