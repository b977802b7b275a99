"""Into which files a quantized model goes: one, those of the source, or as many as limits ask for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...formats.errors import InvalidRequest
from ...formats.gguf import GGUFFile
from .plan import Planned
from .storage import stored_tensors


@dataclass(frozen=True)
class Files:
    """keep_split: a file for each of the source's, with the same tensors. Or limits; bytes are of tensors."""

    keep_split: bool = False
    max_bytes: int | None = None
    max_tensors: int | None = None

    def __post_init__(self) -> None:
        if self.keep_split and (self.max_bytes, self.max_tensors) != (None, None):
            raise InvalidRequest("either the source says how the result is split, or the largest size does")
        limits = (self.max_bytes, self.max_tensors)
        if any(limit is not None and (type(limit) is not int or limit < 1) for limit in limits):
            raise InvalidRequest(f"a file that is part of a model holds at least one byte and one tensor, not {limits}")

    def named(self, target: Path) -> Path:
        """The name that those of several files are made of. NAME-00001-of-00003.gguf stands for NAME.gguf."""
        is_split = self != Files()
        return target.with_name(re.sub(r"-\d{5}-of-\d{5}(?=\.gguf$)", "", target.name)) if is_split else target

    def options(self, source: GGUFFile, planned: Iterable[Planned]) -> dict[str, Any]:
        """For a GGUFWriter of the tensors of a plan."""
        if not self.keep_split:
            return {"split_max_bytes": self.max_bytes, "split_max_tensors": self.max_tensors}
        counts = Counter(Path(one.tensor.path) for one in planned for _ in stored_tensors(one))
        first, *others = source.paths  # the first may have metadata alone
        return {"split_counts": [counts[first], *(counts[path] for path in others if counts[path])]}
