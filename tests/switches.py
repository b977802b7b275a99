"""Every environment variable that the tests read, besides those of Halfbyte itself.

    HALFBYTE_TEST_BACKEND   "reference": tests that do not say a backend load models on the reference backend, and the
                            tests of the CPU backend's models run each op's NumPy definition in place of its kernel
                            (default "cpu")
    HALFBYTE_TEST_EXAMPLES  files that tests/property/test_gguf.py makes up for one test (default 200)
    HALFBYTE_TEST_RACES     times that two processes fill one empty kernel cache at once (default 3)
    HALFBYTE_VOCAB_DIR      folders of further tokenizer vectors, see tests/tokenize/test_vectors.py (default none)
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BACKENDS = ("cpu", "reference")


def backend() -> str:
    """The backend of tests that do not say one."""
    name = os.environ.get("HALFBYTE_TEST_BACKEND") or "cpu"
    if name not in BACKENDS:
        raise pytest.UsageError(f"HALFBYTE_TEST_BACKEND={name}: known backends are {', '.join(BACKENDS)}")
    return name


def examples() -> int:
    return _count("HALFBYTE_TEST_EXAMPLES", 200)


def races() -> int:
    return _count("HALFBYTE_TEST_RACES", 3)


def vocabulary_folders() -> list[Path]:
    return [Path(folder) for folder in os.environ.get("HALFBYTE_VOCAB_DIR", "").split(os.pathsep) if folder]


def _count(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise pytest.UsageError(f"{name}={text}: a whole number of at least 1 is needed")
    return int(text)


needs_kernels = pytest.mark.skipif(
    backend() != "cpu", reason="about compiled kernels, which HALFBYTE_TEST_BACKEND=reference leaves out"
)
