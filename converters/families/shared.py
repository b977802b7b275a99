"""What families have in common: keys by their usual names, rotary scaling, the order of heads."""

from __future__ import annotations

import math

import numpy as np

from ...formats.errors import UnsupportedError
from ..checkpoint import CheckpointError
from ..config import Config
from ..rows import Rows, array, computed, taken
from .family import Change, Keys, Split, Tensors

LAYERS, TOP = "model.layers.{i}.", "model."

# Decoder blocks as Llama has them; other families add to these names or replace some.
LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    f"{LAYERS}input_layernorm": "blk.{i}.attn_norm",
    f"{LAYERS}self_attn.q_proj": "blk.{i}.attn_q",
    f"{LAYERS}self_attn.k_proj": "blk.{i}.attn_k",
    f"{LAYERS}self_attn.v_proj": "blk.{i}.attn_v",
    f"{LAYERS}self_attn.o_proj": "blk.{i}.attn_output",
    f"{LAYERS}post_attention_layernorm": "blk.{i}.ffn_norm",
    f"{LAYERS}mlp.gate_proj": "blk.{i}.ffn_gate",
    f"{LAYERS}mlp.up_proj": "blk.{i}.ffn_up",
    f"{LAYERS}mlp.down_proj": "blk.{i}.ffn_down",
}
QK_NORM_NAMES = {
    f"{LAYERS}self_attn.q_norm": "blk.{i}.attn_q_norm",
    f"{LAYERS}self_attn.k_norm": "blk.{i}.attn_k_norm",
}

MAX_BASE = 1e12  # of rotation
ATTENTION = ("blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v", "blk.{i}.attn_output")


def attention_biases(c: Config) -> tuple[str, ...]:
    """See Family.biases: of the four matrices, where `attention_bias` says so."""
    return ATTENTION if c.flag("attention_bias", default=False) else ()


def halves(first: str, second: str) -> Split:
    """Two matrices of each expert, one above the other in [experts, 2 n, k], as two tensors [experts, n, k]."""

    def split(rows: Rows, c: Config) -> dict[str, Rows]:
        if len(rows.shape) != 3 or rows.shape[1] % 2:
            raise CheckpointError(f"its shape is {rows.shape}, not [experts, 2 n, k]", field=rows.origin)
        n_expert, n, k = rows.shape[0], rows.shape[1] // 2, rows.shape[2]
        upper = (2 * n * np.arange(n_expert)[:, None] + np.arange(n)).reshape(-1)
        shape = (n_expert, n, k)
        return {first: taken(rows, upper, shape), second: taken(rows, upper + n, shape)}

    return split


# Experts: one tensor for each matrix of each, or as transformers 5 has them, all in two.
EXPERT_NAMES = {
    f"{LAYERS}mlp.gate": "blk.{i}.ffn_gate_inp",
    f"{LAYERS}mlp.experts.{{e}}.gate_proj": "blk.{i}.ffn_gate_exps",
    f"{LAYERS}mlp.experts.{{e}}.up_proj": "blk.{i}.ffn_up_exps",
    f"{LAYERS}mlp.experts.{{e}}.down_proj": "blk.{i}.ffn_down_exps",
    f"{LAYERS}mlp.experts.down_proj": "blk.{i}.ffn_down_exps",
}
EXPERT_SPLITS = {f"{LAYERS}mlp.experts.gate_up_proj": halves("blk.{i}.ffn_gate_exps", "blk.{i}.ffn_up_exps")}


def head_dim(c: Config) -> int:
    n_head = c.count("num_attention_heads")
    return c.count("head_dim", default=c.count("hidden_size") // n_head)


def decoder_keys(c: Config, layer_norm_eps: str | None = None, rope: Config | None = None) -> Keys:
    """Sizes of a decoder with grouped-query attention, rotary positions and RMS norms.

    `layer_norm_eps` names the field with the epsilon of those whose norms are layer norms; `rope` says how it rotates,
    where that is not just `rope_parameters`.
    """
    norm, field = ("layer_norm", layer_norm_eps) if layer_norm_eps else ("layer_norm_rms", "rms_norm_eps")
    keys: Keys = {
        "block_count": c.count("num_hidden_layers", high=1 << 12),
        "context_length": c.count("max_position_embeddings", high=1 << 30),
        "embedding_length": c.count("hidden_size"),
        "feed_forward_length": c.count("intermediate_size"),
        "attention.head_count": c.count("num_attention_heads"),
        "attention.head_count_kv": c.count("num_key_value_heads", default=c.count("num_attention_heads")),
        f"attention.{norm}_epsilon": c.number(field, low=0.0, high=1.0),
        "vocab_size": c.count("vocab_size"),
    }
    if "head_dim" in c:
        keys |= {"attention.key_length": head_dim(c), "attention.value_length": head_dim(c)}
    return keys | _rope_keys(c, rope or rope_parameters(c))


def rope_parameters(c: Config) -> Config:
    """What config.json says about rotation: one object since transformers 5, two fields before.

    Where both are there, transformers takes nothing of the new one, not even its base.
    """
    return rotation(c, c.inner("rope_scaling" if c.fields.get("rope_scaling") else "rope_parameters"))


def rotation(c: Config, given: Config) -> Config:
    """An object about rotation with what may have an older name, or stand beside it."""
    fields = {"rope_type": given.fields.get("type", "default"), **given.fields}
    if "rope_theta" in c and "rope_theta" not in given:
        fields["rope_theta"] = c.number("rope_theta", low=1.0, high=MAX_BASE)
    return given.having(fields)


def _rope_keys(c: Config, rope: Config) -> Keys:
    """Base, rotated dims and scaling."""
    keys: Keys = {
        "rope.freq_base": rope.number("rope_theta", default=1e4, low=1.0, high=MAX_BASE),
        "rope.dimension_count": int(
            head_dim(c) * rope.number("partial_rotary_factor", default=_partial(c), low=0.0, high=1.0)
        ),
    }
    kind = rope.text("rope_type", "default")
    if kind not in _SCALINGS:
        raise UnsupportedError(f"{c.path}: rope scaling {kind!r} is not known; known are {', '.join(_SCALINGS)}")
    return keys | _SCALINGS[kind](c, rope)


def _partial(c: Config) -> float:
    return c.number("partial_rotary_factor", default=1.0, low=0.0, high=1.0)


def _plain(c: Config, rope: Config) -> Keys:
    return {}


def _linear(c: Config, rope: Config) -> Keys:
    return {"rope.scaling.type": "linear", "rope.scaling.factor": _factor(rope)}


def _yarn(c: Config, rope: Config) -> Keys:
    keys: Keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": _factor(rope)}
    keys["rope.scaling.original_context_length"] = _original(c, rope)
    for name, key in (
        ("extrapolation_factor", "yarn_ext_factor"), ("attention_factor", "yarn_attn_factor"),
        ("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow"),
    ):  # fmt: skip
        if name in rope:
            keys[f"rope.scaling.{key}"] = rope.number(name)
    rope.expect("truncate", True)
    if "attention_factor" not in rope and rope.fields.get("mscale") and rope.fields.get("mscale_all_dim"):
        rope.expect("mscale", rope.fields["mscale_all_dim"])  # then they cancel out
        keys["rope.scaling.yarn_attn_factor"] = 1.0
    return keys


def _longrope(c: Config, rope: Config) -> Keys:
    """Phi 3: factors are tensors (`rope_factors`), and attention is scaled with the growth of the context."""
    original = _original(c, rope)
    growth = c.count("max_position_embeddings", high=1 << 30) / original
    magnitude = math.sqrt(1 + math.log(growth) / math.log(original)) if growth > 1 else 1.0
    if "attention_factor" in rope:
        magnitude = rope.number("attention_factor", low=1e-3, high=1e6)
    return {
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": magnitude,
    }


_SCALINGS = {
    "default": _plain, "none": _plain, "llama3": _plain, "linear": _linear, "yarn": _yarn, "longrope": _longrope,
    "su": _longrope,
}  # fmt: skip


def _factor(rope: Config) -> float:
    return rope.number("factor", low=1e-3, high=1e6)


def _original(c: Config, rope: Config) -> int:
    place = rope if "original_max_position_embeddings" in rope else c
    return place.count(
        "original_max_position_embeddings", "max_position_embeddings", low=2, high=1 << 30
    )


def rope_factors(c: Config, rope: Config | None = None) -> Tensors:
    """Tensors of factors by which frequencies are divided: of Llama 3, and longrope. `rope` as for `decoder_keys`."""
    rope = rope or rope_parameters(c)
    kind, origin = rope.text("rope_type", "default"), f"{c.path}: rope_scaling"
    if kind == "llama3":
        return {"rope_freqs.weight": array(_llama3_factors(c, rope), origin)}
    if kind not in ("longrope", "su"):
        return {}
    half = _rope_keys(c, rope)["rope.dimension_count"] // 2
    return {
        f"rope_factors_{which}.weight": array(np.array(rope.numbers(f"{which}_factor", half), np.float32), origin)
        for which in ("long", "short")
    }


def _llama3_factors(c: Config, rope: Config) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Slow pairs are divided by the factor, fast ones not; between them is a ramp."""
    keys = _rope_keys(c, rope)
    n_rot, base = int(keys["rope.dimension_count"]), float(keys["rope.freq_base"])
    low, high = rope.number("low_freq_factor", default=1.0), rope.number("high_freq_factor", default=4.0)
    if not 0 < low < high:
        raise rope.refuse("high_freq_factor", high, f"more than low_freq_factor, {low:g}")
    context = rope.count("original_max_position_embeddings", default=8192, high=1 << 30)
    turns = context * base ** -(np.arange(0, n_rot, 2) / n_rot) / (2 * math.pi)  # within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / _factor(rope) + smooth)).astype(np.float32)


def regrouped(heads: str, parts: int, axes: tuple[int, int]) -> Change:
    """Rows that are [heads, parts, rest], with two of these axes exchanged.

    `heads` is the field of config.json that counts the heads of this matrix.
    """

    def change(rows: Rows, c: Config) -> Rows:
        n_head = c.count(heads, "num_attention_heads")
        n = rows.shape[0]
        if n % (parts * n_head):
            raise c.refuse(heads, n_head, f"a number that divides the {n} rows of {rows.origin}")
        return taken(rows, np.arange(n).reshape(n_head, parts, -1).swapaxes(*axes).reshape(-1))

    return change


def interleaved(heads: str) -> Change:
    """Rows of each head from halves, as Hugging Face has them, to neighbouring pairs, as llama files have them."""
    return regrouped(heads, 2, (1, 2))


def plus_one(rows: Rows, c: Config) -> Rows:
    """Norms that multiply with 1 + weight become plain ones."""
    return computed(rows, lambda x: x + np.float32(1))
