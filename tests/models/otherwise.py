"""Where llama.cpp computes other logits than transformers, whose logits ours are (test_families.py)."""

from __future__ import annotations

# Keys that our files have and that llama.cpp does not read for this architecture.
UNREAD = {
    "mistral_window": ("llama.attention.sliding_window",),
    "starcoder2": ("starcoder2.attention.sliding_window",),
    "gemma2": ("gemma2.attention.scale",),
    "phi3_window": ("phi3.attention.sliding_window",),
}
OTHERWISE = {
    **dict.fromkeys(("llama_yarn", "qwen3_yarn"), "other angles from position 1 on"),
    "phi3_longrope_short": "contexts are whole multiples of 256, which is beyond what short factors are for",
}
REASONS = {**{name: f"does not read {keys[0]}" for name, keys in UNREAD.items()}, **OTHERWISE}
