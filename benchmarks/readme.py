"""Write the README's tables of numbers from the stored results: python -m benchmarks.readme"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import targets
from .common import RESULTS
from .report import markdown_table

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- numbers: python -m benchmarks.readme -->", "<!-- end of numbers -->"
# In this order.
SCRIPTS = (
    "speed", "depth", "batch", "team", "loading", "startup", "memory", "accuracy", "desktop", "sampling", "quantize",
    "nf4", "trained", "convert", "families", "converted", "embeddings",
)  # fmt: skip
OTHER_MACHINES = ("sapphire-rapids",)
PLOTS = {
    "threads": "Tokens per second by threads",
    "depth": "Tokens per second by the length of the context",
    "batch": "Tokens per second of several sequences together",
    "size": "Tokens per second by the size of the model",
}

Results = dict[str, dict[str, Any]]  # script -> its JSON file


def stored(folder: Path = RESULTS) -> Results:
    """The results that are there."""
    paths = {name: folder / f"{name}.json" for name in SCRIPTS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def elsewhere(folder: Path = RESULTS) -> list[Results]:
    """The results that are kept of other machines, in folders with their names."""
    return [stored(found) for found in sorted(folder.iterdir()) if found.name in OTHER_MACHINES]


def numbers(results: Results, others: Sequence[Results] = (), plots: Path = RESULTS / "plots") -> str:
    """All that stands between the marks: machines, speed, pictures, and the goals of the other scripts."""
    parts = []
    for one in (results, *others):
        parts += [machine_line(one["speed"]["machine"]), speed_table(one["speed"]["results"])]
    for name, title in PLOTS.items():
        picture = plots / f"{name}.svg"
        if picture.exists():
            parts.append(f"![{title}]({picture.relative_to(ROOT).as_posix()})")
    parts.append("And everything else. What missed its goal is bold:")
    return "\n\n".join([*parts, goal_table(by_machine([results, *others]))])


def by_machine(folders: Sequence[Results]) -> dict[str, Results]:
    """The results that are not about speed, by the processor that they are from."""
    found: dict[str, Results] = {folder["speed"]["machine"]["cpu"]: {} for folder in folders}
    for folder in reversed(folders):  # the first counts where two have the same
        for script, result in folder.items():
            if script != "speed":
                found.setdefault(result["machine"]["cpu"], {})[script] = result
    return found


def machine_line(machine: dict[str, Any]) -> str:
    """Where the numbers are from."""
    shared = " shared with other work" if machine["busy_at_start"] else ""
    peer = machine["versions"]["llama-cpp-python"]
    beside = f"; beside\nllama-cpp-python {peer} built for the same machine, both in turn in one run" if peer else ""
    return f"{machine['cpu']}, {machine['cores']} cores{shared}, kernels for {machine['kernel_level']}{beside}:"


def speed_table(models: dict[str, Any]) -> str:
    """Tokens per second of both programs, their ratio beside the one wanted, and shares of what the machine can do."""
    sides = ("llama.cpp", "Ratio", "Wanted")
    header = ("Model", "Prompt t/s", *sides, "of the peak", "Decode t/s", *sides, "of bandwidth")
    rows = []
    for model, found in models.items():
        if isinstance(found, dict) and "halfbyte" in found:
            prompt, decode = (list(speed_cells(model, what, found)) for what in ("prompt", "decode"))
            rows.append((model, *prompt, *decode))
    return markdown_table(header, rows)


def speed_cells(model: str, what: str, found: dict[str, Any]) -> Iterator[str]:
    """Ours, theirs, ratio, wanted, share. A ratio that misses its target is bold."""
    wanted = getattr(targets.SPEED.get(model, targets.OTHERWISE), what)
    for side in ("halfbyte", "llama_cpp"):
        yield f"{found[side][f'{what}_tps']['median']:.0f}" if side in found else "-"
    ratio = found.get(f"ratio_{what}_tps")
    if ratio is None:
        yield "-"
    else:
        yield f"{ratio['median']:.2f}" if ratio["median"] >= wanted else f"**{ratio['median']:.2f}**"
    yield f"{wanted:.2f}"
    share = found.get(f"{what}_share")
    yield f"{100 * share['median']:.0f} %" if share else "-"


def goal_table(machines: dict[str, Results]) -> str:
    """What each machine measured of each goal; what is wanted is of the first that did."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for script in SCRIPTS:
        for machine, results in machines.items():
            for goal in results.get(script, {"goals": []})["goals"]:
                row = rows.setdefault((script, goal["what"]), {"wanted": goal["wanted"]})
                row[machine] = goal["measured"] if goal["met"] else f"**{goal['measured']}**"
    cells = [(*key, *(row.get(machine, "-") for machine in machines), row["wanted"]) for key, row in rows.items()]
    return markdown_table(("`benchmarks/`", "What", *machines, "Wanted"), cells)


def updated(readme: str, results: Results) -> str:
    """The README with its numbers replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{numbers(results, elsewhere())}\n\n{END}{after}"


def main() -> int:
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(encoding="utf-8"), stored()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
