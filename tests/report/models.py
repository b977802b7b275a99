"""Small models for reports: a first one and what became of it, with names as bad as a file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType, GGUFWriter
from halfbyte.formats.quants import CODECS
from halfbyte.tools.commands.compare import _tensors
from halfbyte.tools.report import Report, build, choose_tensor

Weights = Mapping[str, np.ndarray]
Types = Mapping[str, GGMLType]

HOSTILE = (
    "blk.0.<script>alert(1)</script>",
    "blk.1.a\x1b[31m\nb\u202e$\\frac{",
    'blk.2."><img src=x onerror=alert(1)>&amp;\uffff',
    "blk.0.attn_q.weight",
    "output.weight",
)


def weights(names: tuple[str, ...] = HOSTILE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {name: (rng.standard_normal((6, 256)) * 0.02).astype(np.float32) for name in names}


def write_model(path: Path, tensors: Weights, type_: GGMLType, others: Types | None = None) -> Path:
    """All tensors in one type, but for `others`."""
    types = {name: (others or {}).get(name, type_) for name in tensors}
    writer = GGUFWriter(path)
    writer.add("general.architecture", "llama")
    for name, x in tensors.items():
        writer.add_tensor(name, x.shape, types[name])
    with writer.open():
        for name, x in tensors.items():
            writer.write_tensor(name, CODECS[types[name]].encode(x))
    return path


def text_numbers(kl: float, **changes: float) -> dict[str, float]:
    """What a comparison on a text finds, without running models."""
    found = {
        "tokens": 1000, "windows": 4, "context": 512, "kl_mean": kl, "kl_error": kl / 20, "kl_median": kl / 2,
        "kl_95": 3 * kl, "kl_99": 5 * kl, "kl_999": 8 * kl, "kl_max": 9 * kl, "ppl_first": 12.3, "ppl_first_error": 0.4,
        "ppl_changed": 12.3 + kl, "ppl_changed_error": 0.4, "log_ppl_ratio": kl / 3, "log_ppl_ratio_error": kl / 30,
        "same_top": 0.95, "same_top_error": 0.01, "mean_dp": 0.0, "mean_dp_error": 0.0, "rms_dp": 0.02,
        "rms_dp_error": 0.001,
    }  # fmt: skip
    return found | changes


def report_of(changed: Mapping[str, Path], first: Path, tensor: str | None = None, text: Any = None) -> Report:
    """A report of models by name; `text` has the numbers of each that a text would give."""
    found = [_tensors(str(first), str(path)) for path in changed.values()]
    for about, name in zip(found, changed, strict=True):
        if text:
            about["text"] = text[name]
    chosen = choose_tensor(found, tensor)
    return build((first.name, first), [*changed.items()], found, chosen, "words & <text>.txt")
