"""What a start may cost, by committed numbers (AT-31): kernels to compile, memory, and nothing at all to import.

Seconds are measured by `benchmarks/startup.py`, on a machine that does nothing else; these are what they come from.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import halfbyte
import pytest
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.cpu import args, features, lower, lower_ops, matrices
from halfbyte.runtime.backends.cpu.backend import kernel_names
from halfbyte.runtime.cache.kv import KVPool
from halfbyte.runtime.graph.rewrites import rewrite
from halfbyte.runtime.models import build_model

from benchmarks import processes, startup
from benchmarks.recipes import RECIPES
from benchmarks.shapes import shape_of
from benchmarks.synthetic import write

from ..switches import needs_kernels

MODEL = Path(halfbyte.__file__).parent / "runtime/assets/stories260k.gguf"

# Kernels of a Llama model, the three functions of the team included, on whatever processor. Each takes 0.1 to 3 s of
# a core when a model is first used: raise a number only with the reason for one more.
MOST_KERNELS = {"Q4_K_M": 19, "Q4_0": 19, "Q8_0": 17, "F16": 15, "F32": 14}


@pytest.mark.parametrize("level", features.LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("recipe", MOST_KERNELS)
def test_number_of_kernels(
    recipe: str, level: features.Isa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the plans alone: nothing is compiled."""
    write(tmp_path / "model.gguf", shape_of("tiny"), RECIPES[recipe])
    machine = replace(features.target(), isa=level)
    for module in (args, lower_ops, matrices):
        monkeypatch.setattr(module, "target", lambda: machine)
    with GGUFFile.open(tmp_path / "model.gguf") as file:
        graph = rewrite(build_model(file, context=64).graph)
        kv = KVPool(graph.state, 1)
        names = kernel_names(*(lower.Lowering(graph, kv, 64, prompt=prompt).run() for prompt in (False, True)))
    assert len(names) <= MOST_KERNELS[recipe], sorted(names)


@needs_kernels
def test_memory_and_a_second_start_that_compiles_nothing() -> None:
    """The file, its keys and values, and 200 MB: Python, NumPy, LLVM, and the arena of a step."""
    found = startup.memory(MODEL, threads=2)
    assert 0 < found["overhead"] <= startup.MAX_OVERHEAD
    assert processes.run(["-m", "benchmarks.first_token", str(MODEL), "--threads", "2"]).json()["kernels"] == 0


def test_an_import_compiles_nothing() -> None:
    code = "import sys, halfbyte; halfbyte.Model, halfbyte.load_tokenizer; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert min(float(processes.run(["-c", startup.IMPORT]).line) for _ in range(3)) <= 0.5
