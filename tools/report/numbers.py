"""Numbers as people read them: few digits, the error's digits decide, and what is no number says so."""

from __future__ import annotations

import math


def number(x: float, digits: int = 3) -> str:
    """With so many significant digits, as a decimal fraction where that is short."""
    if not math.isfinite(x):
        return special(x)
    if x == 0:
        return "0"
    size = int(f"{x:.{digits - 1}e}".partition("e")[2])  # once rounded
    if not -5 <= size < 7:
        return f"{x:.{digits - 1}e}"
    return f"{x:,.{max(0, digits - 1 - size)}f}"


def with_error(x: float, error: float) -> tuple[str, str]:
    """A number and its error, both to the second digit of the error."""
    if not math.isfinite(x) or not math.isfinite(error) or error <= 0:
        return number(x, 4), number(error, 2)
    places = min(9, max(0, 1 - math.floor(math.log10(error))))
    return f"{x:,.{places}f}", f"{error:,.{places}f}"


def percent(share: float, digits: int = 3) -> str:
    return f"{number(100 * share, digits)} %"


def decibels(x: float) -> str:
    return f"{x:.1f} dB" if math.isfinite(x) else special(x)


def megabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"


def special(x: float) -> str:
    if math.isnan(x):
        return "NaN"
    return "∞" if x > 0 else "−∞"
