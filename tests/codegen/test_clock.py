"""The clock of the stamps is a register that programs may read."""

from __future__ import annotations

import re

import pytest
from halfbyte.runtime.backends.cpu.features import LEVELS
from halfbyte.runtime.backends.cpu.kernels.walk import emit_ticks
from halfbyte.runtime.backends.cpu.simd.emit import I64, Emitter, Vec
from llvmlite import binding as llvm
from llvmlite import ir

TARGETS = {
    "x86_64-unknown-linux-gnu": r"\brdtsc\b",
    "x86_64-pc-windows-msvc": r"\brdtsc\b",
    "aarch64-unknown-linux-gnu": r"mrs\s+x\d+, CNTVCT_EL0",
    "arm64-apple-darwin": r"mrs\s+x\d+, CNTVCT_EL0",
    "powerpc64le-unknown-linux-gnu": r"li 3, 0",
}


@pytest.mark.parametrize("triple", TARGETS)
def test_reading_it(triple: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(I64, []), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    e = Emitter(builder, LEVELS[-1])
    builder.ret(emit_ticks(e, Vec(e, ir.Constant(I64, 0))).ll)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    text = llvm.Target.from_triple(triple).create_target_machine(opt=3).emit_assembly(parsed)
    assert re.search(TARGETS[triple], text), text
