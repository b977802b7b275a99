"""GPT-2, whose matrices are stored transposed."""

from __future__ import annotations

from ..config import Config
from ..rows import Rows, transposed
from .family import Family, Keys

_LAYERS = "transformer.h.{i}."
_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    f"{_LAYERS}ln_1": "blk.{i}.attn_norm",
    f"{_LAYERS}attn.c_attn": "blk.{i}.attn_qkv",
    f"{_LAYERS}attn.c_proj": "blk.{i}.attn_output",
    f"{_LAYERS}ln_2": "blk.{i}.ffn_norm",
    f"{_LAYERS}mlp.c_fc": "blk.{i}.ffn_up",
    f"{_LAYERS}mlp.c_proj": "blk.{i}.ffn_down",
}
_MATRICES = [target for source, target in _NAMES.items() if ".c_" in source]


def _keys(c: Config) -> Keys:
    c.expect("activation_function", "gelu_new", "gelu_pytorch_tanh")
    c.expect("scale_attn_weights", True)
    c.expect("scale_attn_by_inverse_layer_idx", False)
    c.expect("add_cross_attention", False)
    c.expect("tie_word_embeddings", True)
    n_embd = c.count("n_embd")
    return {
        "block_count": c.count("n_layer", high=1 << 12),
        "context_length": c.count("n_positions", "n_ctx", high=1 << 30),
        "embedding_length": n_embd,
        "feed_forward_length": c.count("n_inner", default=4 * n_embd),
        "attention.head_count": c.count("n_head"),
        "attention.layer_norm_epsilon": c.number("layer_norm_epsilon", low=0.0, high=1.0),
    }


def _turned(rows: Rows, c: Config) -> Rows:
    return transposed(rows) if len(rows.shape) == 2 else rows


GPT2 = Family(
    "gpt2",
    keys=_keys,
    # Some checkpoints leave the first part of the names out.
    names={**_NAMES, **{stem.removeprefix("transformer."): name for stem, name in _NAMES.items()}},
    changes=dict.fromkeys(_MATRICES, _turned),
    biases=lambda c: _MATRICES,
    is_tied=True,
    ignored=(r"\.attn\.bias$", r"\.attn\.masked_bias$"),  # causal masks
)
