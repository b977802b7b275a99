"""Which tensor gets which type: the mixes of llama.cpp's quantizer, and models of a single type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from halfbyte.formats.gguf import GGMLType

from .shapes import Shape


@dataclass(frozen=True)
class Recipe:
    """Which type a tensor gets, as llama.cpp's quantizer decides for this shape (no importance matrix)."""

    default: GGMLType
    output: GGMLType
    value_down: Callable[[int, int], GGMLType] | None = None  # attn_v and ffn_down of layer i of n

    def type_of(self, name: str, layer: int, shape: Shape) -> GGMLType:
        """The type of a tensor of any width; `fitting` gives it to rows that are no multiple of its block."""
        n_layer = shape.n_layer
        if name.endswith(("norm.weight", "ffn_gate_inp.weight")):
            return GGMLType.F32
        if name == ("token_embd.weight" if shape.tied else "output.weight"):
            return self.output
        if self.value_down is not None and name.endswith(("attn_v.weight", "ffn_down.weight")):
            return self.value_down(layer, n_layer)
        return self.default


# What llama.cpp's quantizer takes for rows that are no multiple of 256.
SMALLER = {
    GGMLType.Q2_K: GGMLType.Q4_0,
    GGMLType.Q3_K: GGMLType.Q4_0,
    GGMLType.IQ4_XS: GGMLType.IQ4_NL,
    GGMLType.Q4_K: GGMLType.Q5_0,
    GGMLType.Q5_K: GGMLType.Q5_1,
    GGMLType.Q6_K: GGMLType.Q8_0,
}


def fitting(kind: GGMLType, cols: int) -> GGMLType:
    """The type, or one with smaller blocks when its own do not divide a row."""
    return SMALLER.get(kind, kind) if cols % kind.block_size else kind


def _medium(default: GGMLType) -> Recipe:
    """Q4_K_M and Q5_K_M: the first and the last eighth of the layers, and every third between, get Q6_K."""

    def value_down(i: int, n: int) -> GGMLType:
        return GGMLType.Q6_K if i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2 else default

    return Recipe(default, GGMLType.Q6_K, value_down)


def _recipes() -> dict[str, Recipe]:
    own_output = ("F32", "F16", "BF16", "Q8_0")
    plain = (*own_output, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
    made = {name: Recipe(GGMLType[name], GGMLType[name] if name in own_output else GGMLType.Q6_K) for name in plain}
    # every tensor of one type: not a mix that is published, but what shows one kernel
    pure = ("Q2_K", "Q3_K", "Q4_K", "Q5_K")
    made |= {name: Recipe(GGMLType[name], GGMLType.Q6_K) for name in pure}
    return made | {f"{name}_M": _medium(GGMLType[name]) for name in ("Q4_K", "Q5_K")}


RECIPES = _recipes()
