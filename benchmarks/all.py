"""Everything, in one command: each benchmark in a process of its own, then the README's tables.

    python -m benchmarks.all                  # about two hours, on a quiet machine
    python -m benchmarks.all --try            # some minutes, numbers that mean nothing: does everything run here?
    python -m benchmarks.all --only speed --only depth

Nothing is installed. Where llama-cpp-python is missing, what needs no comparison is measured all the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from . import common, peers, readme, repeats
from .machine import is_busy

SPEED_RUNS = 3  # a ratio that holds once may be luck


class Script(NamedTuple):
    """A benchmark, what makes it short enough to try, and whether it takes the options of the other program."""

    name: str
    trial: str
    peer_options: bool = False
    needs_peer: bool = False


TINY = "--model synthetic:Q4_K_M@tiny"
SCRIPTS = (
    Script("speed", f"{TINY} --rounds 1 --prompt-tokens 32 --gen-tokens 4", peer_options=True),
    Script("depth", f"{TINY} --rounds 1 --gen-tokens 4 --depth 1024", peer_options=True),
    Script("batch", f"{TINY} --rounds 1 --prompt-tokens 32 --gen-tokens 4", peer_options=True),
    Script("team", f"{TINY} --rounds 1 --counts 1 2 --prompt-tokens 32 --gen-tokens 4"),
    Script("loading", f"{TINY} --rounds 1"),
    Script("startup", f"{TINY} --repeat 1 --cold-repeat 1"),
    Script("memory", f"{TINY} --tokens 500"),
    Script("accuracy", "--model smollm2 --gen-tokens 4", needs_peer=True),
    Script("desktop", "--model smollm2 --scale 0.1"),
    Script("sampling", ""),
    Script("convert", "--shape tiny --rounds 1"),
    Script("quantize", "--model synthetic:F16@tiny --recipe Q8_0 --rounds 1", needs_peer=True),
    Script("kernels", "--type Q4_0"),
    Script("ahead", "--type Q4_0"),
    Script(
        "scaling",
        f"{TINY} --size tiny --size 135m --depth 512 --depth 1024 --rounds 1 --prompt-tokens 32 --gen-tokens 4",
        peer_options=True,
    ),
)


def commands(args: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Title and arguments of everything that is to be run."""
    made = []
    for script in SCRIPTS:
        if script.name in (args.only or [s.name for s in SCRIPTS]) and (peers.is_installed() or not script.needs_peer):
            for run in range(1, args.speed_runs + 1 if script.name == "speed" else 2):
                title = script.name if run == 1 else f"{script.name}, run {run}"
                made.append((title, command(script, repeats.folder(args.out, run), args)))
    return made


def command(script: Script, out: Path, args: argparse.Namespace) -> list[str]:
    found = ["-m", f"benchmarks.{script.name}", "--threads", str(args.threads), "--out", str(out)]
    if script.peer_options:
        found += ["--omp-wait", args.omp_wait]
    return found + (script.trial.split() if args.trial else [])


def run(title: str, arguments: list[str]) -> tuple[str, str]:
    """How it ended, and after how many minutes."""
    common.note(f"== {title}")
    begin = time.perf_counter()
    code = subprocess.run([sys.executable, *arguments], cwd=readme.ROOT, check=False).returncode
    ended = {0: "every goal met", 1: "goals missed", 2: "not measured: something is missing"}
    return ended.get(code, f"failed with exit code {code}"), f"{(time.perf_counter() - begin) / 60:.1f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[s.name for s in SCRIPTS], action="append", help="repeatable; default: all")
    parser.add_argument("--try", action="store_true", dest="trial", help="tiny settings, results thrown away")
    parser.add_argument("--threads", type=common.positive, default=2, help="threads of either program (default: 2)")
    parser.add_argument("--speed-runs", type=common.positive, default=SPEED_RUNS, help=f"default: {SPEED_RUNS}")
    parser.add_argument("--omp-wait", choices=("default", "passive", "active"), default="default", help="of llama.cpp")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder for the results")
    args = parser.parse_args()
    args.out = args.out.resolve()  # the children run in the repository's folder
    return args


def main() -> int:
    args = arguments()
    if not peers.is_installed():
        common.note(f"{peers.MISSING}. Without it there are no ratios, and no accuracy.")
    if is_busy():
        common.note("other programs use the processor: timings will mean little")
    with tempfile.TemporaryDirectory(prefix="halfbyte-try-") as folder:
        if args.trial:
            args.out, args.speed_runs = Path(folder), 1
        results = [(title, *run(title, found)) for title, found in commands(args)]
        if len(repeats.stored(args.out)) > 1:
            repeats.write(args.out)
    if args.out == common.RESULTS.resolve():
        readme.main()
    for title, ended, minutes in results:
        print(f"{title:16} {minutes:>6} minutes  {ended}")
    return int(any(ended != "every goal met" for _, ended, _ in results))


if __name__ == "__main__":
    raise SystemExit(main())
