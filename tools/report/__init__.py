"""The report of `halfbyte compare`: numbers become pictures, pictures and tables a page.

    report = build(first, changed, found, tensor)  # data.py: what was measured; sample.py: weights of one tensor
    pictures = draw(report)                        # pictures.py: all of them; canvas.py: the one user of matplotlib
    page = render(report, pictures)                # page.py: one HTML file

Strings from model files are hostile: `canvas.safe` makes them visible, `tables.escape` makes them text of a page.
"""

from __future__ import annotations

from .build import build
from .canvas import check_library
from .data import Report, choose_tensor
from .page import render
from .pictures import draw

__all__ = ["Report", "build", "check_library", "choose_tensor", "draw", "render"]
