"""Products of rows are functions of their own: merged into a kernel, they read constants from memory in every round."""

from __future__ import annotations

import re
import sys

import pytest
from halfbyte.runtime.backends.cpu.features import target
from halfbyte.runtime.backends.cpu.jit import assembly
from halfbyte.runtime.backends.cpu.kernels.linear.part import SIZES

FUNCTION = re.compile(r"^\s*\.type\s+\S+,@function$", re.MULTILINE)


@pytest.mark.skipif(sys.platform != "linux", reason="functions are told apart by a directive of ELF")
@pytest.mark.skipif(target().isa.dot != "vpdpbusd", reason="products are told by this instruction")
@pytest.mark.parametrize("kernel", ["linear_rows.Q4_K", "linear_glu.Q4_K.silu"])
def test_products_are_apart(kernel: str) -> None:
    functions = FUNCTION.split(assembly(kernel))[1:]
    products = [text for text in functions if "vpdpbusd" in text]
    assert len(products) == 1 + len(SIZES)
    assert not any(re.search(r"\scallq?\s", text) for text in products), "a kernel with a product in it"
