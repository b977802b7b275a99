"""Speed beside llama.cpp, in one run: prompt tokens and generated tokens per second, and how near the limits they are.

    python -m benchmarks.speed
    python -m benchmarks.speed --model smollm2 --model synthetic:Q4_0 --rounds 9

Both programs are in memory; rounds alternate between them and swap their order. A round is a prompt in one step, with
logits for its last token, and then single tokens, each with logits. No program samples: the tokens are fixed. What the
machine can read and multiply at most is measured in every round too. `generate` is what a user of `Model.generate`
gets, sampling and text included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import halfbyte
import numpy as np
from halfbyte.tools.bench import BANNED, Speeds
from numpy.typing import NDArray

from . import common, peers, rounds, targets
from .bandwidth import Bandwidth
from .common import Runs
from .engines import MAX_TOKENS
from .report import Report
from .roofline import Work
from .rounds import OURS, Pair, Timing

OPTIONS = ("threads", "rounds", "prompt_tokens", "gen_tokens", "flash_attention", "omp_wait")


@dataclass
class Result:
    """All sides on one model; `generate_tps` is decode through the public API."""

    model: str
    work: Work
    timings: dict[str, Timing]
    n_prompt: int
    bandwidth: list[float] = field(default_factory=list)  # bytes per second, of each round
    unit: str = ""  # what multiplies prompts
    peak: list[float] = field(default_factory=list)  # its multiply-adds per second
    generate_tps: list[float] = field(default_factory=list)

    @property
    def decode_share(self) -> Runs:
        """Of the memory's bandwidth."""
        speeds = zip(self.timings[OURS].decode_tps, self.bandwidth, strict=True)
        return Runs(tuple(self.work.decode_share(tps, most) for tps, most in speeds))

    @property
    def prompt_share(self) -> Runs:
        """Of the multiply-adds."""
        speeds = zip(self.timings[OURS].prompt_tps, self.peak, strict=True)
        return Runs(tuple(self.work.prompt_share(tps, self.n_prompt, most) for tps, most in speeds))


def measure(name: str, path: Path, args: argparse.Namespace, bandwidth: Bandwidth) -> tuple[Result, str | None]:
    """All rounds of one model, after one that is not counted. Also what llama.cpp says about its build."""
    context = args.prompt_tokens + args.gen_tokens + 1
    with (
        Pair(path, context=context, threads=args.threads, flash_attention=args.flash_attention) as pair,
        halfbyte.Model.load(path, context=context, threads=args.threads, parallel=1) as model,
    ):
        result, speeds = Result(name, pair.ours.work, pair.timings(), args.prompt_tokens), Speeds()

        def after(number: int, prompt: NDArray[np.int32]) -> None:
            time.sleep(rounds.PAUSE)
            read, (result.unit, peak) = bandwidth.measure(), pair.ours.peak()
            generate(model, prompt.tolist(), args.gen_tokens, speeds if number else Speeds())
            if number:
                result.bandwidth.append(read)
                result.peak.append(peak)

        sizes = {"count": args.rounds, "n_prompt": args.prompt_tokens, "n_gen": args.gen_tokens}
        result.timings = rounds.play(pair, threads=args.threads, after=after, **sizes)
        result.generate_tps.extend(speeds.decode)
    return result, pair.build


def generate(model: halfbyte.Model, prompt: list[int], count: int, speeds: Speeds) -> None:
    """One greedy generation of `count` tokens after the first, which belongs to the prompt's time."""
    ends = dict.fromkeys(model.tokenizer.eog_ids, BANNED)
    generation = model.generate(prompt, max_tokens=count + 1, temperature=0, logit_bias=ends)
    generation.read()
    speeds.add(generation.usage)


def add_to(report: Report, results: Iterable[Result]) -> None:
    header = ("Model", "Prompt t/s", "llama.cpp", "Ratio", "Decode t/s", "llama.cpp", "Ratio", "`generate` t/s")
    rows, limits = [], []
    for result in results:
        prompt, decode = (rounds.cells(result.timings, what) for what in ("prompt_tps", "decode_tps"))
        rows.append([result.model, *prompt, *decode, Runs(tuple(result.generate_tps)).show()])
        limits.append(limit_cells(result))
        add_goals(report, result)
        report.data[result.model] = as_json(result)
    report.table("Tokens per second, medians; ratios with the lowest and the highest round", header, rows)
    header = ("Model", "MB per token", "Decode GB/s", "Memory GB/s", "Share", "Prompt GMAC/s", "At most", "Share")
    report.table("What the machine can do at most, measured in every round", header, limits)


def limit_cells(result: Result) -> list[str]:
    """How near a model comes to the limits. Shares are medians of rounds, and so not quotients of the medians."""
    work, timing = result.work, result.timings[OURS]
    per_prompt_token = work.token_macs + work.output_macs / result.n_prompt
    return [
        result.model,
        f"{work.weight_bytes / 1e6:.0f}",
        f"{Runs(tuple(timing.decode_tps)).median * work.weight_bytes / 1e9:.1f}",
        f"{Runs(tuple(result.bandwidth)).median / 1e9:.1f}",
        percent(result.decode_share),
        f"{Runs(tuple(timing.prompt_tps)).median * per_prompt_token / 1e9:.0f}",
        f"{Runs(tuple(result.peak)).median / 1e9:.0f} ({result.unit})",
        percent(result.prompt_share),
    ]


def percent(share: Runs) -> str:
    return f"{100 * share.median:.0f} % ({100 * share.low:.0f}-{100 * share.high:.0f})"


def add_goals(report: Report, result: Result) -> None:
    target = targets.SPEED.get(result.model, targets.OTHERWISE)
    for what in ("prompt", "decode"):
        if ratio := rounds.ratio(result.timings, f"{what}_tps"):
            report.goal_at_least(f"{result.model}: {what}", ratio.median, getattr(target, what), "times llama.cpp")
    if result.model.startswith("synthetic:") and "@" not in result.model:
        shares = (
            ("decode, of the read bandwidth", result.decode_share, targets.DECODE_SHARE),
            (f"prompt, of the {result.unit} peak", result.prompt_share, targets.PROMPT_SHARE),
        )
        for what, share, wanted in shares:
            report.goal_at_least(f"{result.model}: {what}", 100 * share.median, 100 * wanted, "%", 0)


def as_json(result: Result) -> dict[str, Any]:
    runs = {name: Runs(tuple(getattr(result, name))).as_json() for name in ("generate_tps", "bandwidth", "peak")}
    shares = {name: getattr(result, name).as_json() for name in ("decode_share", "prompt_share")}
    return {**rounds.as_json(result.timings), **runs, **shares, "work": vars(result.work), "unit": result.unit}


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=tuple(targets.SPEED))
    parser.add_argument("--rounds", type=common.positive, default=7, help="counted rounds")
    parser.add_argument("--prompt-tokens", type=common.positive, default=MAX_TOKENS, help=f"at most {MAX_TOKENS}")
    parser.add_argument("--gen-tokens", type=common.positive, default=32)
    common.add_peer_options(parser)
    args = parser.parse_args()
    if args.prompt_tokens > MAX_TOKENS:
        parser.error(f"--prompt-tokens is 1 to {MAX_TOKENS}: one step; longer prompts are benchmarks.depth's")
    return args


def main() -> int:
    args = arguments()
    common.apply_peer_options(args)
    report = Report("speed", f"Speed, {args.threads} threads, {args.prompt_tokens} + {args.gen_tokens} tokens")
    report.data["options"] = {key: getattr(args, key) for key in OPTIONS}
    results = []
    with Bandwidth(args.threads) as bandwidth:
        for name in common.chosen_models(args):
            common.note(f"measuring {common.label(name)}")
            result, build = measure(common.label(name), common.resolve(name), args, bandwidth)
            results.append(result)
    add_to(report, results)
    report.data["llama_cpp_build"] = build
    report.note(peers.describe(build, args))
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
