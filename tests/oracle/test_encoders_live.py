"""Encoders of lattice types against ggml itself, on harder weights than the fixture's. Needs llama-cpp-python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS
from halfbyte.runtime.backends.cpu.encode import Encoders

from ..encoder_inputs import NEED_IMPORTANCE
from ..fixtures.make.encoders import Ggml
from ..lattice_inputs import HARD, hard

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; the fixture is checked without it")

TYPES = [t for t in sorted(CODECS) if t.name.startswith(("IQ1", "IQ2", "IQ3"))]


@pytest.fixture(scope="module")
def ggml() -> Ggml:
    return Ggml()


@pytest.fixture(scope="module")
def encoders() -> Iterator[Encoders]:
    with Encoders(2) as encoders:
        yield encoders


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_the_same_bytes(ggml: Ggml, encoders: Encoders, ggml_type: GGMLType, name: str) -> None:
    x, columns = hard(name)
    for given in (columns, None):
        if given is not None or ggml_type.name not in NEED_IMPORTANCE:
            expected = ggml.encode(ggml_type, x, given)
            np.testing.assert_array_equal(CODECS[ggml_type].encode(x, given), expected)
            np.testing.assert_array_equal(encoders.encode(x, ggml_type, given), expected)
