"""How a profile is shown: rules, bars and colours on a terminal, aligned plain text in a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from . import console
from .escape import one_line
from .profile import Phase, Report, Row

LIMITS = {"read": "reading", "int8": "int8", "float": "float", "tiles": "tiles", "pairs": "pairs"}
GOOD, FAIR = 0.7, 0.4  # parts of the floor that are shown in green and in yellow, less in red
SMALL = 0.01  # rows with less of the wall time get no colour: there is nothing to be won
BAR = 10  # characters


@dataclass(frozen=True)
class Line:
    """Cells of text; `share` is of the wall time, `at_floor` the part of its time that is needed at least, or None."""

    cells: Sequence[str]
    share: float = 0.0
    at_floor: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table. Columns are aligned right but for the first and those in `left`; `totals` stand below a rule."""

    heads: Sequence[str]
    rows: Sequence[Line]
    totals: Sequence[Line]
    left: frozenset[str] = frozenset({"type", "% floor"})

    def is_left(self, column: int) -> bool:
        return column == 0 or self.heads[column] in self.left


def show(report: Report, heading: str) -> None:
    """Write the whole report."""
    floors, prompt, decode, speeds = report.floors, report.prompt, report.decode, report.speeds
    console.say(one_line(heading))
    console.say(
        f"At most, measured now: reading {digits(floors.read / 1e9)} GB/s, int8 {digits(floors.int8 / 1e9)} GMAC/s, "
        f"float {digits(floors.float32 / 1e9)} GMAC/s"
        + (f", tiles {digits(floors.tiles / 1e9)} GMAC/s" if floors.tiles else "")
        + (f", pairs {digits(floors.pairs / 1e9)} GMAC/s" if floors.pairs else "")
    )
    show_phase(prompt, f"Prompt of {prompt.tokens} tokens, {speeds.prompt_tps:.1f} tokens/s", "")
    show_phase(decode, f"Decode, mean of {decode.steps} tokens, {speeds.decode_tps:.1f} tokens/s", " per token")


def show_phase(phase: Phase, title: str, per: str) -> None:
    """A sentence on the whole, and two tables."""
    _, unit = _unit(phase)
    parts = (
        ("inside calls", phase.inside), ("waiting at barriers", phase.wait), ("starting steps", phase.start),
        ("Python around", phase.python),
    )  # fmt: skip
    console.say()
    console.say(title)
    console.say(
        f"{_time(phase.wall, phase)} {unit}{per}: "
        + ", ".join(f"{name} {percent(part, phase.wall)} %" for name, part in parts)
    )
    console.say(f"The floor is {_time(phase.floor, phase)} {unit}, {percent(phase.floor, phase.wall)} % of it")
    for grid in (by_op(phase), by_tensor(phase)):
        console.say()
        write(grid)


def by_op(phase: Phase) -> Grid:
    """Ops, and below them what else the wall time went to: together it is the wall time."""
    _, unit = _unit(phase)
    parts = (("starting steps", phase.start), ("Python around", phase.python), ("wall time", phase.wall))
    totals = [
        Line([name, "", _time(part, phase), percent(part, phase.wall), *[""] * (len(_heads(unit)) - 3)])
        for name, part in parts
    ]
    rows = [_line([row.name], row, phase) for row in phase.ops]
    return Grid(["op", *_heads(unit)], rows, totals)


def by_tensor(phase: Phase) -> Grid:
    """Tensors, summed over the layers."""
    rows = [_line([row.name, " ".join(sorted(row.types))], row, phase) for row in phase.tensors]
    total = _line(["all calls", ""], Row.total("all calls", phase.ops), phase)
    return Grid(["tensor", "type", *_heads(_unit(phase)[1])], rows, [total])


def _unit(phase: Phase) -> tuple[float, str]:
    return (1e-3, "ms") if phase.wall >= 0.02 else (1e-6, "us")


def _time(seconds: float, phase: Phase) -> str:
    scale, _ = _unit(phase)
    return f"{seconds / scale:.{2 if phase.wall < 100 * scale else 1}f}"


def _heads(unit: str) -> list[str]:
    return ["calls", unit, "% time", "% wait", "GB/s", "GMAC/s", "% floor"]


def _line(names: list[str], row: Row, phase: Phase) -> Line:
    cells = [
        f"{row.calls:.0f}",
        _time(row.seconds, phase),
        percent(row.seconds, phase.wall),
        percent(row.wait, row.seconds),
        _rate(row.n_bytes, row.seconds),
        _rate(row.macs, row.seconds),
    ]
    at_floor = row.floor / row.seconds if row.floor and row.seconds else None
    cells.append("" if at_floor is None else f"{100 * at_floor:5.1f} {LIMITS.get(row.bound, '')}")
    return Line([*names, *cells], row.seconds / phase.wall if phase.wall else 0.0, at_floor)


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def _rate(amount: float, seconds: float) -> str:
    return digits(amount / seconds / 1e9) if amount and seconds else ""


def digits(number: float) -> str:
    """Three digits that matter, and no more than two after the point."""
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f}"


def write(grid: Grid) -> None:
    """For a person with colours; for a pipe without, and where the table is too wide: nothing is cut off."""
    lines = plain(grid)
    columns, width = shutil.get_terminal_size().columns, max(map(len, lines))
    if console.is_terminal(sys.stdout) and width + 2 <= columns:
        _write_rich(grid, columns, bars=columns - width - 2 > BAR)
        return
    for line in lines:
        console.say(line)


def plain(grid: Grid) -> list[str]:
    """Lines of aligned text, with a rule below the heads and one above the totals."""
    cells = [line.cells for line in (Line(grid.heads), *grid.rows, *grid.totals)]
    table = [[one_line(cell) for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in table) for i in range(len(grid.heads))]
    lines = [
        "  ".join(
            cell.ljust(width) if grid.is_left(i) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    rule, last = "-" * max(map(len, lines)), 1 + len(grid.rows)
    return [lines[0], rule, *lines[1:last], rule, *lines[last:]]


def _write_rich(grid: Grid, columns: int, bars: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # with a height as well, or rich takes a terminal it does not know for 80 characters wide
    output = Console(width=columns, height=25)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, head in enumerate(grid.heads):
        table.add_column(head, justify="left" if grid.is_left(i) else "right", no_wrap=True)
    bars = bars and output.encoding.lower().startswith("utf")
    if bars:
        table.add_column("", no_wrap=True, min_width=BAR)
    longest = max((line.share for line in grid.rows), default=0.0) or 1.0
    for line in grid.rows:
        styles = ["bold", *[""] * (len(line.cells) - 2), _colour(line)]
        cells = [Text(one_line(cell), style=style) for cell, style in zip(line.cells, styles, strict=True)]
        table.add_row(*cells, *([Text(bar(line.share / longest), style="cyan")] if bars else []))
    table.add_section()
    for line in grid.totals:
        table.add_row(*(Text(one_line(cell), style="dim") for cell in line.cells))
    output.print(table)


def bar(part: float) -> str:
    """BAR characters at part = 1, in steps of an eighth."""
    eighths = round(part * BAR * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _colour(line: Line) -> str:
    if line.at_floor is None or line.share < SMALL:
        return ""
    return "green" if line.at_floor >= GOOD else "yellow" if line.at_floor >= FAIR else "red"
