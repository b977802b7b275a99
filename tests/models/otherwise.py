"""Where llama.cpp computes other logits than transformers, whose logits ours are (test_families.py)."""

from __future__ import annotations

# Keys that our files have and that llama.cpp does not read for this architecture.
UNREAD = {
    "mistral_window": ("llama.attention.sliding_window",),
    "starcoder2": ("starcoder2.attention.sliding_window",),
    "gemma2": ("gemma2.attention.scale",),
    "phi3_window": ("phi3.attention.sliding_window",),
    "llama_yarn": ("llama.rope.scaling.yarn_beta_fast",),
    "qwen3_yarn": tuple(f"qwen3.rope.scaling.yarn_{name}" for name in ("beta_fast", "beta_slow", "attn_factor")),
}
REASONS = {name: f"does not read {', '.join(keys)}" for name, keys in UNREAD.items()}
