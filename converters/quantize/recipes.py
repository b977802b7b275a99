"""What each tensor of a model becomes under a recipe such as Q4_K_M: llama.cpp's rules, as one table.

A recipe names a type for all matrices, and exceptions for kinds of tensors that suffer more than others. An exception
is a list of (type, condition): the first condition that holds decides. Source: llama-quant.cpp of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ...formats.gguf.types import GGMLType as T


class Kind(Enum):
    """Kinds of tensors that recipes tell apart."""

    EMBEDDING = auto()
    OUTPUT = auto()
    QUERY = auto()
    KEY = auto()
    VALUE = auto()  # and what holds it: attn_qkv, attn_kv_b
    ATTENTION_OUTPUT = auto()
    GATE = auto()
    UP = auto()
    DOWN = auto()
    OTHER = auto()


FEED_FORWARD = frozenset({Kind.GATE, Kind.UP, Kind.DOWN})


@dataclass(frozen=True)
class Place:
    """A tensor's place: the how manyeth of how many of its kind, and what its model is like."""

    layer: int
    layers: int
    heads_per_kv: int  # query heads that share a key/value head
    experts: int
    has_importance: bool
    is_falcon: bool

    def is_among_first(self, part: int) -> bool:
        """In the first 1 / part of the layers."""
        return self.layer < self.layers // part


Condition = Callable[[Place], bool]
Rule = tuple[T, Condition]
K = Kind


@dataclass(frozen=True)
class Recipe:
    """`file_type` is what general.file_type says, or None; `plain` the type of matrices without an exception."""

    file_type: int | None
    plain: T
    rules: Mapping[Kind, Sequence[Rule]] = field(default_factory=dict)
    is_tiny: bool = False  # one of the recipes below 3 bits, which have rules of their own for experts and embeddings
    linears_only: bool = False  # embeddings and the output keep the type they have, or become F16 if that is F32
    needs_importance: frozenset[T] = frozenset()  # types that are of no use without one, beyond ALWAYS_NEED

    def type_of(self, kind: Kind, place: Place) -> T:
        """By the rules alone."""
        return next((type_ for type_, holds in self.rules.get(kind, ()) if holds(place)), self.plain)


def always(_: Place) -> bool:
    return True


def shares_keys(p: Place) -> bool:
    """Four or more query heads a key/value head: its matrices are small, and everything depends on them."""
    return p.heads_per_kv >= 4


def shares_keys_or_experts(p: Place) -> bool:
    return shares_keys(p) or p.experts >= 4


def more_bits(p: Place) -> bool:
    """The first and the last eighth, and every third layer between."""
    eighth = p.layers // 8
    return p.layer < eighth or p.layer >= 7 * p.layers // 8 or (p.layer - eighth) % 3 == 2


def first_eighth(p: Place) -> bool:
    return p.is_among_first(8)


def middle(p: Place) -> bool:
    return p.layers // 8 <= p.layer < 7 * p.layers // 8


def eight_experts(p: Place) -> bool:
    return p.experts == 8


def not_eight_experts(p: Place) -> bool:
    return p.experts != 8


def with_importance(p: Place) -> bool:
    return p.has_importance


def without_importance(p: Place) -> bool:
    return not p.has_importance


def falcon(p: Place) -> bool:
    return p.is_falcon


def both(*conditions: Condition) -> Condition:
    return lambda p: all(condition(p) for condition in conditions)


def fewer_than(layers: int) -> Condition:
    return lambda p: p.layer < layers


def _not(condition: Condition) -> Condition:
    return lambda p: not condition(p)


_EXPERT_OUTPUT: list[Rule] = [(T.Q5_K, both(_not(falcon), eight_experts))]
_FIRST_EIGHTH_UNWEIGHTED: list[Rule] = [(T.Q5_K, both(first_eighth, without_importance))]
_IQ4: dict[Kind, Sequence[Rule]] = {
    K.VALUE: [(T.Q5_K, shares_keys)], K.DOWN: _FIRST_EIGHTH_UNWEIGHTED, K.ATTENTION_OUTPUT: _EXPERT_OUTPUT,
}  # fmt: skip


def _output(type_: T) -> list[Rule]:
    """The output of attention, in models that are no mixtures of eight."""
    return [*_EXPERT_OUTPUT, (type_, both(_not(falcon), not_eight_experts))]


def _tiny(value: T, first: T, attention_output: T | None) -> dict[Kind, Sequence[Rule]]:
    others: list[Rule] = [] if attention_output is None else [(attention_output, always)]
    return {
        K.VALUE: [(T.Q4_K, shares_keys_or_experts), (value, always)],
        K.KEY: [(T.Q4_K, eight_experts)],
        K.DOWN: [(first, first_eighth)],
        K.ATTENTION_OUTPUT: [(T.Q5_K, eight_experts), *others],
    }


RECIPES: dict[str, Recipe] = {
    "F32": Recipe(0, T.F32),
    "F16": Recipe(1, T.F16),
    "BF16": Recipe(32, T.BF16),
    "Q8_0": Recipe(7, T.Q8_0),
    "Q4_0": Recipe(2, T.Q4_0, {K.DOWN: [(T.Q4_1, both(first_eighth, with_importance))]}),
    "Q4_1": Recipe(3, T.Q4_1),
    "Q5_0": Recipe(8, T.Q5_0, {K.DOWN: [(T.Q5_1, both(first_eighth, with_importance))]}),
    "Q5_1": Recipe(9, T.Q5_1),
    "Q2_K": Recipe(10, T.Q2_K, {
        K.VALUE: [(T.Q4_K, shares_keys), (T.Q3_K, always)], K.DOWN: [(T.Q3_K, always)],
        K.ATTENTION_OUTPUT: _output(T.Q3_K),
    }),
    "Q2_K_S": Recipe(21, T.Q2_K, {
        K.VALUE: [(T.Q4_K, shares_keys)], K.DOWN: [(T.Q4_K, first_eighth)],
    }, needs_importance=frozenset({T.Q2_K})),
    "Q3_K_S": Recipe(11, T.Q3_K, {K.ATTENTION_OUTPUT: _EXPERT_OUTPUT}),
    "Q3_K_M": Recipe(12, T.Q3_K, {
        K.VALUE: [(T.Q5_K, fewer_than(2)), (T.Q4_K, always)],
        K.DOWN: [
            (T.Q5_K, lambda p: p.is_among_first(16)),
            (T.Q4_K, lambda p: not p.is_falcon or more_bits(p)),
        ],
        K.ATTENTION_OUTPUT: _output(T.Q4_K),
    }),
    "Q3_K_L": Recipe(13, T.Q3_K, {
        K.VALUE: [(T.Q5_K, always)], K.DOWN: [(T.Q4_K, falcon), (T.Q5_K, always)],
        K.ATTENTION_OUTPUT: [(T.Q4_K, falcon), (T.Q5_K, not_eight_experts)],
    }),
    "Q4_K_S": Recipe(14, T.Q4_K, {
        K.VALUE: [(T.Q5_K, fewer_than(4))], K.DOWN: [(T.Q5_K, both(_not(falcon), first_eighth))],
        K.ATTENTION_OUTPUT: _EXPERT_OUTPUT,
    }),
    "Q4_K_M": Recipe(15, T.Q4_K, {
        K.VALUE: [(T.Q6_K, more_bits)],
        K.DOWN: [
            (T.Q6_K, lambda p: p.is_among_first(16) if p.is_falcon else more_bits(p)),
            (T.Q5_K, both(falcon, more_bits)),
        ],
        K.ATTENTION_OUTPUT: _EXPERT_OUTPUT,
    }),
    "Q5_K_S": Recipe(16, T.Q5_K),
    "Q5_K_M": Recipe(17, T.Q5_K, {K.VALUE: [(T.Q6_K, more_bits)], K.DOWN: [(T.Q6_K, more_bits)]}),
    "Q6_K": Recipe(18, T.Q6_K),
    "IQ4_NL": Recipe(25, T.IQ4_NL, _IQ4),
    "IQ4_XS": Recipe(30, T.IQ4_XS, _IQ4),
    "IQ3_XXS": Recipe(23, T.IQ3_XXS, {
        K.VALUE: [(T.Q4_K, shares_keys), (T.IQ3_S, without_importance), (T.IQ3_XXS, always)],
        K.KEY: [(T.IQ2_S, always)], K.QUERY: [(T.IQ2_S, always)],
        K.DOWN: [(T.Q4_K, both(without_importance, first_eighth)), (T.Q3_K, without_importance)],
        K.ATTENTION_OUTPUT: _output(T.IQ3_S),
    }),
    "IQ3_XS": Recipe(22, T.IQ3_S, {
        K.VALUE: [(T.Q4_K, shares_keys)], K.KEY: [(T.IQ3_XXS, always)], K.QUERY: [(T.IQ3_XXS, always)],
        K.GATE: [(T.IQ3_XXS, middle)], K.UP: [(T.IQ3_XXS, middle)], K.ATTENTION_OUTPUT: _EXPERT_OUTPUT,
    }),
    "IQ3_S": Recipe(26, T.IQ3_S, {K.VALUE: [(T.Q4_K, shares_keys)], K.ATTENTION_OUTPUT: _EXPERT_OUTPUT}),
    "IQ3_M": Recipe(27, T.IQ3_S, {
        K.VALUE: [(T.Q4_K, always)],
        K.DOWN: [(T.Q4_K, lambda p: first_eighth(p) or (eight_experts(p) and more_bits(p)))],
        K.ATTENTION_OUTPUT: _output(T.Q4_K),
    }),
    "IQ2_XXS": Recipe(19, T.IQ2_XXS, _tiny(T.Q2_K, T.Q2_K, None), is_tiny=True),
    "IQ2_XS": Recipe(20, T.IQ2_XS, _tiny(T.Q2_K, T.Q2_K, None), is_tiny=True),
    "IQ2_S": Recipe(28, T.IQ2_XS, _tiny(T.IQ3_S, T.IQ3_S, T.IQ3_S), is_tiny=True),
    "IQ2_M": Recipe(29, T.IQ2_S, _tiny(T.IQ3_S, T.IQ3_S, T.IQ3_S), is_tiny=True),
    "IQ1_S": Recipe(24, T.IQ1_S, _tiny(T.Q2_K, T.Q2_K, T.IQ2_XXS), is_tiny=True),
    "IQ1_M": Recipe(31, T.IQ1_M, _tiny(T.Q2_K, T.Q2_K, T.IQ2_XXS), is_tiny=True),
    "TQ1_0": Recipe(36, T.TQ1_0),
    "TQ2_0": Recipe(37, T.TQ2_0),
    "MXFP4_MOE": Recipe(38, T.MXFP4),
    "Q1_0": Recipe(40, T.Q1_0),
    "Q2_0": Recipe(41, T.Q2_0),
}  # fmt: skip

# What bitsandbytes does: every linear layer but the last one. Llama.cpp knows none of these types.
BITSANDBYTES = {t.name: Recipe(None, t, linears_only=True) for t in T if not t.on_disk}

SHORT_NAMES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# What the token embedding becomes where it is not the output matrix as well.
EMBEDDING: dict[str, T] = {
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"), T.Q2_K),
    **dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), T.IQ3_S),
    **dict.fromkeys(("TQ1_0", "TQ2_0", "Q2_0"), T.Q4_K),
}
OUTPUT_Q5_K = frozenset({"IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ2_S", "IQ2_M", "IQ1_M"})

# Of a row that is not whole blocks of a type, what takes its place; and where that does not fit either, F16.
FALLBACK: dict[T, T] = {
    **dict.fromkeys((T.IQ1_S, T.IQ1_M, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.IQ4_XS), T.IQ4_NL),
    **dict.fromkeys((T.Q2_0, T.Q2_K, T.Q3_K, T.TQ1_0, T.TQ2_0), T.Q4_0),
    T.Q4_K: T.Q5_0,
    T.Q5_K: T.Q5_1,
    T.Q6_K: T.Q8_0,
    **{recipe.plain: T.Q8_0 for recipe in BITSANDBYTES.values()},
}

# Types that are of no use for most tensors without an importance.
ENCODERS_NEED = frozenset({T.IQ1_S, T.IQ2_XXS, T.IQ2_XS})  # whose encoders refuse to go without
ALWAYS_NEED = frozenset({T.IQ3_XXS, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ1_M, T.IQ1_S})


def kind_of(name: str) -> Kind:
    """What a tensor is, by its name."""
    if name == "output.weight":
        return K.OUTPUT
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return K.EMBEDDING
    for part, kind in _PARTS.items():
        if part in name:
            return kind
    return K.OTHER


_PARTS = {
    "attn_qkv.weight": K.VALUE,
    "attn_kv_b.weight": K.VALUE,
    "attn_v.weight": K.VALUE,
    "attn_k.weight": K.KEY,
    "attn_q.weight": K.QUERY,
    "attn_output.weight": K.ATTENTION_OUTPUT,
    "ffn_up": K.UP,
    "ffn_gate": K.GATE,
    "ffn_down": K.DOWN,
}
