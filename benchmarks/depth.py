"""Long contexts beside llama.cpp with flash attention: reading a prompt of 4,096 tokens, and writing behind it.

    python -m benchmarks.depth
    python -m benchmarks.depth --deep          # also behind 16,384 tokens

A round is the whole prompt in steps of 512 tokens, with logits after each step, and then single tokens at that depth,
several times over. The first round is a short one and is not counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common, peers, rounds, targets
from .engines import MAX_TOKENS
from .report import Report
from .rounds import Pair, Timing

MODEL = "synthetic:Q4_K_M"
DEPTH, DEEP = 4096, 16384
REPEATS = 3  # of the single tokens in each round: reading the prompt again takes a minute


def measure(path: Path, depth: int, args: argparse.Namespace) -> tuple[dict[str, Timing], str | None]:
    """Both sides behind `depth` tokens."""
    context = depth + args.gen_tokens + 1
    with Pair(path, context=context, threads=args.threads, flash_attention=args.flash_attention) as pair:
        for number in range(args.rounds + 1):
            if number < 2:
                timings = pair.timings()
            ids = common.random_tokens(context - 1, pair.ours.vocab_size, seed=number)
            prompt, rest = ids[: depth if number else MAX_TOKENS], ids[depth:]
            for side, engine in pair.turns(number):
                timings[side].measure(engine, prompt, rest, args.threads)
                for _ in range(REPEATS - 1):
                    timings[side].measure_again(engine, len(prompt), rest)
        return timings, pair.build


def add_to(report: Report, name: str, depth: int, timings: dict[str, Timing]) -> list[str]:
    """Goals and numbers of one depth; the row of the table."""
    wanted = ((f"prompt of {depth} tokens", "prompt"), (f"decode behind {depth} tokens", "decode"))
    for title, what in wanted if depth == DEPTH else ():
        if ratio := rounds.ratio(timings, f"{what}_tps"):
            report.goal_at_least(f"{name}: {title}", ratio.median, getattr(targets.DEPTH, what), "times llama.cpp")
    report.data[f"{name} {depth}"] = rounds.as_json(timings)
    return [name, str(depth), *rounds.cells(timings, "prompt_tps"), *rounds.cells(timings, "decode_tps")]


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=(MODEL,))
    parser.add_argument("--rounds", type=common.positive, default=3, help="counted rounds")
    parser.add_argument("--gen-tokens", type=common.positive, default=32)
    parser.add_argument("--depth", type=common.positive, action="append", dest="depths", help=f"default: {DEPTH}")
    parser.add_argument("--deep", action="store_true", help=f"also {DEEP}: a quarter of an hour more")
    common.add_peer_options(parser, flash_attention="on")
    args = parser.parse_args()
    args.depths = [*(args.depths or [DEPTH]), *([DEEP] if args.deep else [])]
    return args


def main() -> int:
    args = arguments()
    common.apply_peer_options(args)
    report = Report("depth", f"Long contexts, {args.threads} threads")
    rows, build = [], None
    for model in common.chosen_models(args):
        name, path = common.label(model), common.resolve(model)
        for depth in args.depths:
            common.note(f"measuring {name} at {depth} tokens")
            timings, build = measure(path, depth, args)
            rows.append(add_to(report, name, depth, timings))
    header = ("Model", "Tokens", "Prompt t/s", "llama.cpp", "Ratio", "Decode t/s", "llama.cpp", "Ratio")
    report.table("Tokens per second, medians; ratios with the lowest and the highest round", header, rows)
    report.note(peers.describe(build, args))
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
