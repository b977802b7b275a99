"""Logits of the NumPy reference backend, kept on disk: it is the judge, and it is slow."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import halfbyte
import numpy as np
from numpy.typing import NDArray

from .common import cache_dir
from .engines import Ours

# What decides the logits: a change in any of these files asks for new ones.
SOURCES = ("formats/quants", "runtime/ops", "runtime/graph", "runtime/models", "runtime/backends/reference.py")


def reference_logits(path: Path, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits after each token of `ids`, float32 [len(ids), vocabulary], mapped from the cache folder."""
    digest = hashlib.sha256(f"{_file_hash(path)} {_sources_hash()} {list(ids)}".encode()).hexdigest()[:24]
    cached = cache_dir() / f"reference-{digest}.npy"
    if not cached.exists():
        engine = Ours(path, context=len(ids), threads=1, backend="reference")
        _save(engine.logits(ids), cached)
        engine.close()
    stored: NDArray[np.float32] = np.load(cached, mmap_mode="r", allow_pickle=False)
    return stored


def _save(logits: NDArray[np.float32], path: Path) -> None:
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.save(file, logits, allow_pickle=False)
    os.replace(partial, path)


@functools.cache
def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@functools.cache
def _sources_hash() -> str:
    root, digest = Path(halfbyte.__file__).parent, hashlib.sha256()
    for source in SOURCES:
        found = root / source
        for file in sorted(found.rglob("*.py")) if found.is_dir() else [found]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
