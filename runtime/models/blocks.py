"""Pieces that several families share, as named variants. Arithmetic is in ops/, names are GGUF's."""

from __future__ import annotations

from ...formats.errors import UnsupportedError
from ..graph.builder import GraphBuilder
from ..graph.ir import Value
from .hparams import Attention, Experts, Hparams
from .rope import Rope


def self_attention(
    g: GraphBuilder,
    x: Value,
    hp: Hparams,
    a: Attention,
    rope: Rope | None,
    *,
    qk_norm_eps: float | None = None,
    norm_all_heads: bool = False,
    causal: bool = True,
) -> Value:
    """Grouped-query attention from the normed input to the output projection.

    With `qk_norm_eps`, queries and keys are RMS-normed first: per head, or with `norm_all_heads` as whole rows. Without
    `rope`, positions enter elsewhere. Not `causal`, a token sees its whole text.
    """
    q, k, v = _project(g, x, a)
    if qk_norm_eps is not None:
        q = g.rms_norm(q, "attn_q_norm", qk_norm_eps, heads=1 if norm_all_heads else a.n_head)
        k = g.rms_norm(k, "attn_k_norm", qk_norm_eps, heads=1 if norm_all_heads else a.n_head_kv)
    if rope is not None:
        q, k = _rotate(g, q, "attn_q.rope", a.n_head, rope), _rotate(g, k, "attn_k.rope", a.n_head_kv, rope)
    out = g.attention(
        q,
        k,
        v,
        n_head=a.n_head,
        n_head_kv=a.n_head_kv,
        key_dim=a.key_dim,
        value_dim=a.value_dim,
        scale=a.scale,
        window=a.window,
        softcap=a.softcap,
        causal=causal,
    )
    return g.linear(out, "attn_output", hp.n_embd)


def swiglu(g: GraphBuilder, x: Value, hp: Hparams, act: str = "silu") -> Value:
    """down(act(gate(x)) * up(x)), from three tensors."""
    gate, up = g.linear(x, "ffn_gate", hp.n_ff), g.linear(x, "ffn_up", hp.n_ff)
    return g.linear(g.glu(gate, up, act), "ffn_down", hp.n_embd)


def fused_swiglu(g: GraphBuilder, x: Value, hp: Hparams) -> Value:
    """The same with gate and up packed into `ffn_up`, gate first."""
    gate, up = g.split_linear(x, "ffn_up", (hp.n_ff, hp.n_ff))
    return g.linear(g.glu(gate, up, "silu"), "ffn_down", hp.n_embd)


def mlp(g: GraphBuilder, x: Value, hp: Hparams, act: str) -> Value:
    """down(act(up(x)))."""
    return g.linear(g.activation(g.linear(x, "ffn_up", hp.n_ff), act), "ffn_down", hp.n_embd)


def moe_swiglu(g: GraphBuilder, x: Value, hp: Hparams, e: Experts, *, normalize: bool = True) -> Value:
    """A SwiGLU per expert. With `normalize`, the weights of the experts used add up to one."""
    if g.has("ffn_gate.0.weight"):
        raise UnsupportedError(
            f"{g.path}: each expert is a tensor of its own, a layout from before March 2024; "
            "convert the model again, or download a newer conversion"
        )
    logits = g.linear(x, "ffn_gate_inp", e.n_expert)
    ids, weights = g.moe_route(logits, n_used=e.n_used, normalize=normalize, scale=e.scale)
    gate = g.expert_linear(x, ids, "ffn_gate_exps", e.n_expert, e.n_ff)
    up = g.expert_linear(x, ids, "ffn_up_exps", e.n_expert, e.n_ff)
    down = g.expert_linear(g.glu(gate, up, "silu"), ids, "ffn_down_exps", e.n_expert, hp.n_embd)
    return g.expert_combine(down, weights)


def shared_expert(g: GraphBuilder, x: Value, hp: Hparams, n_ff: int) -> Value:
    """A SwiGLU that every token uses, `n_ff` wide, times a weight in (0, 1) that the token gives it."""
    gate, up = g.linear(x, "ffn_gate_shexp", n_ff), g.linear(x, "ffn_up_shexp", n_ff)
    down = g.linear(g.glu(gate, up, "silu"), "ffn_down_shexp", hp.n_embd)
    weight = g.activation(g.linear(x, "ffn_gate_inp_shexp", 1), "sigmoid")
    return g.expert_combine(down, weight)


def wanted_rows(g: GraphBuilder, hp: Hparams, layer: int, *values: Value) -> list[Value]:
    """Of the last block only the rows whose logits are wanted: after attention nobody needs the others."""
    return [g.take_rows(value) if layer == hp.n_layer - 1 else value for value in values]


def residual(g: GraphBuilder, hp: Hparams, layer: int, x: Value, update: Value) -> Value:
    """x + update, after attention, with `wanted_rows`."""
    return g.add(*wanted_rows(g, hp, layer, x, update))


def head(g: GraphBuilder, x: Value, hp: Hparams) -> Value:
    """Logits from the normed last rows, with the embedding itself where the file has no output tensor."""
    return g.linear(x, "output" if g.has("output.weight") else "token_embd", hp.n_vocab)


def _project(g: GraphBuilder, x: Value, a: Attention) -> list[Value]:
    sizes = (a.n_head * a.key_dim, a.n_head_kv * a.key_dim, a.n_head_kv * a.value_dim)
    if g.has("attn_qkv.weight"):
        return g.split_linear(x, "attn_qkv", sizes)
    return [g.linear(x, stem, n) for stem, n in zip(("attn_q", "attn_k", "attn_v"), sizes, strict=True)]


def _rotate(g: GraphBuilder, x: Value, name: str, n_head: int, r: Rope) -> Value:
    return g.rope(x, name, n_head=n_head, n_rot=r.n_rot, style=r.style, inv_freq=r.inv_freq, mscale=r.mscale)
