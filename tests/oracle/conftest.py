"""All kernels of this folder compiled at once, by two children, instead of by one each when first called."""

from __future__ import annotations

import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.runtime import settings
from halfbyte.runtime.backends.base import CancelFlag
from halfbyte.runtime.backends.cpu.args import decode_kernel
from halfbyte.runtime.backends.cpu.compile import ensure_compiled
from halfbyte.runtime.backends.cpu.encode import KERNEL_TYPES as ENCODED
from halfbyte.runtime.backends.cpu.encode import kernel_of
from halfbyte.runtime.hub.lock import exclusive

from .test_kernels_attention import F32_DECODE_SHAPES
from .test_kernels_linear import FLOATS, QUANTIZED

PLAIN = ["rms_norm", "layer_norm", "add", "scale", "softcap", "quantize", "quantize_packets", "rope",
         "take_rows", "moe_route"]  # fmt: skip
PLAIN += ["rms_norm_quantize", "expert_combine"]
ACTS = ["sigmoid", "silu", "gelu", "gelu_tanh"]


@pytest.fixture(scope="session", autouse=True)
def compiled(request: pytest.FixtureRequest) -> None:
    """Only when many tests are run: a single one compiles what it needs itself."""
    if request.session.testscollected < 100:
        return
    kinds = (*QUANTIZED, *FLOATS)
    products = [f"{kernel}.{kind}" for kernel in ("linear_rows", "linear_gemm", "embed") for kind in kinds]
    acts = [f"{kernel}.{act}" for kernel in ("glu", "activation") for act in ACTS]
    acts += [f"linear_glu.{kind}.silu" for kind in kinds]
    attention = [f"{kernel}.{pages}" for kernel in ("kv_store", "attention") for pages in ("f16", "f32")]
    in_float32 = [decode_kernel(n_head, n_head_kv, dim, "f32") for n_head, n_head_kv, _, dim in F32_DECODE_SHAPES]
    attention += [*(f"attention_decode.{rows}.f16" for rows in (0, 1, 2, 4, 8)), *in_float32]
    types = [GGMLType[name] for name in ENCODED]
    encoders = {kernel_of(t, weighted=weighted) for t in types for weighted in (False, True)} - {""}
    with exclusive(settings.home() / "tests.lock", CancelFlag()):  # another worker of pytest-xdist wants the same ones
        ensure_compiled([*PLAIN, *products, *acts, *attention, *encoders], workers=2)
