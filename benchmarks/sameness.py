"""Two model files, tensor by tensor and byte by byte."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGUFFile


@dataclass(frozen=True)
class Same:
    """tensors: name -> type in either file, such as "Q4_K" or "Q4_K, Q6_K", and whether the bytes are the same."""

    tensors: dict[str, tuple[str, bool]]
    is_same_file: bool

    @property
    def count(self) -> int:
        return sum(same for _, same in self.tensors.values())

    @property
    def all(self) -> bool:
        return self.count == len(self.tensors)

    def show(self) -> str:
        return f"{self.count} of {len(self.tensors)}, {'the whole file' if self.is_same_file else 'not the header'}"

    def by_type(self) -> str:
        """How many tensors of each type there are; where not all are the same, how many of how many."""
        total = Counter(type_ for type_, _ in self.tensors.values())
        same = Counter(type_ for type_, is_same in self.tensors.values() if is_same)
        shown = {t: f"{n}" if same[t] == n else f"**{same[t]} of {n}**" for t, n in total.most_common()}
        return ", ".join(f"{type_}: {text}" for type_, text in shown.items())

    def as_json(self) -> dict[str, Any]:
        """Counts, what is different, and by kind of tensor how many are of which type."""
        kinds: dict[str, Counter[str]] = {}
        for name, (type_, _) in self.tensors.items():
            kinds.setdefault(re.sub(r"^blk\.\d+\.", "", name), Counter())[type_] += 1
        return {
            "same": self.count, "tensors": len(self.tensors), "same_file": self.is_same_file,
            "different": [name for name, (_, same) in self.tensors.items() if not same],
            "types": {kind: dict(types) for kind, types in kinds.items()},
        }  # fmt: skip


def compare(ours: Path, theirs: Path) -> Same:
    """Every tensor of both files. One that only one file has is not the same."""
    with GGUFFile.open(ours) as a, GGUFFile.open(theirs) as b:
        found = {}
        for name in dict.fromkeys((*a.tensors, *b.tensors)):
            pair = [file.tensors[name] for file in (a, b) if name in file.tensors]
            types = dict.fromkeys(tensor.type.name for tensor in pair)
            same = len(pair) == 2 and len(types) == 1 and np.array_equal(pair[0].data, pair[1].data)
            found[name] = ", ".join(types), bool(same)
            for tensor in pair:
                tensor.forget()
    return Same(found, ours.stat().st_size == theirs.stat().st_size and ours.read_bytes() == theirs.read_bytes())
