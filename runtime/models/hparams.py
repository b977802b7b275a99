"""Hyperparameters: small frozen records, complete after construction. `None` means that a model lacks the feature."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...formats.errors import ModelFileError, UnsupportedError
from .config import MAX_CONTEXT, Config

MAX_HEADS = 1 << 12
MAX_HEAD_DIM = 1 << 13
MAX_EXPERTS = 1 << 12
POOLINGS = ("none", "mean", "cls", "last")  # by llama.cpp's numbers
RANK = len(POOLINGS)  # a classifier over the first token


@dataclass(frozen=True)
class Attention:
    """Heads of one layer. `window` = 0 means that a token sees all earlier ones, `softcap` = 0 that scores are free."""

    n_head: int
    n_head_kv: int
    key_dim: int
    value_dim: int
    scale: float
    window: int = 0
    softcap: float = 0.0


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: `n_used` of `n_expert` feed-forward networks per token, each `n_ff` wide."""

    n_expert: int
    n_used: int
    n_ff: int
    scale: float


@dataclass(frozen=True)
class Hparams:
    """What all families share. `max_context` is the most positions the model can represent, None without a limit.

    `pooling` is how an encoder makes one vector of a text, None for a model that predicts tokens.
    """

    n_layer: int
    n_embd: int
    n_ff: int
    n_vocab: int
    context_length: int
    eps: float
    attention: Attention
    experts: Experts | None = None
    max_context: int | None = None
    pooling: str | None = None


def read_hparams(
    c: Config, *, eps_key: str = "attention.layer_norm_rms_epsilon", experts: bool = False, encoder: bool = False
) -> Hparams:
    """Read and check what all families share. Only a family with `experts` may have them.

    An `encoder` sees whole texts, and its files may say how one vector is made of a text.
    """
    n_embd, n_ff = c.count("embedding_length"), c.count("feed_forward_length")
    _expect_plain(c, causal=not encoder)
    mixture = _read_experts(c, n_ff) if experts else None
    if not experts:
        c.scope.expect("expert_count", 0)
        c.scope.expect("expert_used_count", 0)
    return Hparams(
        # Each block has tensors of its own: a count beyond that of all tensors is a lie that must not be looped over.
        n_layer=c.count("block_count", maximum=max(1, len(c.file.tensors))),
        n_embd=n_embd,
        n_ff=n_ff,
        n_vocab=_vocabulary(c),
        context_length=c.count("context_length", MAX_CONTEXT),
        eps=c.number(eps_key, low=1e-20, high=1.0),
        attention=_read_attention(c, n_embd),
        experts=mixture,
        pooling=_read_pooling(c) if encoder else None,
    )


def require_experts(c: Config, hp: Hparams) -> Experts:
    """The experts of a family that is nothing without them."""
    if hp.experts is None:
        raise c.refuse("expert_count", 0, f"1 to {MAX_EXPERTS}")
    return hp.experts


def _read_attention(c: Config, n_embd: int) -> Attention:
    n_head = c.count("attention.head_count", MAX_HEADS)
    n_head_kv = c.count("attention.head_count_kv", MAX_HEADS, default=n_head)
    if n_head % n_head_kv:
        raise c.refuse("attention.head_count_kv", n_head_kv, f"a divisor of the {n_head} heads")
    explicit = "attention.key_length" in c.scope and "attention.value_length" in c.scope
    if n_embd % n_head and not explicit:
        raise c.refuse("attention.head_count", n_head, f"a divisor of embedding_length, {n_embd}")
    key_dim = c.count("attention.key_length", MAX_HEAD_DIM, default=n_embd // n_head)
    value_dim = c.count("attention.value_length", MAX_HEAD_DIM, default=n_embd // n_head)
    window = c.count("attention.sliding_window", MAX_CONTEXT, minimum=0, default=0)
    scale = c.number("attention.scale", 1 / math.sqrt(key_dim))
    return Attention(n_head, n_head_kv, key_dim, value_dim, scale, window)


def _read_experts(c: Config, n_ff: int) -> Experts | None:
    n_expert = c.count("expert_count", MAX_EXPERTS, minimum=0, default=0)
    n_used = c.count("expert_used_count", MAX_EXPERTS, minimum=0, default=0)
    if n_expert == 0 and n_used == 0:
        return None
    if not 1 <= n_used <= n_expert:
        raise c.refuse("expert_used_count", n_used, f"1 to expert_count, {n_expert}")
    width = c.count("expert_feed_forward_length", default=n_ff)
    return Experts(n_expert, n_used, width, c.number("expert_weights_scale", 1.0))


def _read_pooling(c: Config) -> str:
    number = c.count("pooling_type", maximum=RANK, minimum=0, default=0)
    if number == RANK:
        raise UnsupportedError(f"{c.path}: the model ranks pairs of texts, which this version cannot do")
    return POOLINGS[number]


def _vocabulary(c: Config) -> int:
    """Rows of the embedding, which must be the number of tokens, where the file says how many there are."""
    embedding = c.file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError("tensor is missing", path=c.path, field="token_embd.weight")
    rows = embedding.shape[0]
    stated = c.scope.optional("vocab_size", int, rows)
    if "tokenizer.ggml.tokens" in c.file.metadata:  # llama.cpp believes the token list, fine-tunes forget the other key
        stated = c.file.metadata.count("tokenizer.ggml.tokens")
    if not 1 <= rows <= MAX_CONTEXT or rows != stated:
        raise ModelFileError(
            "the embedding has another number of rows than the vocabulary has tokens",
            path=c.path,
            field="token_embd.weight",
            got=rows,
            allowed=str(stated),
        )
    return rows


def _expect_plain(c: Config, *, causal: bool) -> None:
    """Refuse features that no family here has, and skip keys that mean nothing for inference."""
    c.scope.expect("attention.causal", causal)
    c.scope.expect("attention.max_alibi_bias", 0.0)
    c.scope.expect("attention.clamp_kqv", 0.0)
    if causal:
        c.scope.expect("pooling_type", 0)
    c.scope.ignore("tensor_data_layout", "rope.scaling.finetuned", "mm.tokens_per_image")
