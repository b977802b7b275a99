"""Several sequences in every step: tokens per second of all together, against those of one alone.

    python -m benchmarks.batch

Each sequence has its own prompt and gets one token in every step, with logits. Both programs run their steps directly;
`generate` is what as many threads get together from one `Model`, sampling and text included, prompts too.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import halfbyte
from halfbyte.tools.bench import BANNED

from . import common, peers, rounds, targets
from .common import Runs
from .engines import Engine
from .report import Report
from .rounds import OURS, THEIRS, Pair

MODEL = "synthetic:Q4_K_M"
SIZES = (1, 2, 4, 8)
SHORT_PROMPT = 16  # of `generate`: its time is counted, and should be little

Speeds = dict[str, dict[int, Runs]]  # side -> sequences -> tokens per second of all together
GENERATE = "generate"


def measure(path: Path, sizes: list[int], args: argparse.Namespace) -> tuple[Speeds, str | None]:
    """Every size on both sides, and through the public API."""
    context = args.prompt_tokens + args.gen_tokens
    found: Speeds = {}
    with Pair(path, context=context, threads=args.threads, sequences=max(sizes),
              flash_attention=args.flash_attention) as pair:  # fmt: skip
        for side, engine in pair.engines.items():
            fill(engine, max(sizes), args.prompt_tokens)
            found[side] = {size: Runs(()) for size in sizes}
        for number in range(args.rounds + 1):
            for side, engine in pair.turns(number):
                for size in sizes:
                    engine.rewind(args.prompt_tokens)
                    time.sleep(rounds.PAUSE)
                    tps = step_speed(engine, size, args.gen_tokens, seed=number)
                    if number:
                        found[side][size] = Runs((*found[side][size].values, tps))
        build = pair.build
    found[GENERATE] = generate_speeds(path, sizes, args)
    return found, build


def fill(engine: Engine, n: int, length: int) -> None:
    """Give each of `n` sequences a prompt of its own."""
    for sequence in range(n):
        rounds.read(engine, common.random_tokens(length, engine.vocab_size, seed=100 + sequence), sequence)


def step_speed(engine: Engine, n: int, steps: int, seed: int) -> float:
    """Tokens per second of `n` sequences together."""
    ids = common.random_tokens(n * steps, engine.vocab_size, seed).reshape(steps, n)
    begin = time.perf_counter()
    for tokens in ids:
        engine.run_each(tokens)
    return n * steps / (time.perf_counter() - begin)


def generate_speeds(path: Path, sizes: list[int], args: argparse.Namespace) -> dict[int, Runs]:
    """Tokens per second of `n` threads that share one model, by `n`."""
    found: dict[int, Runs] = {}
    context = SHORT_PROMPT + args.gen_tokens
    with halfbyte.Model.load(path, threads=args.threads, context=context, parallel=max(sizes)) as model:
        for size in sizes:
            values = [threads_speed(model, size, args.gen_tokens, seed) for seed in range(args.rounds + 1)]
            found[size] = Runs(tuple(values[1:]))
    return found


def threads_speed(model: halfbyte.Model, n: int, count: int, seed: int) -> float:
    ends = dict.fromkeys(model.tokenizer.eog_ids, BANNED)
    prompts = common.random_tokens(n * SHORT_PROMPT, model.vocab_size, seed).reshape(n, SHORT_PROMPT)

    def work(prompt: list[int]) -> None:
        model.generate(prompt, max_tokens=count, temperature=0, logit_bias=ends).read()

    workers = [threading.Thread(target=work, args=(prompt.tolist(),)) for prompt in prompts]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return n * count / (time.perf_counter() - begin)


def add_to(report: Report, name: str, found: Speeds, sizes: list[int]) -> None:
    """Table, numbers and goal of one model."""
    sides = [side for side in (OURS, THEIRS, GENERATE) if side in found]
    rows = []
    for size in sizes:
        row = [str(size)]
        for side in sides:
            row += [found[side][size].show(), f"{gain(found[side], size):.2f}"]
        rows.append(row)
    titles = {OURS: "Halfbyte t/s", THEIRS: "llama.cpp t/s", GENERATE: "`generate` t/s"}
    header = ["Sequences"]
    for side in sides:
        header += [titles[side], "Gain"]
    report.table(f"{name}: tokens per second of all sequences together, and how many times those of one", header, rows)
    report.data[name] = {side: {n: runs.as_json() for n, runs in by.items()} for side, by in found.items()}
    size, wanted = targets.BATCH
    if size in sizes and 1 in sizes:
        report.goal_at_least(f"{name}: {size} sequences together", gain(found[OURS], size), wanted, "times one")


def gain(by_size: dict[int, Runs], size: int) -> float:
    """Throughput in multiples of that of the smallest size, by medians."""
    return by_size[size].median / by_size[min(by_size)].median


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=(MODEL,))
    parser.add_argument("--size", type=common.positive, action="append", dest="sizes", help="default: 1 2 4 8")
    parser.add_argument("--rounds", type=common.positive, default=5, help="counted rounds")
    parser.add_argument("--prompt-tokens", type=common.positive, default=128)
    parser.add_argument("--gen-tokens", type=common.positive, default=32)
    common.add_peer_options(parser)
    args = parser.parse_args()
    common.apply_peer_options(args)
    report = Report("batch", f"Sequences together, {args.threads} threads")
    sizes, build = sorted(args.sizes or SIZES), None
    for model in common.chosen_models(args):
        common.note(f"measuring {common.label(model)}")
        found, build = measure(common.resolve(model), sizes, args)
        add_to(report, common.label(model), found, sizes)
    report.note(peers.describe(build, args))
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
