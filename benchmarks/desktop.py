"""Whether Halfbyte is a good guest in another program: can it be shared, stopped, left alone?

    python -m benchmarks.desktop

Everything runs in one process, as it would in an application.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

from halfbyte import Model

from . import cancelling, common
from .cancelling import Latencies
from .common import Runs
from .prompts import PROMPTS
from .report import Report
from .ticker import Ticker, Ticks

CONTEXT = 4096
PROMPT_TOKENS = 2048
ANSWER_TOKENS = 128
JUDGED = "loading and generating"  # the requirement is about both as one period; each alone tells where ticks are late
MAX_LATE = 1.0  # per cent
MAX_CANCEL = 0.05  # seconds
MAX_IDLE = 1.0  # per cent of one core
N_THREADS = 16
PLACES = ("at school", "in winter", "by the sea")


def ticks_of_idling(seconds: float) -> Ticks:
    """What a ticker sees when nothing else runs in the process: what the machine itself does to it."""
    with Ticker() as ticker:
        time.sleep(seconds)
    return ticker.ticks


def ticks_of_loading(path: Path, threads: int, count: int) -> Ticks:
    """While a model loads, kernels from the cache, `count` times."""
    total = Ticks(0, 0, 0.0)
    for _ in range(count):
        with Ticker() as ticker:
            model = Model.load(path, threads=threads, context=CONTEXT)
        total += ticker.ticks
        model.close()
    return total


def ticks_of_both(path: Path, threads: int, count: int) -> Ticks:
    """While a model loads, kernels from the cache, and answers once, in one period; `count` times."""
    total = Ticks(0, 0, 0.0)
    for number in range(count):
        prompt = PROMPTS[number % len(PROMPTS)]
        with Ticker() as ticker:
            model = Model.load(path, threads=threads, context=CONTEXT)
            for _ in model.generate(prompt, max_tokens=ANSWER_TOKENS, temperature=0.8, seed=number):
                pass
        total += ticker.ticks
        model.close()
    return total


def ticks_of_generating(model: Model, seconds: float) -> Ticks:
    """While long prompts are read and answers written, one after the other, and another thread waits for each piece."""
    with Ticker() as ticker:
        end, number = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            number += 1
            prompt = common.random_tokens(PROMPT_TOKENS, model.vocab_size, seed=number).tolist()
            for _ in model.generate(prompt, max_tokens=64, temperature=0.8, seed=number):
                pass
    return ticker.ticks


def different_texts(model: Model, max_tokens: int) -> tuple[int, int]:
    """How many of N_THREADS threads got another text together than alone, and how many there were."""
    more = (f"What I saw {place} {n} years ago was" for n in range(2, 9) for place in PLACES)
    prompts = [*PROMPTS, *more][:N_THREADS]

    def text(prompt: str) -> str:
        return model.generate(prompt, max_tokens=max_tokens, temperature=0).read()

    alone = [text(prompt) for prompt in prompts]
    together: dict[int, str] = {}
    gate = threading.Barrier(len(prompts))

    def work(number: int) -> None:
        gate.wait()
        together[number] = text(prompts[number])

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(prompts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(together.get(number) != expected for number, expected in enumerate(alone)), len(prompts)


def idle_share(seconds: float) -> float:
    """Per cent of one core that the process uses while a model is loaded and nobody asks it anything."""
    time.sleep(0.5)  # what just ended may finish
    cpu, begin = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return 100 * (time.process_time() - cpu) / (time.perf_counter() - begin)


def add_ticks(report: Report, name: str, ticks: dict[str, Ticks]) -> None:
    rows = []
    for what, seen in ticks.items():
        rows.append((what, str(seen.count), f"{seen.late_share:.2f} %", f"{1000 * seen.worst:.1f} ms"))
        if what == JUDGED:
            report.goal_at_most(f"{name}: late ticks while {what}", seen.late_share, MAX_LATE, "%")
    report.data[f"{name} ticks"] = {what: vars(seen) for what, seen in ticks.items()}
    report.table(f"{name}: a 60 Hz thread in the same process", ("While", "Ticks", "Late by 50 ms", "Worst"), rows)


def add_latencies(report: Report, name: str, latencies: dict[str, Latencies]) -> None:
    rows = []
    for what, found in latencies.items():
        released = Runs(tuple(1000 * value for value in found.released))
        free = Runs(tuple(1000 * value for value in found.engine_free)).show() if found.engine_free else "-"
        rows.append((what, released.show(), free, str(len(found.released))))
        report.goal_at_most(f"{name}: slowest cancel in {what}", released.high, 1000 * MAX_CANCEL, "ms", 1)
    report.data[f"{name} cancel"] = {what: vars(found) for what, found in latencies.items()}
    header = ("Cancelled in", "Caller released, ms", "Engine free, ms", "Times")
    report.table(f"{name}: after a cancel, medians with the fastest and the slowest", header, rows)


def measure(report: Report, name: str, path: Path, threads: int, scale: float, cancels: int) -> None:
    """All measurements on one model; `scale` stretches or shortens them."""
    common.note(f"measuring {name}")
    rng, count = random.Random(7), max(2, round(20 * scale))
    Model.load(path, threads=threads, context=CONTEXT).close()  # fills the kernel cache
    ticks = {"idle": ticks_of_idling(5 * scale), JUDGED: ticks_of_both(path, threads, count)}
    ticks["loading"] = ticks_of_loading(path, threads, count)
    latencies = {"load": cancelling.in_load(path, threads, cancels or count, rng)}
    with Model.load(path, threads=threads, context=CONTEXT) as model:
        ticks["generating"] = ticks_of_generating(model, 20 * scale)
        latencies["prefill"] = cancelling.in_prefill(model, PROMPT_TOKENS, count, rng)
        latencies["decode"] = cancelling.in_decode(model, count, rng)
        different, of = different_texts(model, max_tokens=48)
        idle = idle_share(5 * scale)
    add_ticks(report, name, ticks)
    add_latencies(report, name, latencies)
    report.goal_true(f"{name}: {of} threads get the texts they get alone", f"{of - different} of {of}", not different)
    report.goal_at_most(f"{name}: one core's time when idle", idle, MAX_IDLE, "%")
    report.data[f"{name} idle"] = idle


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="how long to measure; 0.1 to try")
    parser.add_argument("--cancels", type=common.positive, default=0, help="of loads; default: 20 times the scale")
    args = parser.parse_args()
    report = Report("desktop", f"As a part of another program, {args.threads} threads")
    for name in common.chosen_models(args):
        measure(report, common.label(name), common.resolve(name), args.threads, args.scale, args.cancels)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
