"""What a report is about: the numbers that `halfbyte compare --json` prints, with names short enough for pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

from ...formats.errors import InvalidRequest
from ..escape import one_line
from .sample import Sample

LONGEST = 28  # characters of a name in a picture
_LAYER = re.compile(r"blk\.([0-9]{1,9})\.(.+)", re.DOTALL)


@dataclass(frozen=True)
class Variant:
    """One changed model: `about` is its entry under "changed"."""

    label: str
    about: dict[str, Any]
    sample: Sample | None  # of the tensor that is looked at

    @property
    def n_bytes(self) -> int:
        return int(self.about["all"].get("bytes", 0))

    @property
    def bits(self) -> float:
        """Per weight, of all tensors together."""
        weights = self.about["all"].get("weights", 0)
        return 8 * self.n_bytes / weights if weights else math.nan

    @property
    def relative_rmse(self) -> float:
        return float(self.about["all"].get("relative_rmse", math.nan))

    def errors_of(self, tensor: str) -> dict[str, Any] | None:
        """The entry of a tensor."""
        return next((row for row in self.about["tensors"] if row["name"] == tensor), None)


@dataclass(frozen=True)
class Report:
    """`first` is the model that the others are compared with, `tensor` the one looked at (None: nothing changed).

    Changed models are in the order of their sizes, the largest first.
    """

    first: str
    first_bytes: int
    variants: Sequence[Variant]
    tensor: str | None
    text: str | None = None  # the name of the file

    @property
    def has_text(self) -> bool:
        return bool(self.variants) and all("text" in v.about for v in self.variants)


def labels(first: str, changed: Sequence[str]) -> list[str]:
    """Short names: without folders, and without what all files begin with, unless that makes two the same."""
    stems = [Path(name).name.removesuffix(".gguf") for name in changed]
    parts = [re.split(r"(?<=[-._ ])", stem) for stem in (Path(first).name.removesuffix(".gguf"), *stems)]
    n_common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False)))
    short = ["".join(part[n_common:]) or stem for part, stem in zip(parts[1:], stems, strict=True)]
    for names in (short, stems, list(changed)):
        shown = [one_line(name, LONGEST) for name in names]
        if len(set(shown)) == len(shown):
            return shown
    return [f"{number}: {name}" for number, name in enumerate(shown, 1)]


def split_name(name: str) -> tuple[int | None, str]:
    """(layer, kind) of a tensor; no layer for those outside of blocks."""
    match = _LAYER.fullmatch(name)
    return (int(match[1]), match[2].removesuffix(".weight")) if match else (None, name.removesuffix(".weight"))


def choose_tensor(changed: Sequence[dict[str, Any]], name: str | None) -> str | None:
    """The tensor of that name, or the worst: of the largest relative error in any model, not a number first.

    None where nothing changed. InvalidRequest offers the nearest names.
    """
    errors: dict[str, float] = {}
    for about in changed:
        for row in about["tensors"]:
            error = math.inf if math.isnan(row["relative_rmse"]) else row["relative_rmse"]
            errors[row["name"]] = max(error, errors.get(row["name"], 0.0))
    for about in changed:  # what is stored as integers in all files is in none of the lists
        errors = {row["name"]: errors[row["name"]] for row in about["tensors"] if row["name"] in errors}
    if name is not None and name not in errors:
        near = get_close_matches(name, errors, n=1)
        raise InvalidRequest(f"no tensor {name!r} to look at{f'; the nearest name is {near[0]!r}' if near else ''}")
    worst = max(errors, key=lambda key: errors[key], default=None)
    if name is None and worst is not None and errors[worst] == 0:
        return None
    return name if name is not None else worst
