"""What the next turn of a session costs: seconds to its first token, right after an answer and after a pause.

    python -m benchmarks.turns

An answer is read in the background once it has ended. Beside it: the same messages, to a model that knows none of them.
"""

from __future__ import annotations

import time
from pathlib import Path

from halfbyte import Model
from halfbyte.runtime.engine.generation import Generation

from . import common
from .common import Runs
from .report import Report

CONTEXT = 2048
ANSWER_TOKENS = 200
PAUSE = 1.0  # seconds: nobody reads and types faster
QUESTION, NEXT = "Tell me a long story about rain in the year {}.", "And snow?"


def first_token(answer: Generation) -> float:
    """Seconds until it is there; the rest is read as well."""
    begin = time.perf_counter()
    next(answer)
    seconds = time.perf_counter() - begin
    answer.read()
    return seconds


def measure(path: Path, threads: int, rounds: int) -> tuple[dict[str, list[float]], list[str]]:
    """Seconds by what went before, and how many tokens of how many were found in the cache."""
    seconds: dict[str, list[float]] = {"right after": [], f"after {PAUSE:g} s": [], "not known": []}
    cached = []
    for number in range(rounds):
        with Model.load(path, threads=threads, context=CONTEXT) as model:
            for what, pause in zip(seconds, (0.0, PAUSE), strict=False):
                session = model.session()
                session.send(QUESTION.format(number), max_tokens=ANSWER_TOKENS, temperature=0).read()
                time.sleep(pause)
                answer = session.send(NEXT, max_tokens=2, temperature=0)
                seconds[what].append(first_token(answer))
                cached.append(f"{answer.usage.cached_tokens} of {answer.usage.prompt_tokens}")
            messages = session.messages[:-1]
        with Model.load(path, threads=threads, context=CONTEXT) as fresh:
            fresh.generate("One two three", max_tokens=2).read()  # not what is first of all
            seconds["not known"].append(first_token(fresh.chat(messages, max_tokens=2, temperature=0)))
    return seconds, cached[:2]


def main() -> int:
    parser = common.parser(__doc__.partition(":")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=common.positive, default=5)
    args = parser.parse_args()
    report, rows = Report("turns", f"The next turn of a session, {args.threads} threads"), []
    for name in common.chosen_models(args):
        seconds, cached = measure(common.resolve(name), args.threads, args.rounds)
        runs = {what: Runs(tuple(1000 * value for value in values)) for what, values in seconds.items()}
        report.data[common.label(name)] = {what: found.as_json() for what, found in runs.items()}
        rows.append((common.label(name), *(found.show() for found in runs.values()), *cached))
    header = ("Model", *(f"{what}, ms" for what in seconds), "Cached right after", "Cached after a pause")
    report.table("Milliseconds to the first token, medians with the lowest and the highest", header, rows)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
