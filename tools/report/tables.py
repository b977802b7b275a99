"""The tables of a report. Every cell passes through `escape`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape as html_escape
from typing import Any

from .canvas import safe
from .data import Report, Variant
from .numbers import decibels, megabytes, number, percent, with_error

MOST_ROWS = 2000  # of the table of tensors

Row = Sequence[str]  # cells, escaped


def escape(text: str, limit: int | None = None) -> str:
    """Any string as text of a page."""
    return html_escape(safe(text, limit))


def table(head: Row, rows: Iterable[Row]) -> str:
    """The first cell of a row is its head. The container scrolls where the table is wider than the screen."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(_row(first, cells) for first, *cells in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _row(first: str, cells: Row) -> str:
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def overview(report: Report) -> str:
    """One row for each changed model."""
    head = ("Model", "Size", "Bits<br><small>per weight</small>", "Relative RMSE")
    rows = []
    for v in report.variants:
        row = (escape(v.label), megabytes(v.n_bytes), _two(v.bits), _marked(v.relative_rmse))
        rows.append((*row, *_text_cells(v)) if report.has_text else row)
    return table((*head, *_TEXT_HEAD) if report.has_text else head, rows)


_TEXT_HEAD = (
    "Mean KL<br><small>nats per token</small>", "99 % KL", "Max KL",
    "Perplexity", "ln ratio<br><small>to the first</small>", "Same top token", "RMS Δp",
)  # fmt: skip


def _text_cells(variant: Variant) -> Row:
    t = variant.about["text"]
    return (
        _pair(t["kl_mean"], t["kl_error"]), _marked(t["kl_99"]), _marked(t["kl_max"]),
        _pair(t["ppl_changed"], t["ppl_changed_error"]), _pair(t["log_ppl_ratio"], t["log_ppl_ratio_error"]),
        _pair(100 * t["same_top"], 100 * t["same_top_error"], " %"),
        _pair(100 * t["rms_dp"], 100 * t["rms_dp_error"], " %"),
    )  # fmt: skip


def kinds(variant: Variant) -> str:
    """One row for each kind of tensor, the worst first; what did not change is left out."""
    found: Mapping[str, Mapping[str, Any]] = variant.about["kinds"]
    changed = {kind: row for kind, row in found.items() if row["relative_rmse"] != 0}
    rows = [_kind(kind, row) for kind, row in sorted(changed.items(), key=lambda item: _worst_first(item[1]))]
    return table(("Kind", "Types", "Size", "Relative RMSE", "SQNR", "Cosine", "Max error", "Clipped"), rows)


def _kind(kind: str, row: Mapping[str, Any]) -> Row:
    return (
        f'<span class="name">{escape(kind, 60)}</span>', escape(" ".join(row["types"])), megabytes(row["bytes"]),
        _marked(row["relative_rmse"]), decibels(row["sqnr_db"]), _cosine(row["cosine"]), _marked(row["max_error"]),
        percent(row["clipped"], 2),
    )  # fmt: skip


def tensors(report: Report) -> str:
    """Relative RMSE of every tensor that changed, in the order of the file, with its type in each model."""
    columns = [{row["name"]: row for row in v.about["tensors"]} for v in report.variants]
    changed = {name for column in columns for name, row in column.items() if row["relative_rmse"] != 0}
    names = [name for name in columns[0] if name in changed]
    rows = [
        (f'<span class="name">{escape(name, 80)}</span>', *(_tensor(column.get(name)) for column in columns))
        for name in names[:MOST_ROWS]
    ]
    more = len(names) - MOST_ROWS
    note = f'<p class="note">{more:,} more tensors are not listed.</p>' if more > 0 else ""
    return table(("Tensor", *(escape(v.label) for v in report.variants)), rows) + note


def _tensor(row: Mapping[str, Any] | None) -> str:
    return f"{_marked(row['relative_rmse'])} <small>{escape(row['after'])}</small>" if row else ""


def _pair(x: float, error: float, unit: str = "") -> str:
    """A number above its error."""
    value, error_text = with_error(x, error)
    return f"{value if math.isfinite(x) else _marked(x)}{unit}<br><small>± {error_text}</small>"


def _worst_first(row: Mapping[str, Any]) -> float:
    error = row["relative_rmse"]
    return -math.inf if math.isnan(error) else -float(error)


def _two(x: float) -> str:
    return f"{x:.2f}" if math.isfinite(x) else number(x)


def _cosine(x: float) -> str:
    return f"{x:.6f}" if math.isfinite(x) else _marked(x)


def _marked(x: float) -> str:
    """A number; one that is none stands out."""
    return number(x) if math.isfinite(x) else f'<span class="warn">{number(x)}</span>'
