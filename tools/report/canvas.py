"""Pictures: the only file that imports matplotlib, and the style that all of them share.

matplotlib is an extra. It is used without pyplot and inside `rc_context`, so that a program which has its own plots
does not notice. Text is never read as mathematics: names may hold a dollar sign.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...formats.errors import UnsupportedError
from ..escape import one_line
from .colors import light
from .numbers import number
from .svg import for_page

POINTS = 8  # size of the text
DPI = 200  # of PNG

Draw = Callable[[Any], None]  # on an empty matplotlib axis


def check_library() -> None:
    """UnsupportedError where there is no matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"pictures need matplotlib, which cannot be imported ({error}); run: pip install matplotlib"
        ) from None


@dataclass(frozen=True)
class Picture:
    """A drawn picture. `name` is part of a file's name, `alt` says in words what is to be seen."""

    name: str
    alt: str
    figure: Any  # matplotlib.figure.Figure

    def svg(self) -> str:
        """An <svg> element whose colours are those of the page."""
        return for_page(self._save("svg", transparent=True, metadata=_NO_METADATA).decode("utf-8"), self.alt)

    def png(self) -> bytes:
        return self._save("png", dpi=DPI, facecolor=light("paper"))

    def _save(self, form: str, **options: Any) -> bytes:
        data = io.BytesIO()
        with _style(self.name):
            self.figure.savefig(data, format=form, **options)
        return data.getvalue()


_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def picture(name: str, title: str, alt: str, size: tuple[float, float], draw: Draw) -> Picture:
    """A picture of one axis, `size` in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _style(name):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)  # measures texts
        axis = figure.add_subplot()
        axis.set_title(title, loc="left", fontsize=POINTS, fontweight="bold")
        draw(axis)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is done: saving need not do it again
    return Picture(name, alt, figure)


def safe(text: str, limit: int | None = None) -> str:
    """A text from a model file for a picture or a page (which escapes it in addition).

    One line, without control characters, and without the two characters that XML cannot hold.
    """
    return one_line(text, limit).replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")


def plain_numbers(*axes: Any) -> None:
    """Ticks as decimal fractions; on a logarithmic axis those of 1, 2 and 5, unless that is too many."""
    from matplotlib import ticker

    for axis in axes:
        if axis.get_scale() == "log":
            low, high = sorted(axis.get_view_interval())
            steps = (1, 2, 5) if high / low < 150 else (1,)
            axis.set_major_locator(ticker.LogLocator(subs=steps))
            axis.set_minor_locator(ticker.NullLocator())
        else:
            axis.set_major_locator(ticker.MaxNLocator(5, steps=(1, 2, 5, 10)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda x, _: _tick(x)))


def _tick(x: float) -> str:
    shown = number(x, 3)
    whole, dot, rest = shown.partition(".")
    tidy = whole + (dot + rest).rstrip("0").rstrip(".") if dot and "e" not in shown else shown
    return tidy.replace("-", "\u2212")


@contextmanager
def _style(name: str) -> Iterator[None]:
    """`name` makes the ids of an SVG: pictures of one page need different ones."""
    import matplotlib

    own: dict[Any, Any] = {
        "font.family": ["DejaVu Sans"], "font.size": POINTS, "text.parse_math": False, "text.usetex": False,
        "axes.labelsize": POINTS, "xtick.labelsize": POINTS, "ytick.labelsize": POINTS,
        "text.color": light("ink"), "axes.labelcolor": light("muted"), "axes.edgecolor": light("faint"),
        "xtick.color": light("faint"), "ytick.color": light("faint"),
        "xtick.labelcolor": light("muted"), "ytick.labelcolor": light("muted"),
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "axes.axisbelow": True,
        "grid.color": light("faint"), "grid.linewidth": 0.6, "axes.linewidth": 0.8, "lines.solid_capstyle": "butt",
        "xtick.major.size": 3, "ytick.major.size": 3, "hatch.linewidth": 0.6,
        "svg.fonttype": "none", "svg.hashsalt": name, "savefig.facecolor": "none",
    }  # fmt: skip
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()  # not what a matplotlibrc says
        matplotlib.rcParams.update(own)
        yield
