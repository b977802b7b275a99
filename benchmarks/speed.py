"""Speed beside llama.cpp, in one run: prompt tokens and generated tokens per second.

    python -m benchmarks.speed
    python -m benchmarks.speed --model smollm2 --model synthetic:Q4_0 --rounds 9

Both programs are in memory; rounds alternate between them and swap their order. A round is a prompt in one step, with
logits for its last token, and then single tokens, each with logits. No program samples: the tokens are fixed. The last
column is what a user of `Model.generate` gets, sampling and text included.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import halfbyte
import numpy as np
from halfbyte.tools.bench import BANNED, Speeds
from numpy.typing import NDArray

from . import common
from .common import Runs
from .engines import MAX_TOKENS, Engine, Ours
from .peers import FLASH_ATTENTION, LlamaCpp
from .report import Report

SYNTHETIC = ("Q4_0", "Q8_0", "Q4_K_M", "Q6_K")
DEFAULT_MODELS = (*common.REAL_MODELS, *(f"synthetic:{recipe}" for recipe in SYNTHETIC))
GOAL = 1.0  # times llama.cpp's speed
PAUSE = 0.1  # seconds between turns: waiting threads of the other program stop spinning within a few milliseconds


@dataclass
class Timing:
    """Rounds of one engine. `cpu_share` is process time by wall time by thread: below 1, something else took time."""

    prompt_tps: list[float] = field(default_factory=list)
    decode_tps: list[float] = field(default_factory=list)
    cpu_share: list[float] = field(default_factory=list)

    def measure(self, engine: Engine, prompt: NDArray[np.int32], rest: NDArray[np.int32], threads: int) -> None:
        engine.clear()
        time.sleep(PAUSE)
        cpu, begin = time.process_time(), time.perf_counter()
        engine.run(prompt)
        middle = time.perf_counter()
        for token in rest:
            engine.run([int(token)])
        end = time.perf_counter()
        self.prompt_tps.append(len(prompt) / (middle - begin))
        self.decode_tps.append(len(rest) / (end - middle))
        self.cpu_share.append((time.process_time() - cpu) / (end - begin) / threads)


@dataclass(frozen=True)
class Result:
    """Both engines on one model; `generate_tps` is decode through the public API."""

    model: str
    ours: Timing
    theirs: Timing
    generate_tps: list[float]

    def ratio(self, what: str) -> Runs:
        return Runs(tuple(getattr(self.ours, what))).ratio(Runs(tuple(getattr(self.theirs, what))))


def measure(name: str, path: Path, args: argparse.Namespace) -> tuple[Result, str]:
    """All rounds of one model, after one that is not counted. Also what llama.cpp says about its build."""
    context = args.prompt_tokens + args.gen_tokens + 1
    ours = Ours(path, context=context, threads=args.threads, backend=args.backend)
    theirs = LlamaCpp(path, context=context, threads=args.threads, flash_attention=args.flash_attention)
    with halfbyte.Model.load(path, threads=args.threads, context=context, backend=args.backend, parallel=1) as model:
        result = Result(name, Timing(), Timing(), [])
        speeds = Speeds()
        for number in range(args.rounds + 1):
            ids = common.random_tokens(context - 1, ours.vocab_size, seed=number)
            prompt, rest = ids[: args.prompt_tokens], ids[args.prompt_tokens :]
            pair: list[tuple[Timing, Engine]] = [(result.ours, ours), (result.theirs, theirs)]
            for timing, engine in pair[:: 1 if number % 2 else -1]:
                timing.measure(engine, prompt, rest, args.threads)
            generate(model, prompt.tolist(), args.gen_tokens, speeds)
            if not number:
                result, speeds = Result(name, Timing(), Timing(), []), Speeds()
        result.generate_tps.extend(speeds.decode)
    build = theirs.build
    ours.close()
    theirs.close()
    return result, build


def generate(model: halfbyte.Model, prompt: list[int], count: int, speeds: Speeds) -> None:
    """One greedy generation of `count` tokens after the first, which belongs to the prompt's time."""
    ends = dict.fromkeys(model.tokenizer.eog_ids, BANNED)
    generation = model.generate(prompt, max_tokens=count + 1, temperature=0, logit_bias=ends)
    generation.read()
    speeds.add(generation.usage)


def add_to(report: Report, results: Iterable[Result]) -> None:
    header = ("Model", "Prompt t/s", "llama.cpp", "Ratio", "Decode t/s", "llama.cpp", "Ratio", "`generate` t/s")
    rows = []
    for result in results:
        row = [result.model]
        for what in ("prompt_tps", "decode_tps"):
            ratio = result.ratio(what)
            ours, theirs = (Runs(tuple(getattr(side, what))) for side in (result.ours, result.theirs))
            row += [f"{ours.median:.1f}", f"{theirs.median:.1f}", ratio.show(2)]
            report.goal_at_least(f"{result.model}: {what.partition('_')[0]}", ratio.median, GOAL, "times llama.cpp")
        rows.append([*row, Runs(tuple(result.generate_tps)).show()])
        report.data[result.model] = as_json(result)
    report.table("Tokens per second, medians; ratios with the lowest and the highest round", header, rows)


def as_json(result: Result) -> dict[str, object]:
    sides = {"halfbyte": result.ours, "llama_cpp": result.theirs}
    data: dict[str, object] = {
        side: {what: Runs(tuple(runs)).as_json() for what, runs in vars(timing).items()}
        for side, timing in sides.items()
    }
    data |= {f"ratio_{what}": result.ratio(what).as_json() for what in ("prompt_tps", "decode_tps")}
    return data | {"generate_tps": Runs(tuple(result.generate_tps)).as_json()}


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=DEFAULT_MODELS)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds")
    parser.add_argument("--prompt-tokens", type=int, default=MAX_TOKENS, help=f"at most {MAX_TOKENS}: one step")
    parser.add_argument("--gen-tokens", type=int, default=32)
    parser.add_argument("--flash-attention", choices=list(FLASH_ATTENTION), default="auto", help="of llama.cpp")
    parser.add_argument("--omp-wait", choices=("default", "passive", "active"), default="default", help="of llama.cpp")
    parser.add_argument("--backend", default="cpu", help="of Halfbyte")
    args = parser.parse_args()
    if not 1 <= args.prompt_tokens <= MAX_TOKENS or args.gen_tokens < 1 or args.rounds < 1:
        parser.error(f"--prompt-tokens is 1 to {MAX_TOKENS}, --gen-tokens and --rounds are at least 1")
    return args


def main() -> int:
    args = arguments()
    if args.omp_wait != "default":
        os.environ["OMP_WAIT_POLICY"] = args.omp_wait  # read when llama.cpp is loaded, which is later
    report = Report("speed", f"Speed, {args.threads} threads, {args.prompt_tokens} + {args.gen_tokens} tokens")
    report.data["options"] = {
        key: getattr(args, key)
        for key in ("threads", "rounds", "prompt_tokens", "gen_tokens", "flash_attention", "omp_wait")
    }
    results = []
    for name in common.chosen_models(args):
        common.note(f"measuring {common.label(name)}")
        result, report.data["llama_cpp_build"] = measure(common.label(name), common.resolve(name), args)
        results.append(result)
    add_to(report, results)
    choices = f"flash attention {args.flash_attention}, waiting threads {args.omp_wait}"
    report.note(f"llama.cpp: {report.data['llama_cpp_build']} {choices}.")
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
