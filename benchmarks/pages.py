"""Decode with a file mapped in pages of 4 KB, and in pages of 2 MB where the system can: python -m benchmarks.pages

The same file is mapped twice, and both maps take turns. Where neither file system nor kernel has large pages for
files, the two are the same.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from . import common
from .common import Runs, random_tokens, read_anew
from .engines import MAX_TOKENS, Ours
from .report import Report
from .rounds import Timing

PAGES = {"4 KB": "MADV_NOHUGEPAGE", "2 MB": "MADV_HUGEPAGE"}  # what the system is told
GEN_TOKENS = 48


@contextlib.contextmanager
def mapped(pages: str) -> Iterator[None]:
    """Let files be mapped in these pages."""
    with mock.patch.object(mmap, "MADV_HUGEPAGE", getattr(mmap, PAGES[pages])):
        yield


def measure(path: Path, threads: int, rounds: int) -> dict[str, Runs]:
    """Tokens per second by pages."""
    read_anew(path)
    engines, timings = {}, {}
    for pages in reversed(PAGES):  # who reads the file first decides how the system holds it
        with mapped(pages):
            engines[pages] = Ours(path, context=MAX_TOKENS, threads=threads)
            engines[pages].run([1])
    for number in range(rounds + 1):
        if number <= 1:
            timings = {pages: Timing() for pages in PAGES}  # the first round does not count
        for pages in PAGES:
            engine = engines[pages]
            ids = random_tokens(2 * GEN_TOKENS, engine.vocab_size, seed=number)
            timings[pages].measure(engine, ids[:GEN_TOKENS], ids[GEN_TOKENS:], threads)
    for engine in engines.values():
        engine.close()
    return {pages: Runs(tuple(timing.decode_tps)) for pages, timing in timings.items()}


def main() -> int:
    parser = common.parser(__doc__.partition(":")[0] if __doc__ else None, models=("synthetic:Q4_0",))
    parser.add_argument("--rounds", type=common.positive, default=9, help="counted rounds")
    args = parser.parse_args()
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        common.give_up("this system does not let one choose pages")
    report, rows = Report("pages", f"Pages of 4 KB and of 2 MB, {args.threads} threads"), []
    for name in common.chosen_models(args):
        found = measure(common.resolve(name), args.threads, args.rounds)
        report.data[name] = {pages: runs.as_json() for pages, runs in found.items()}
        small, large = found.values()
        rows.append((common.label(name), small.show(), large.show(), large.ratio(small).show(2)))
    header = ("Model", *(f"{pages}: decode t/s" for pages in PAGES), "Ratio")
    report.table("Tokens per second, medians with the lowest and the highest round", header, rows)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
