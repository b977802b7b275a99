"""How codes are found, by name: as llama.cpp does, byte for byte, or with a lower error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from ...formats.errors import InvalidRequest
from ...formats.quants import FORMS
from .plan import Planned

REFERENCE = "reference"
SEARCHES = (REFERENCE, "best")
SEARCH_KEY = "halfbyte.quantize.search"  # in files with tensors that were searched


def with_search(planned: Sequence[Planned], name: str) -> list[Planned]:
    """The plan with what is searched; types without a better encoder keep llama.cpp's. InvalidRequest: no such name."""
    known = name.lower() if isinstance(name, str) else ""
    if known not in SEARCHES:
        near = get_close_matches(known, SEARCHES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InvalidRequest(f"no search is called {name!r}; {hint}All: {', '.join(SEARCHES)}")
    if known == REFERENCE:
        return list(planned)
    return [replace(one, search=known if not one.is_copied and one.type in FORMS else None) for one in planned]
