"""Whole kernels, compiled for fixed x86 CPUs: the intended instructions, registers of the right size, nothing missing.

Test_targets runs them where the machine can; this needs no such machine, and sees what a correct result does not show.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys

import pytest
from halfbyte.runtime.settings import child_environment

from .test_targets import TARGETS

FLOATS = ("linear_rows.F16", "attention.f16", "attention_decode.8.f16")
CODES = ("linear_gemm.Q4_0", "linear_gemm.Q8_0", "linear_rows.Q4_K", "linear_glu.Q8_0.silu", "expert_rows.Q4_0")
KERNELS = (*CODES, *FLOATS)
DOTS = {"avx512_vnni": "vpdpbusd", "avx2": "vpmaddubsw", "avx_vnni": "vpdpbusd", "generic": "pmaddwd|pmull[dw]"}
SUMS = {"avx512_vnni": "vfmadd", "avx2": "vfmadd", "avx_vnni": "vfmadd", "generic": "mulps"}
WIDEST = {"avx512_vnni": "zmm", "avx2": "ymm", "avx_vnni": "ymm", "generic": "xmm"}


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """A level, and the assembly of each kernel for it."""
    cpu, features, _ = TARGETS[request.param]
    forced = {"NUMBA_CPU_NAME": cpu} | ({"NUMBA_CPU_FEATURES": features} if features else {})
    made = f"""if True:
        import json
        from halfbyte.runtime.backends.cpu.jit import assembly
        print(json.dumps({{name: assembly(name) for name in {KERNELS!r}}}))"""
    command = [sys.executable, "-W", "ignore", "-c", made]
    environment = child_environment(**forced, NUMBA_BOUNDSCHECK="0")
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return request.param, json.loads(done.stdout)


IS_X86 = platform.machine() in ("x86_64", "AMD64")
pytestmark = pytest.mark.skipif(not IS_X86, reason="Numba compiles for processors of the family it runs on")


@pytest.mark.parametrize("kernel", KERNELS)
def test_instructions(compiled: tuple[str, dict[str, str]], kernel: str) -> None:
    level, texts = compiled
    wanted = (SUMS if kernel in FLOATS else DOTS)[level]
    lines = [line for line in texts[kernel].splitlines() if re.match(rf"\s({{vex}}\s)?({wanted})", line)]
    assert any(WIDEST[level] in line for line in lines), f"no {wanted} of {WIDEST[level]}"
    sizes = ["xmm", "ymm", "zmm"]
    for wider in sizes[sizes.index(WIDEST[level]) + 1 :]:
        assert f"%{wider}" not in texts[kernel]


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_left_to_a_library(compiled: tuple[str, dict[str, str]], kernel: str) -> None:
    """Addresses are absolute in this code model: each one is of something in the same object."""
    text = compiled[1][kernel]
    named = set(re.findall(r"movabsq\s+\$([A-Za-z_.][\w.$]*)", text))
    defined = set(re.findall(r"^([A-Za-z_.][\w.$]*):", text, re.MULTILINE))
    assert named <= defined, named - defined


def test_kernels_compiled_in_one_process_warn_of_nothing() -> None:
    """Arguments of the second begin as those of the first do."""
    code = """if True:
        from halfbyte.runtime.backends.cpu.jit import compile_kernel
        compile_kernel("linear_rows.Q4_0"), compile_kernel("linear_gemm.Q4_0")"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
