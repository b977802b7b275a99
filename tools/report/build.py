"""From what `halfbyte compare` measured to a report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...formats.gguf import GGUFFile
from .canvas import safe
from .data import Report, Variant, labels
from .sample import take_samples


def build(
    first: tuple[str, Path], changed: Sequence[tuple[str, Path]], found: Sequence[dict[str, Any]], tensor: str | None,
    text: str | None = None,
) -> Report:  # fmt: skip
    """Models as (name, file), `found` as under "changed" in the JSON, the tensor to look at, the name of the text."""
    with ExitStack() as stack:
        one, *others = (stack.enter_context(GGUFFile.open(path)) for _, path in (first, *changed))
        samples = take_samples(one, others, tensor) if tensor is not None else [None] * len(changed)
        n_bytes = sum(t.n_bytes for t in one.tensors.values())
    names = labels(first[0], [name for name, _ in changed])
    variants = [Variant(*parts) for parts in zip(names, found, samples, strict=True)]
    variants.sort(key=lambda variant: -variant.n_bytes)
    return Report(safe(Path(first[0]).name), n_bytes, variants, tensor, text)
