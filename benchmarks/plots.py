"""Draw results/scaling.json: python -m benchmarks.plots

One picture for each curve, prompt and decode side by side: medians as lines, the lowest to the highest round shaded.
The background is white, so that a picture is readable on a dark page too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .common import RESULTS, give_up
from .rounds import OURS, THEIRS


class Side(NamedTuple):
    label: str
    color: str
    marker: str


SIDES = {
    OURS: Side("Halfbyte", "#0b5fd6", "o"),
    THEIRS: Side("llama.cpp", "#c2570c", "s"),
    "generate": Side("Model.generate", "#4b8b3b", "^"),
}
TITLES = {"prompt": "Reading a prompt", "decode": "Writing an answer"}
SIZE_NAMES = {"135m": "135 M", "360m": "360 M", "1.1b": "1.1 B", "3b": "3 B", "7b": "7 B"}


def library() -> Any:
    """matplotlib.pyplot, drawing to files only."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        give_up("matplotlib is not installed; run: pip install matplotlib")
    matplotlib.use("agg")
    # text as shapes: the same picture on every system; no date, no random ids: the same file for the same numbers
    matplotlib.rcParams.update({"svg.hashsalt": "halfbyte", "font.size": 10, "axes.spines.top": False})
    matplotlib.rcParams["axes.spines.right"] = False
    from matplotlib import pyplot

    return pyplot


def draw(folder: Path) -> list[Path]:
    """Draw every curve of FOLDER/scaling.json to FOLDER/plots/NAME.svg."""
    content = json.loads((folder / "scaling.json").read_text(encoding="utf-8"))
    made = []
    for name, curve in content["results"].items():
        (folder / "plots").mkdir(exist_ok=True)
        made.append(folder / "plots" / f"{name}.svg")
        _draw(curve, footer(content["machine"]), made[-1])
    return made


def footer(machine: dict[str, Any]) -> str:
    """Where the numbers are from."""
    peer = machine["versions"].get("llama-cpp-python")
    beside = f", llama-cpp-python {peer}" if peer else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, kernels for {machine['kernel_level']}\n"
        f"halfbyte {machine['versions']['halfbyte']} ({machine['commit']}){beside}; {machine['date']}"
    )


def _draw(curve: dict[str, Any], source: str, path: Path) -> None:
    pyplot = library()
    from matplotlib import ticker

    wide = len(curve["lines"])
    figure, axes = pyplot.subplots(1, wide, figsize=(1.2 + 4.4 * wide, 3.9), layout="constrained", squeeze=False)
    for axis, (what, sides) in zip(axes[0], curve["lines"].items(), strict=True):
        _draw_lines(axis, curve["x"], sides)
        axis.set_title(TITLES[what], loc="left", fontsize=11)
        axis.set_xlabel(curve["x_title"])
        axis.set_ylabel("tokens per second")
        if curve["x_title"] == "model size":  # a factor of fifty between the ends
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_minor_formatter(ticker.NullFormatter())
        else:
            axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
    axes[0][0].legend(frameon=False)
    figure.suptitle(curve["subject"], x=0.01, ha="left", fontsize=10, color="#555555")
    figure.supxlabel(source, x=0.01, ha="left", fontsize=7, linespacing=1.4, color="#555555")
    figure.savefig(path, facecolor="white", metadata={"Date": None})
    pyplot.close(figure)


def _draw_lines(axis: Any, x: list[str], sides: dict[str, list[dict[str, Any]]]) -> None:
    """Points at equal distances: what is on the x axis doubles from one to the next, or nearly."""
    places = range(len(x))
    for side, points in sides.items():
        style = SIDES[side]
        low, middle, high = ([point[key] for point in points] for key in ("low", "median", "high"))
        axis.fill_between(places, low, high, color=style.color, alpha=0.15, linewidth=0)
        axis.plot(places, middle, color=style.color, marker=style.marker, markersize=5, label=style.label)
    axis.set_xticks(places, [SIZE_NAMES.get(text, f"{int(text):,}" if text.isdigit() else text) for text in x])


def main() -> int:
    for path in draw(RESULTS):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
