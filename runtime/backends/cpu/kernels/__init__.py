"""Every kernel of the CPU backend, and the module that holds it. Only the compiler process imports those modules."""

from __future__ import annotations

from importlib import import_module

_MODULES = {
    "probe_read": "probe",
    "probe_int8": "probe",
    "probe_float": "probe",
    "probe_pairs": "probe",
    "probe_tiles": "probe",
    "add": "elementwise",
    "scale": "elementwise",
    "glu": "elementwise",
    "activation": "elementwise",
    "softcap": "elementwise",
    "rms_norm": "norm",
    "layer_norm": "norm",
    "rope": "rope",
    "kv_store": "store",
    "attention": "attention",
    "attention_decode": "attention_decode",
    "attention_blocks": "attention_blocks",
    "take_rows": "rows",
    "moe_route": "moe",
    "expert_combine": "moe",
    "quantize": "linear.act",
    "quantize_packets": "linear.packets",
    "rms_norm_quantize": "linear.packets",
    "embed": "linear.embed",
    "linear_rows": "linear.rows",
    "linear_gemm": "linear.gemm",
    "linear_tiles": "linear.tiles",
    "linear_pairs": "linear.pairs",
    "pack_pairs": "linear.pairs",
    "brain": "linear.brain",
    "linear_glu": "linear.gated",
    "expert_rows": "linear.experts",
    "encode": "encode.kernel",
}


def register(family: str) -> None:
    """Import the module of a kernel family, which registers it with `jit`."""
    import_module(f"{__name__}.{_MODULES[family]}")
