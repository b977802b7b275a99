"""How long it takes to start, with and without compiled kernels, and how much memory a model needs.

    python -m benchmarks.startup

Everything is measured on child processes, from the outside: from their start to the line they print at their first
token. The model file is in the system's page cache.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from . import common, processes, targets
from .common import Runs
from .report import Report

MAX_IMPORT, MAX_HELP = 0.15, 0.3  # seconds
MAX_OVERHEAD = 200e6  # bytes
CONTEXT_FOR_MEMORY = 1024
MODELS = ("synthetic:Q4_K_M", *common.REAL_MODELS)
STARTED = 2  # starts are measured with the first of them
IMPORT = "import time; b = time.perf_counter(); import halfbyte; print(time.perf_counter() - b)"


def cold_starts(path: Path, threads: int, count: int) -> tuple[Runs, list[str]]:
    """Seconds to the first token with an empty kernel cache, and what was compiled."""
    seconds, kernels, names = [], 0, []
    for _ in range(count):
        with tempfile.TemporaryDirectory(prefix="halfbyte-cold-") as home:
            child = _child(path, threads, HALFBYTE_HOME=home)
            names = sorted(file.stem for file in Path(home).glob("kernels/*/*.o"))
        seconds.append(child.to_first_line)
        kernels = child.json()["kernels"]
    if not kernels:
        common.give_up("the cold start compiled no kernel: HALFBYTE_HOME is not respected")
    return Runs(tuple(seconds)), names


def kernel_seconds(names: list[str]) -> dict[str, float]:
    """Seconds to compile each kernel in one process, and "import": to import the compiler."""
    found: dict[str, float] = processes.run(["-m", "benchmarks.compiling", *names]).json()
    return found


def warm_starts(path: Path, threads: int, count: int) -> Runs:
    """Seconds to the first token when every kernel is cached; the run that fills the cache is not counted."""
    children = [_child(path, threads) for _ in range(count + 1)][1:]
    if any(child.json()["kernels"] for child in children):
        common.give_up("a warm start compiled kernels: the cache is not kept, or its sources changed in between")
    return Runs(tuple(child.to_first_line for child in children))


def imports(count: int) -> Runs:
    """Seconds of `import halfbyte` in a fresh process, without the start of Python itself."""
    return Runs(tuple(float(processes.run(["-c", IMPORT]).line) for _ in range(count)))


def helps(count: int) -> Runs:
    """Seconds of `halfbyte --help` from start to end, the start of Python included."""
    return Runs(tuple(processes.run(["-m", "halfbyte", "--help"]).to_end for _ in range(count)))


def memory(path: Path, threads: int) -> dict[str, int]:
    """Peak memory of a process that filled a context, and what of it is file and cache, in bytes."""
    arguments = ["-m", "benchmarks.first_token", str(path), "--threads", str(threads)]
    found = processes.run([*arguments, "--tokens", str(CONTEXT_FOR_MEMORY)]).json()
    return {**found, "overhead": found["peak"] - found["file"] - found["keys_and_values"]}


def _child(path: Path, threads: int, **environment: str) -> processes.Finished:
    return processes.run(["-m", "benchmarks.first_token", str(path), "--threads", str(threads)], **environment)


def add_kernels(report: Report, found: dict[str, float]) -> None:
    """The slowest first."""
    ranked = sorted(found.items(), key=lambda item: -item[1])
    rows = [(name, f"{1000 * seconds:.0f}") for name, seconds in ranked]
    rows.append(("together", f"{1000 * sum(found.values()):.0f}"))
    report.table("Milliseconds to compile, one after the other in one process", ("Kernel", "ms"), rows)
    report.data["kernels"] = found


def add_memory(report: Report, names: list[str], threads: int) -> None:
    rows = []
    for name in names:
        found = memory(common.resolve(name), threads)
        report.data[f"memory {common.label(name)}"] = found
        sizes = [f"{found[key] / 1e6:.1f}" for key in ("peak", "file", "keys_and_values", "overhead")]
        rows.append((common.label(name), *sizes))
        what = f"{common.label(name)}: memory beside file, keys and values"
        report.goal_at_most(what, found["overhead"] / 1e6, MAX_OVERHEAD / 1e6, "MB", 1)
    header = ("Model", "Peak", "File", "Keys and values", "All else")
    report.table(f"Memory in MB after a context of {CONTEXT_FOR_MEMORY} tokens", header, rows)


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=MODELS)
    parser.add_argument("--repeat", type=int, default=7, help="warm runs")
    parser.add_argument("--cold-repeat", type=int, default=3, help="runs with an empty kernel cache")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    names = common.chosen_models(args)
    report, kernels = Report("startup", f"Start and memory, {args.threads} threads"), list[str]()
    timings = []
    for name in names[:STARTED]:
        path, label = common.resolve(name), common.label(name)
        common.note(f"measuring starts of {label}, first with an empty kernel cache")
        cold, compiled = cold_starts(path, args.threads, args.cold_repeat)
        warm = warm_starts(path, args.threads, args.repeat)
        most = targets.START_SECONDS.get(label, targets.START_OTHERWISE)
        timings.append((f"{label}: empty cache to first token ({len(compiled)} kernels)", cold, most[0]))
        timings.append((f"{label}: process start to first token", warm, most[1]))
        kernels = kernels or compiled
    timings.append(("import halfbyte", imports(args.repeat), MAX_IMPORT))
    timings.append(("halfbyte --help", helps(args.repeat), MAX_HELP))
    for what, runs, limit in timings:
        report.goal_at_most(what, runs.median, limit, "s", 3)
        report.data[what] = runs.as_json()
    rows = [(what, runs.show(3)) for what, runs, _ in timings]
    report.table("Seconds, medians with the lowest and the highest run", ("What", "Seconds"), rows)
    add_kernels(report, kernel_seconds(kernels))
    add_memory(report, names, args.threads)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
