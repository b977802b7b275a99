"""Llama-shaped models with random weights, in any mix of types: for speed, which does not depend on what weights say.

    python -m benchmarks.synthetic Q4_0 Q4_K_M        # writes them and prints where

They load in Halfbyte and in llama.cpp. A file is written once and kept in the cache folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType, GGUFWriter, ValueType
from numpy.typing import NDArray

from tests.builders_quants import random_blocks

from .common import cache_dir, give_up

REVISION = 1  # part of the file name: raise it when what is written changes
TILE_ROWS = 64  # random rows that are made; a tensor repeats them
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # kinds of tokens in a GGUF vocabulary


@dataclass(frozen=True)
class Shape:
    """Dimensions of a Llama model."""

    d_model: int
    d_ff: int
    n_layer: int
    n_head: int
    n_head_kv: int
    vocab_size: int
    context: int = 2048
    rms_eps: float = 1e-5

    @property
    def d_kv(self) -> int:
        return self.d_model // self.n_head * self.n_head_kv


SHAPES = {
    "1.1b": Shape(2048, 5632, 22, 32, 4, 32000),
    "tiny": Shape(256, 768, 2, 8, 2, 320, context=256),  # to try the scripts
}


@dataclass(frozen=True)
class Recipe:
    """Which type a tensor gets, as llama.cpp's quantizer decides for this shape (no importance matrix)."""

    default: GGMLType
    output: GGMLType
    value_down: Callable[[int, int], GGMLType] | None = None  # attn_v and ffn_down of layer i of n

    def type_of(self, name: str, layer: int, n_layer: int) -> GGMLType:
        if name.endswith("norm.weight"):
            return GGMLType.F32
        if name == "output.weight":
            return self.output
        if self.value_down is not None and name.endswith(("attn_v.weight", "ffn_down.weight")):
            return self.value_down(layer, n_layer)
        return self.default


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


def ensure(recipe: str, shape: str = "1.1b") -> Path:
    """The model file, written if it is not there yet."""
    if recipe not in RECIPES or shape not in SHAPES:
        give_up(f"no synthetic model {recipe!r} of shape {shape!r}; recipes: {', '.join(RECIPES)}; {', '.join(SHAPES)}")
    path = cache_dir() / f"synthetic-{shape}-{recipe}-v{REVISION}.gguf"
    if not path.exists():
        write(path, SHAPES[shape], RECIPES[recipe])
    return path


def write(path: Path, shape: Shape, recipe: Recipe) -> None:
    """Write the model: a minute's work would be the random numbers, so that rows repeat."""
    writer = GGUFWriter(path)
    for key, value in _metadata(shape, path.stem).items():
        writer.add(key, value)
    for key, (values, element) in _vocabulary(shape.vocab_size).items():
        writer.add(key, values, element)
    types: dict[str, tuple[tuple[int, ...], GGMLType]] = {}
    for layer, name, dims in _tensors(shape):
        types[name] = (dims, recipe.type_of(name, layer, shape.n_layer))
        writer.add_tensor(name, *types[name])
    tiles = _Tiles()
    with writer.open():
        for name, (dims, kind) in types.items():
            writer.write_tensor(name, tiles.tensor(kind, dims))


class _Tiles:
    """Random rows by type and length."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(20250)
        self._made: dict[tuple[GGMLType, int], NDArray[np.uint8]] = {}

    def tensor(self, kind: GGMLType, dims: tuple[int, ...]) -> Iterator[NDArray[Any]]:
        """Pieces of the tensor's bytes, in order."""
        if len(dims) == 1:
            yield self._rng.uniform(0.5, 1.5, dims).astype("<f4")
            return
        rows, cols = dims
        key = (kind, cols)
        if key not in self._made:
            self._made[key] = random_blocks(kind, (TILE_ROWS, cols), self._rng)
        for start in range(0, rows, TILE_ROWS):
            yield self._made[key][: min(TILE_ROWS, rows - start)]


def _metadata(shape: Shape, name: str) -> dict[str, object]:
    own = {
        "context_length": shape.context,
        "embedding_length": shape.d_model,
        "block_count": shape.n_layer,
        "feed_forward_length": shape.d_ff,
        "attention.head_count": shape.n_head,
        "attention.head_count_kv": shape.n_head_kv,
        "attention.layer_norm_rms_epsilon": shape.rms_eps,
        "rope.dimension_count": shape.d_model // shape.n_head,
        "rope.freq_base": 10000.0,
        "vocab_size": shape.vocab_size,
    }
    return {
        "general.architecture": "llama",
        "general.name": name,
        **{f"llama.{key}": value for key, value in own.items()},
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _vocabulary(size: int) -> dict[str, tuple[list[Any], ValueType]]:
    """The smallest vocabulary of the SentencePiece kind: control tokens, all bytes, and words nobody writes."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    rest = size - len(tokens)
    tokens += [f"\u2581word{number}" for number in range(rest)]
    kinds += [NORMAL] * rest
    scores = [0.0] * (size - rest) + [-float(number) for number in range(rest)]
    return {
        "tokenizer.ggml.tokens": (tokens, ValueType.STRING),
        "tokenizer.ggml.scores": (scores, ValueType.FLOAT32),
        "tokenizer.ggml.token_type": (kinds, ValueType.INT32),
    }


def _tensors(s: Shape) -> Iterator[tuple[int, str, tuple[int, ...]]]:
    """Layer, name and shape in NumPy order of every tensor, in file order."""
    yield 0, "token_embd.weight", (s.vocab_size, s.d_model)
    for i in range(s.n_layer):
        for name, dims in (
            ("attn_norm", (s.d_model,)),
            ("attn_q", (s.d_model, s.d_model)),
            ("attn_k", (s.d_kv, s.d_model)),
            ("attn_v", (s.d_kv, s.d_model)),
            ("attn_output", (s.d_model, s.d_model)),
            ("ffn_norm", (s.d_model,)),
            ("ffn_gate", (s.d_ff, s.d_model)),
            ("ffn_up", (s.d_ff, s.d_model)),
            ("ffn_down", (s.d_model, s.d_ff)),
        ):
            yield i, f"blk.{i}.{name}.weight", dims
    yield 0, "output_norm.weight", (s.d_model,)
    yield 0, "output.weight", (s.vocab_size, s.d_model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--shape", choices=list(SHAPES), default="1.1b")
    args = parser.parse_args()
    for recipe in args.recipes:
        path = ensure(recipe, args.shape)
        print(f"{recipe}: {path} ({path.stat().st_size / 1e6:,.0f} MB)")


if __name__ == "__main__":
    main()
