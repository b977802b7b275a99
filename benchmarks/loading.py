"""How long it takes to load a file that is in the page cache, and what a second process with the same model costs.

    python -m benchmarks.loading

Each load is the first one of a fresh process, without the start of Python and the imports; both programs take turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import halfbyte

from . import common, peers, processes, targets
from .common import Runs
from .report import Report
from .rounds import OURS, THEIRS

MODEL = "synthetic:Q4_K_M"
CONTEXT = 2048
Told = dict[str, list[dict[str, Any]]]  # by side: what its processes said
LABELS = {OURS: "Halfbyte", THEIRS: "llama.cpp"}


def children(path: Path, args: argparse.Namespace) -> Told:
    """What the child processes of both sides say, round by round; those of a first round are not counted."""
    sides = [OURS, THEIRS] if peers.is_installed() else [OURS]
    found: Told = {side: [] for side in sides}
    for number in range(args.rounds + 1):
        for side in sides[:: 1 if number % 2 else -1]:
            told = child(side, path, args.threads)
            if number:
                found[side].append(told)
    return found


def child(side: str, path: Path, threads: int) -> dict[str, Any]:
    arguments = ["-m", "benchmarks.first_load", side, str(path), "--threads", str(threads), "--context", str(CONTEXT)]
    return processes.run(arguments).json()


def second_process(path: Path, threads: int) -> dict[str, Any]:
    """What a process says that runs while this one holds the same model and has used it."""
    with halfbyte.Model.load(path, threads=threads, context=CONTEXT) as model:
        model.generate([1, 2, 3], max_tokens=4, temperature=0).read()
        return child(OURS, path, threads)


def read_once(path: Path) -> None:
    """Bring a file into the page cache."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def add_to(report: Report, name: str, size: int, found: Told, second: dict[str, Any]) -> None:
    """Tables, goals and numbers of one model."""
    rows = []
    for side, told in found.items():
        load, token = (Runs(tuple(one[what] for one in told)) for what in ("load", "first_token"))
        rows.append((LABELS[side], load.show(3), token.show(3)))
        report.data[f"{name} {side}"] = {"load": load.as_json(), "first_token": token.as_json()}
        if side == OURS:
            report.goal_at_most(f"{name}: load {size / 1e9:.1f} GB", load.median, targets.LOAD_SECONDS, "s", 3)
    title = f"{name}, {size / 1e6:.0f} MB: seconds, medians with the lowest and the highest process"
    report.table(title, ("Program", "Load", "First token after that"), rows)
    sizes = [f"{second[what] / 1e6:.1f}" for what in ("resident", "own", "keys_and_values")]
    header = ("Resident", "Its own", "Of that, keys and values at most")
    report.table(f"{name}: memory in MB of a second process with the same model", header, [sizes])
    own, wanted = second["own"] / 1e6, targets.OWN_MEMORY / 1e6
    report.goal_at_most(f"{name}: own memory of a second process", own, wanted, "MB", 1)
    report.data[f"{name} second process"] = second


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=(MODEL,))
    parser.add_argument("--rounds", type=common.positive, default=7, help="counted processes of each program")
    args = parser.parse_args()
    report = Report("loading", f"Loading, {args.threads} threads, context {CONTEXT}")
    for model in common.chosen_models(args):
        name, path = common.label(model), common.resolve(model)
        common.note(f"measuring {name}")
        read_once(path)
        add_to(report, name, path.stat().st_size, children(path, args), second_process(path, args.threads))
    if not peers.is_installed():
        report.note(f"No comparison: {peers.MISSING}")
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
