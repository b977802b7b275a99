"""The colours of a report: one table, for pictures and for the page.

Pictures are drawn in the light colours. In a page each of them becomes a variable of the style sheet, so that a picture
follows the page into dark mode and onto paper. Blue, grey and orange are told apart by every kind of colour vision; the
steps of the heat map differ in lightness alone.
"""

from __future__ import annotations

# name -> (light, dark)
COLORS: dict[str, tuple[str, str]] = {
    "paper": ("#fefefe", "#14181d"),
    "raised": ("#f4f6f8", "#1b2127"),
    "ink": ("#1b2631", "#e3e8ed"),
    "muted": ("#5b6976", "#9aa6b2"),
    "faint": ("#dde3e9", "#303a44"),
    "before": ("#c3ccd5", "#46525e"),
    "after": ("#1c69b0", "#6cb0f0"),
    "soft": ("#d3e4f4", "#21405c"),
    "warn": ("#b8500c", "#f0945a"),
}
# The ends and the middle of the heat map's steps, from small to large
_LIGHT_STOPS = ("#eaf2f9", "#a9c9e6", "#5c96ca", "#2263a0", "#0a2c54")
_DARK_STOPS = ("#1b2937", "#25496d", "#3a77ab", "#7aade0", "#d4e7fb")
STEPS = 15


def _ramp(stops: tuple[str, ...]) -> list[str]:
    """STEPS colours, straight between the stops."""
    colors = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    found = []
    for step in range(STEPS):
        place = step * (len(stops) - 1) / (STEPS - 1)
        at = min(int(place), len(stops) - 2)
        mixed = (round(a + (b - a) * (place - at)) for a, b in zip(colors[at], colors[at + 1], strict=True))
        found.append("#" + "".join(f"{part:02x}" for part in mixed))
    return found


RAMP = tuple(f"heat{i}" for i in range(STEPS))
COLORS |= dict(zip(RAMP, zip(_ramp(_LIGHT_STOPS), _ramp(_DARK_STOPS), strict=True), strict=True))


def light(name: str) -> str:
    return COLORS[name][0]


def variables(dark: bool) -> str:
    """All of them as CSS custom properties."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLORS.items())
