"""The part of benchmarks.cuda about correctness: the checks of tests/cuda on this GPU, under compute-sanitizer."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from halfbyte.runtime import settings
from halfbyte.runtime.backends.cuda import package

from . import common
from .cuda_goals import MEMCHECK, Board

TOOL = "compute-sanitizer"
ROOT = Path(__file__).parents[1]
THIS = "check_benchmark"  # which would start this once more
CHECKS = sorted({path.stem for path in (ROOT / "tests/cuda/checks").glob("check_*.py")} - {THIS})
LIMIT = 3600  # seconds of a file: under the tool kernels take many times as long


def found() -> str | None:
    """The tool, on the PATH or where CUDA is put."""
    places = (f"/usr/local/cuda/bin/{TOOL}", *sorted(map(str, Path("/usr/local").glob(f"cuda-*/bin/{TOOL}")))[::-1])
    return shutil.which(TOOL) or next((place for place in places if Path(place).exists()), None)


def checks(board: Board, args: argparse.Namespace) -> None:
    """Where the tool is missing the checks run without it."""
    if package.SIMULATED:
        board.leave_out("checks", "there is no such tool for the simulator")
        return
    tool = found()
    before = [tool, "--tool", "memcheck", "--report-api-errors", "no", "--target-processes", "all"] if tool else []
    rows, errors, passed = [], 0, True
    for name in CHECKS:
        common.note(f"running {name}{f' under {TOOL}' if tool else ''}")
        code, told = _run([*before, sys.executable, "-m", "pytest", "-q", "-n", "0", f"tests/cuda/checks/{name}.py"])
        summary = re.search(r"ERROR SUMMARY: (\d+) error", told)
        mistakes = int(summary[1]) if summary else None
        ended = re.findall(r"\d+ (?:passed|failed|error).* in .*s", told) or [f"ended with {code}"]
        rows.append((name, ended[-1], "" if mistakes is None else str(mistakes)))
        passed, errors = passed and code == 0, errors + (mistakes or 0)
        board.data[f"checks {name}"] = {"exit_code": code, "memory_errors": mistakes, "output": told[-4000:]}
        if tool and mistakes is None:
            board.missing(MEMCHECK, f"{TOOL} did not come to its end with {name}")
    board.table("The checks on this GPU", ("Checks", "pytest", f"{TOOL}, errors"), rows)
    if tool is None:
        board.missing(MEMCHECK, f"{TOOL} is missing: it comes with NVIDIA's CUDA toolkit")
    board.answer(MEMCHECK, f"{errors} errors, checks {'passed' if passed else 'failed'}", passed and errors == 0)


def _run(command: list[str]) -> tuple[int, str]:
    """Exit code and output; the code is -1 after LIMIT seconds."""
    environment = settings.child_environment(NUMBA_ENABLE_CUDASIM="0")
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=LIMIT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        return -1, output if isinstance(output, str) else output.decode(errors="replace")
    return done.returncode, done.stdout
