"""Feed mutated GGUF files to every entry point that reads them.

    python -m tests.hostile.fuzz --count 100000 --seed 1 [--entry open] [--only INDEX] [--out benchmarks/results]

An entry point may return or raise HalfbyteError. Everything else is a finding: another exception, more than a second,
or the death of the process, which is why the command works through child processes. Exit code 1 if anything is found.
--out is a folder for fuzz.md and fuzz.json, which say what was run, on which machine, and what came of it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halfbyte.formats.errors import HalfbyteError
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.cpu import CPUBackend
from halfbyte.runtime.backends.cpu.lower import Lowering
from halfbyte.runtime.cache.kv import KVPool
from halfbyte.runtime.engine.capacity import pool_pages
from halfbyte.runtime.graph.rewrites import rewrite
from halfbyte.runtime.loading import STEP_TOKENS, choose_context
from halfbyte.runtime.models import build_model
from halfbyte.runtime.tokenize import tokenizer_from_metadata
from halfbyte.tools.describe import describe, describe_metadata, describe_tensors

from benchmarks import report as results

from .mutate import mutate
from .mutate_models import mutate_model

HANG_S = 1.0
DEAD_S = 20.0  # a child that makes no progress for this long is killed
_START_S = 120.0  # a child must have started by then
_SHOWN = 20

ENTRY_POINTS: dict[str, Callable[[bytes], None]] = {}


def register(name: str, run: Callable[[bytes], None]) -> None:
    """Add an entry point: a function that is given the bytes of a file."""
    ENTRY_POINTS[name] = run


def register_path(name: str, run: Callable[[Path], None]) -> None:
    """Add an entry point that wants a path: it is given a temporary file."""

    def with_file(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.gguf")
            path.write_bytes(data)
            run(path)

    register(name, with_file)


def entry_point(name: str) -> Callable[[bytes], None]:
    """A registered entry point, or any function as "module:function"."""
    if name in ENTRY_POINTS:
        return ENTRY_POINTS[name]
    module, _, function = name.partition(":")
    found: Callable[[bytes], None] = getattr(importlib.import_module(module), function)
    return found


def read_all(data: bytes) -> None:
    """Open, decode all metadata, and touch the first and last byte of every tensor."""
    with GGUFFile.from_buffer(data) as file:
        dict(file.metadata)
        for tensor in file.tensors.values():
            if tensor.n_bytes:
                flat = tensor.data.reshape(-1)
                int(flat[0]) + int(flat[-1])


def inspect(data: bytes) -> None:
    """What `halfbyte inspect` shows, without printing it."""
    with GGUFFile.from_buffer(data) as file:
        json.dumps([describe(file), describe_metadata(file.metadata), describe_tensors(file.tensors.values())])


def load(data: bytes) -> None:
    """What `Model.load` does but for compiling: the graph, the tokenizer and its use, memory, and the kernel calls."""
    with GGUFFile.from_buffer(data) as file:
        context = choose_context(file, None)
        spec = build_model(file, context=context)
        tokenizer = tokenizer_from_metadata(file.metadata)
        tokenizer.decode(tokenizer.encode("the <|im_start|> \N{WATERMELON} <s>  a\x00", parse_special=True))
        dtype = CPUBackend().kv_dtype
        kv = KVPool(spec.graph.state, pool_pages(spec.graph.state, context, dtype=dtype), dtype)
        graph = rewrite(spec.graph)
        for prompt in (False, True):
            Lowering(graph, kv, STEP_TOKENS, prompt=prompt).run()


register("open", read_all)
register("inspect", inspect)
register("load", load)

SOURCES: dict[str, Callable[[int, int], bytes]] = {"load": mutate_model}  # others: files that need not be models


def source_for(name: str) -> Callable[[int, int], bytes]:
    """The mutated files an entry point is given: a function of (seed, index)."""
    return SOURCES.get(name, mutate)


@dataclass
class Report:
    """What happened: verdicts by class, and findings as (index, kind, detail)."""

    verdicts: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)  # seconds, index

    def add(self, index: int, outcome: tuple[str, str, float]) -> None:
        kind, detail, seconds = outcome
        self.slowest = max(self.slowest, (seconds, index))
        if seconds > HANG_S:
            self.findings.append((index, "hang", f"{seconds:.1f} s"))
        if kind == "untyped":
            self.findings.append((index, kind, detail))
        self.verdicts[detail.split(":")[0] if kind == "untyped" else kind] += 1

    def table(self) -> str:
        seconds, index = self.slowest
        rows = [f"{count:>9,}  {name}" for name, count in self.verdicts.most_common()]
        rows.append(f"slowest input {seconds * 1e3:.1f} ms (index {index}), findings {len(self.findings)}")
        rows += [f"  index {index}: {kind}: {detail}" for index, kind, detail in self.findings[:_SHOWN]]
        return "\n".join(rows)


def try_one(run: Callable[[bytes], None], data: bytes) -> tuple[str, str, float]:
    """(verdict, detail, seconds); the verdict is "loaded", the name of a HalfbyteError, or "untyped"."""
    started = time.perf_counter()
    try:
        run(data)
        kind, detail = "loaded", ""
    except HalfbyteError as error:
        kind, detail = type(error).__name__, ""
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind, detail = "untyped", f"{type(error).__name__}: {error} in {place.name}, line {place.lineno}"
    return kind, detail, time.perf_counter() - started


def fuzz(
    run: Callable[[bytes], None], seed: int, indices: Iterable[int], source: Callable[[int, int], bytes] = mutate
) -> Report:
    """Run in this process."""
    report = Report()
    for index in indices:
        report.add(index, try_one(run, source(seed, index)))
    return report


def _child(name: str, seed: int, first: int, last: int, progress: Any, queue: Any) -> None:
    report, run, source = Report(), entry_point(name), source_for(name)
    for index in range(first, last):
        progress.value = index
        report.add(index, try_one(run, source(seed, index)))
    queue.put(report)


def fuzz_isolated(name: str, seed: int, count: int, *, batch: int = 10_000, dead_s: float = DEAD_S) -> Report:
    """Run in child processes: a crash or an endless loop is a finding, and the next input gets a new child."""
    total = Report()
    context = multiprocessing.get_context("spawn")
    first = 0
    while first < count:
        last = min(first + batch, count)
        progress, queue = context.Value("q", -1, lock=False), context.SimpleQueue()
        child = context.Process(target=_child, args=(name, seed, first, last, progress, queue))
        child.start()
        report = _wait(child, progress, queue, dead_s)
        if report is None:
            kind = "hang" if child.exitcode is None else "crash"
            child.kill()
            child.join()
            stuck = int(progress.value)
            if stuck < 0:
                raise RuntimeError(f"the child process did not start (exit code {child.exitcode})")
            total.findings.append((stuck, kind, f"exit code {child.exitcode}"))
            # its counts were lost with the child
            report = fuzz(entry_point(name), seed, range(first, stuck), source_for(name))
            last = stuck + 1
        total.verdicts += report.verdicts
        total.findings += report.findings
        total.slowest = max(total.slowest, report.slowest)
        first = last
    return total


def _wait(child: Any, progress: Any, queue: Any, dead_s: float) -> Report | None:
    """The child's report, or None when it died or stopped making progress."""
    seen, since = -1, time.monotonic()  # -1: still importing
    while child.is_alive() or not queue.empty():
        if not queue.empty():
            report: Report = queue.get()
            child.join()
            return report
        if progress.value != seen:
            seen, since = progress.value, time.monotonic()
        if time.monotonic() - since > (dead_s if seen >= 0 else _START_S):
            return None
        time.sleep(0.01)
    return None


def record(table: results.Report, reports: dict[str, tuple[Report, float]], seed: int, count: int) -> None:
    """Note what came of each entry point, and the seconds it took."""
    table.note(
        f"`python -m tests.hostile.fuzz --count {count} --seed {seed}`. A finding is an exception that is no "
        f"HalfbyteError, more than {HANG_S:g} s for one file, or the death of the process."
    )
    rows = []
    for name, (report, seconds) in reports.items():
        slowest, index = report.slowest
        rows.append((name, f"{count:,}", f"{seconds:.0f}", f"{slowest:.4f}", f"{index}", f"{len(report.findings)}"))
        table.goal_at_most(f"{name}: findings in {count:,} files", len(report.findings), 0, "", 0)
        table.data[name] = {
            "count": count,
            "seed": seed,
            "seconds": seconds,
            "slowest": {"seconds": slowest, "index": index},
            "outcomes": dict(report.verdicts.most_common()),
            "findings": report.findings,
        }
    header = ("Entry", "Files", "Seconds in all", "Slowest file (s)", "Its index", "Findings")
    table.table("Runs", header, rows)
    for name, (report, _) in reports.items():
        outcomes = [(outcome, f"{n:,}") for outcome, n in report.verdicts.most_common()]
        table.table(f"What became of them: {name}", ("Outcome", "Files"), outcomes)
        if report.findings:
            findings = [(str(index), kind, detail) for index, kind, detail in report.findings[:_SHOWN]]
            table.table(f"Findings: {name}", ("Index", "Kind", "Detail"), findings)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--entry", action="append", help=f"one of {sorted(ENTRY_POINTS)} or module:function; default: all"
    )
    parser.add_argument("--only", type=int, help="run one index in this process and let its error through")
    parser.add_argument("--out", type=Path, help="folder for a record, fuzz.md and fuzz.json")
    options = parser.parse_args(arguments)
    names = options.entry or sorted(ENTRY_POINTS)
    if options.only is not None:
        for name in names:
            entry_point(name)(source_for(name)(options.seed, options.only))
        return 0
    table = results.Report("fuzz", f"{options.count:,} mutated GGUF files, seed {options.seed}")
    reports: dict[str, tuple[Report, float]] = {}
    for name in names:
        started = time.perf_counter()
        report = fuzz_isolated(name, options.seed, options.count)
        seconds = time.perf_counter() - started
        print(f"{name}: {options.count:,} mutations, seed {options.seed}, {seconds:.0f} s")
        print(report.table(), flush=True)
        reports[name] = report, seconds
    if options.out:
        record(table, reports, options.seed, options.count)
        table.finish(options.out)
    return 1 if any(report.findings for report, _ in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
