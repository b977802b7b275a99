"""What is left of the speed when cores are shared: busy neighbours, too many threads, one thread.

    python -m benchmarks.team
    python -m benchmarks.team --counts 1 2 4 8 --neighbours 2

All engines are in memory at once and take turns, so that a ratio compares neighbours in time. A round is a short prompt
and a few tokens by every engine, first alone and then beside the neighbours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from . import common, peers
from .common import Runs, random_tokens
from .engines import Engine, Ours
from .neighbours import Neighbours
from .report import Report
from .rounds import OURS, THEIRS, Timing

MIN_OVERSUBSCRIBED = 0.6  # of the decode speed with --threads
MIN_CROWDED = 1.0  # times llama.cpp's decode beside neighbours
MAX_IDLE = 1.0  # per cent of one core
WHAT = {"prompt_tps": "prompt", "decode_tps": "decode"}

Key = tuple[str, int, int]  # side, threads, neighbours


def measure(path: Path, args: argparse.Namespace) -> tuple[dict[Key, Timing], float]:
    """Rounds of every engine in every company, after one that is not counted; and the load when idle, in per cent."""
    context = args.prompt_tokens + args.gen_tokens + 1
    engines: dict[tuple[str, int], Engine] = {}
    for threads in args.counts:
        engines[OURS, threads] = Ours(path, context=context, threads=threads)
        if peers.is_installed() and not args.no_peer:
            engines[THEIRS, threads] = peers.LlamaCpp(path, context=context, threads=threads)
    timings: dict[Key, Timing] = {}
    for number in range(args.rounds + 1):
        ids = random_tokens(args.prompt_tokens + args.gen_tokens, engines[OURS, args.counts[0]].vocab_size, seed=number)
        prompt, rest = ids[: args.prompt_tokens], ids[args.prompt_tokens :]
        for count in (0, args.neighbours) if number else (0,):
            with Neighbours(count):
                for (side, threads), engine in list(engines.items())[:: 1 if number % 2 else -1]:
                    timing = timings.setdefault((side, threads, count), Timing()) if number else Timing()
                    timing.measure(engine, prompt, rest, threads)
    idle = _idle_percent()
    for engine in engines.values():
        engine.close()
    return timings, idle


def _idle_percent() -> float:
    """Processor time that this process takes while nothing is asked of its teams."""
    time.sleep(0.5)
    cpu, begin = time.process_time(), time.perf_counter()
    time.sleep(2.0)
    return 100 * (time.process_time() - cpu) / (time.perf_counter() - begin)


def add_to(report: Report, name: str, timings: dict[Key, Timing], idle: float, args: argparse.Namespace) -> None:
    rows = []
    for (side, threads, count), timing in sorted(timings.items()):
        row = [side, str(threads), str(count)]
        for what in WHAT:
            runs, quiet = (Runs(tuple(getattr(t, what))) for t in (timing, timings[side, args.threads, 0]))
            row += [f"{runs.median:.1f}", runs.ratio(quiet).show(2)]
            report.data.setdefault(name, {})[f"{side}, {threads} threads, {count} neighbours, {what}"] = runs.as_json()
        rows.append(row)
    header = ("Program", "Threads", "Neighbours", "Prompt t/s", "of quiet", "Decode t/s", "of quiet")
    report.table(f"{name}: medians, and parts of the speed of {args.threads} threads without neighbours", header, rows)

    def decode(key: Key) -> Runs:
        return Runs(tuple(timings[key].decode_tps))

    for threads in args.counts:
        if threads > args.threads:
            part = decode((OURS, threads, 0)).ratio(decode((OURS, args.threads, 0))).median
            what = f"{name}: decode with {threads} threads, of {args.threads}"
            report.goal_at_least(what, part, MIN_OVERSUBSCRIBED, "")
    busy: Key = (THEIRS, args.threads, args.neighbours)
    if busy in timings:
        part = decode((OURS, args.threads, args.neighbours)).ratio(decode(busy)).median
        report.goal_at_least(f"{name}: decode beside neighbours", part, MIN_CROWDED, "times llama.cpp")
    report.data[name]["idle_percent"] = idle
    report.goal_at_most(f"{name}: load when idle, {sum(args.counts)} threads", idle, MAX_IDLE, "%")


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=("smollm2",))
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3, 5], help="threads to compare with --threads")
    parser.add_argument("--neighbours", type=int, default=1, help="busy programs beside the engines")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--gen-tokens", type=int, default=16)
    parser.add_argument("--no-peer", action="store_true", help="only Halfbyte, also where llama.cpp is installed")
    args = parser.parse_args()
    if min(*args.counts, args.threads, args.neighbours, args.rounds, args.prompt_tokens, args.gen_tokens) < 1:
        parser.error("all numbers are at least 1")
    args.counts = sorted({*args.counts, args.threads})
    return args


def main() -> int:
    args = arguments()
    report = Report("team", f"Shared cores, {args.prompt_tokens} + {args.gen_tokens} tokens")
    report.data["options"] = {key: getattr(args, key) for key in ("threads", "counts", "neighbours", "rounds")}
    for name in common.chosen_models(args):
        common.note(f"measuring {common.label(name)}")
        timings, idle = measure(common.resolve(name), args)
        add_to(report, common.label(name), timings, idle, args)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
