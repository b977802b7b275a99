"""Write the README's table of numbers from the stored results: python -m benchmarks.readme"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- numbers: python -m benchmarks.readme -->", "<!-- end of numbers -->"
SCRIPTS = ("speed", "accuracy", "startup", "desktop")


def table(results: dict[str, dict[str, Any]]) -> str:
    """All goals of all scripts: what, measured, wanted, met."""
    machine = results["speed"]["machine"]
    cpu, cores, level = (machine[name] for name in ("cpu", "cores", "kernel_level"))
    peer = f"llama-cpp-python {machine['versions']['llama-cpp-python']}"
    lines = [
        f"{cpu}, {cores} cores shared with other work, kernels for {level}; beside",
        f"{peer} built for the same machine, interleaved in one run:",
        "",
        "| `benchmarks/` | What | Measured | Wanted | Met |",
        "|---|---|---|---|---|",
    ]
    for script in SCRIPTS:
        for goal in results[script]["goals"]:
            met = "yes" if goal["met"] else "**no**"
            lines.append(f"| {script} | {goal['what']} | {goal['measured']} | {goal['wanted']} | {met} |")
    return "\n".join(lines)


def updated(readme: str, results: dict[str, dict[str, Any]]) -> str:
    """The README with its numbers replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}"


def main() -> int:
    folder = ROOT / "benchmarks" / "results"
    results = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in SCRIPTS}
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(encoding="utf-8"), results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
