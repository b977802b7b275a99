"""How speed changes with threads, context, sequences together, and the size of the model.

    pip install matplotlib                   # for the plots
    python -m benchmarks.scaling             # needs 7 GB of disk for the models, and 10 GB of memory for the largest
    python -m benchmarks.scaling --only threads --only batch

Numbers go to results/scaling.json, plots to results/plots/ (`python -m benchmarks.plots` draws them again).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.runtime.topology import usable_cpus

from . import batch, common, peers, plots, rounds
from .common import Runs
from .engines import MAX_TOKENS
from .report import Report
from .rounds import Pair, Timing
from .shapes import SHAPES

DEPTHS = (512, 1024, 2048, 4096, 8192, 16384)
SEQUENCES = (1, 2, 4, 8, 16)
SIZES = tuple(shape for shape in SHAPES if shape != "tiny")
REPEATS = 3  # of the single tokens at each depth
WHAT = {"prompt_tps": "prompt", "decode_tps": "decode"}


@dataclass
class Curve:
    """Tokens per second by one quantity: lines[what][side][i] belongs to x[i]."""

    x_title: str
    subject: str  # what is the same at all points
    x: list[str] = field(default_factory=list)
    lines: dict[str, dict[str, list[Runs]]] = field(default_factory=dict)

    def add(self, x: str, what: str, side: str, values: list[float]) -> None:
        if x not in self.x:
            self.x.append(x)
        self.lines.setdefault(what, {}).setdefault(side, []).append(Runs(tuple(values)))

    def add_timings(self, x: str, timings: dict[str, Timing]) -> None:
        for side, timing in timings.items():
            for name, what in WHAT.items():
                self.add(x, what, side, getattr(timing, name))

    def as_json(self) -> dict[str, Any]:
        lines = {
            what: {side: [runs.as_json() for runs in line] for side, line in sides.items()}
            for what, sides in self.lines.items()
        }
        return {"x_title": self.x_title, "subject": self.subject, "x": self.x, "lines": lines}


def by_threads(args: argparse.Namespace) -> Curve:
    """1, 2, 3, ... as many as there are processors, and twice as many: more must do no harm."""
    curve, path = Curve("threads", args.model), common.resolve(args.model)
    for threads in thread_counts(usable_cpus()):
        curve.add_timings(str(threads), compare(path, threads, args))
    return curve


def thread_counts(cpus: int) -> list[int]:
    """All up to four; then powers of two, and three quarters of them; the number of processors, and twice that."""
    steps = {n for power in range(2, 10) for n in (2**power, 3 * 2 ** (power - 1))}
    return sorted({n for n in {1, 2, 3, *steps} if n < cpus} | {cpus, 2 * cpus})


def by_size(args: argparse.Namespace) -> Curve:
    """Shapes from 135 million to 7 billion weights."""
    curve = Curve("model size", f"synthetic:Q4_0, {args.threads} threads")
    for size in args.sizes:
        common.note(f"  {size}")
        curve.add_timings(size, compare(common.resolve(f"synthetic:Q4_0@{size}"), args.threads, args))
    return curve


def compare(path: Path, threads: int, args: argparse.Namespace) -> dict[str, Timing]:
    context = MAX_TOKENS + args.gen_tokens
    with Pair(path, context=context, threads=threads, flash_attention=args.flash_attention) as pair:
        return rounds.play(pair, count=args.rounds, n_prompt=MAX_TOKENS, n_gen=args.gen_tokens, threads=threads)


def by_depth(args: argparse.Namespace) -> Curve:
    """One growing sequence: the speed of the prompt's tokens since the last point, and of single tokens there."""
    curve, path = Curve("tokens in the context", f"{args.model}, {args.threads} threads"), common.resolve(args.model)
    end = max(args.depths)
    with Pair(path, context=end + args.gen_tokens, threads=args.threads, flash_attention="on") as pair:
        ids = common.random_tokens(end + args.gen_tokens, pair.ours.vocab_size, seed=1)
        for _, engine in pair.turns(0):
            engine.run(ids[: min(64, end)])
            engine.clear()
        for number, (start, stop) in enumerate(zip((0, *args.depths), args.depths, strict=False)):
            timings = pair.timings()
            for side, engine in pair.turns(number):
                time.sleep(rounds.PAUSE)
                engine.rewind(start)
                begin = time.perf_counter()
                rounds.read(engine, ids[start:stop])
                timings[side].prompt_tps.append((stop - start) / (time.perf_counter() - begin))
                for _ in range(REPEATS):
                    timings[side].measure_again(engine, stop, ids[np.arange(args.gen_tokens)])
            curve.add_timings(str(stop), timings)
    return curve


def by_sequences(args: argparse.Namespace) -> Curve:
    """All sequences together; prompts are read one by one and not counted."""
    curve = Curve("sequences together", f"{args.model}, {args.threads} threads")
    found, _ = batch.measure(common.resolve(args.model), list(args.sequences), args)
    for side, speeds in found.items():
        for n, runs in speeds.items():
            curve.add(str(n), "decode", side, list(runs.values))
    return curve


CURVES: dict[str, Callable[[argparse.Namespace], Curve]] = {
    "threads": by_threads,
    "depth": by_depth,
    "batch": by_sequences,
    "size": by_size,
}


def add_to(report: Report, name: str, curve: Curve) -> None:
    """The table and the numbers of a curve."""
    columns = [(what, side, runs) for what, sides in curve.lines.items() for side, runs in sides.items()]
    header = [curve.x_title, *(f"{what}, {plots.SIDES[side].label}" for what, side, _ in columns)]
    rows = [[x, *(runs[i].show() for _, _, runs in columns)] for i, x in enumerate(curve.x)]
    report.table(f"Tokens per second by {curve.x_title}; {curve.subject}", header, rows)
    report.data[name] = curve.as_json()


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=(batch.MODEL,))
    parser.add_argument("--only", choices=tuple(CURVES), action="append", help="default: all of them; repeatable")
    parser.add_argument("--size", choices=tuple(SHAPES), action="append", dest="sizes", help="default: all but tiny")
    parser.add_argument("--depth", type=common.positive, action="append", dest="depths", help=f"default: {DEPTHS}")
    parser.add_argument("--rounds", type=common.positive, default=3, help="counted rounds of each point")
    parser.add_argument("--prompt-tokens", type=common.positive, default=128, help="of sequences that run together")
    parser.add_argument("--gen-tokens", type=common.positive, default=16)
    common.add_peer_options(parser)
    args = parser.parse_args()
    args.sizes, args.depths, args.sequences = args.sizes or SIZES, sorted(args.depths or DEPTHS), SEQUENCES
    (args.model,) = common.chosen_models(args)[:1]
    return args


def main() -> int:
    args = arguments()
    common.apply_peer_options(args)
    plots.library()  # to give up now, not in twenty minutes
    report = Report("scaling", f"Scaling, {args.threads} threads where nothing else is said")
    for name in args.only or CURVES:
        common.note(f"measuring by {name}")
        add_to(report, name, CURVES[name](args))
    if not peers.is_installed():
        report.note(f"No comparison: {peers.MISSING}")
    code = report.finish(args.out)
    plots.draw(args.out)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
