"""The kernel tests once more, compiled for lesser CPUs: any CPU runs, none meets an instruction it lacks.

Every type of weights has its rows for AVX2, which most computers have; of the others those that differ most. All types
for all levels, by rows and by panels: `python -m tests.codegen.test_targets`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from halfbyte.runtime.backends.cpu.matrices import KERNEL_TYPES
from halfbyte.runtime.settings import child_environment

ROOT = Path(__file__).parents[2]
AVX2 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2"
AVX512 = AVX2 + ",+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni"
# level -> name of a CPU, features that are forced too (or none: the name says what it has), features the host must have
TARGETS = {
    "avx512_vnni": ("icelake-server", "", AVX512),
    "avx2": ("haswell", "", AVX2),
    "avx_vnni": ("haswell", AVX2 + ",+avxvnni", AVX2 + ",+avxvnni"),
    "generic": ("x86-64", "+sse2", "+sse2"),
}

# Compiling takes the time.
SOME = ("F16", "IQ4_XS", "Q4_1", "Q6_K", "Q8_0")
ALL = sorted(KERNEL_TYPES - {"FP4", "FP4_32"})  # which have the kernels of NF4, with another table
EVERY = "HALFBYTE_TEST_EVERY_TYPE"  # set by the command
TYPES = {"avx2": {"linear_rows": ALL, "linear_gemm": SOME}}
SELECTION = [
    "tests/oracle/test_kernels_linear.py::test_activations_to_int8",
    "tests/oracle/test_kernels_linear.py::test_activations_to_packets",
    "tests/oracle/test_kernels_elementwise.py",
    "tests/oracle/test_kernels_rope.py",
    "tests/oracle/test_kernels_fused.py::test_norm_and_int8",
    "tests/oracle/test_kernels_attention.py::test_attention[5-1-64-32-7]",
    "tests/oracle/test_kernels_attention.py::test_attention_in_parts[5-1-64-32-3]",
    "tests/oracle/test_kernels_linear.py::test_embedding_rows[Q4_K]",
    "tests/oracle/test_kernels_linear.py::test_expert_rows[0-Q6_K]",
    "tests/oracle/test_kernels_fused.py::test_gate_up_and_activation[Q4_1]",
]
# What they need, compiled by two children beforehand: a child for each kernel would spend its time on importing Numba.
KERNELS = [
    "team.serve", "team.clock", "probe_read", "probe_int8", "probe_float", "quantize",
    "quantize_packets", "rope", "rms_norm", "layer_norm",
    "kv_store.f16", "attention.f16", "attention_decode.8.f16", "embed.Q4_K", "expert_rows.Q6_K",
    "add", "scale", "softcap", "take_rows", "rms_norm_quantize", "linear_glu.Q4_1.silu",
    *(f"{kernel}.{act}" for kernel in ("glu", "activation") for act in ("sigmoid", "silu", "gelu", "gelu_tanh")),
]  # fmt: skip

PRODUCTS_ALONE = ["team.serve", "team.clock", "quantize", "quantize_packets"]


def _host_has(features: str) -> bool:
    import llvmlite.binding as llvm

    host = llvm.get_host_cpu_features()
    return all(host.get(feature[1:], False) for feature in features.split(","))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 levels run on x86 only")
@pytest.mark.parametrize("level", TARGETS)
def test_kernels_for_a_lesser_cpu(level: str) -> None:
    cpu, features, needed = TARGETS[level]
    if not _host_has(needed):
        pytest.skip(f"this CPU itself lacks one of {needed}")
    forced = {"NUMBA_CPU_FEATURES": features} if features else {}
    environment = child_environment(NUMBA_CPU_NAME=cpu, **forced)
    every = EVERY in os.environ
    forms = {} if every else TYPES.get(level, {})
    forms = dict.fromkeys(("linear_rows", "linear_gemm"), ALL if every else SOME) | forms
    products = [(kind, form) for form, kinds in forms.items() for kind in kinds]
    # AVX-VNNI is AVX2 but for the products of int8.
    kernels, selection = (PRODUCTS_ALONE, []) if level == "avx_vnni" else (KERNELS, SELECTION)
    kernels = [*kernels, *(f"{form}.{kind}" for kind, form in products)]
    check = f"""if True:
        from halfbyte.runtime.backends.cpu.compile import ensure_compiled
        from halfbyte.runtime.backends.cpu.features import target

        assert target().isa.name == {level!r}, target()
        import numba.core.registry
        from halfbyte.runtime.backends.cpu import jit
        codegen = numba.core.registry.cpu_target.target_context.codegen()
        assert codegen._get_host_cpu_features() == target().feature_string, "Numba compiles for the same"
        ensure_compiled({kernels!r}, workers=2)"""
    subprocess.run([sys.executable, "-c", check], check=True, env=environment)
    tests = [f"tests/oracle/test_kernels_linear.py::test_products[{kind}-{form}]" for kind, form in products]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *selection, *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


if __name__ == "__main__":
    os.environ[EVERY] = "1"
    raise SystemExit(pytest.main(["-n", "0", __file__]))
