"""Llama-shaped models with random weights, in any mix of types: for speed, which does not depend on what weights say.

    python -m benchmarks.synthetic Q4_0 Q4_K_M@7b     # writes them and prints where
    python -m benchmarks.synthetic Q8_0@1024x2816x12x16x4x32000

They load in Halfbyte and in llama.cpp. A file is written once and kept in the cache folder. The numbers are width,
feed-forward width, layers, heads, heads of keys and values, and vocabulary.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType, GGUFWriter, ValueType
from numpy.typing import NDArray

from tests.builders_quants import random_blocks

from .common import cache_dir, give_up, note
from .recipes import RECIPES, Recipe, fitting
from .shapes import DEFAULT_SHAPE, FIRST_TOKENS, SHAPES, Shape, shape_of

REVISION = 1  # part of the file name: raise it when what is written changes
TILE_ROWS = 64  # random rows that are made; a tensor repeats them
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # kinds of tokens in a GGUF vocabulary


def ensure(wanted: str) -> Path:
    """The file of RECIPE or RECIPE@SHAPE, written if it is not there yet."""
    recipe, _, shape = wanted.partition("@")
    shape = shape or DEFAULT_SHAPE
    if recipe not in RECIPES:
        give_up(f"no synthetic model {recipe!r}; there are {', '.join(RECIPES)}")
    path = cache_dir() / f"synthetic-{shape}-{recipe}-v{REVISION}.gguf"
    if not path.exists():
        note(f"writing {path.name}")
        try:
            write(path, shape_of(shape), RECIPES[recipe])
        except ValueError as error:
            give_up(str(error))
    return path


def write(path: Path, shape: Shape, recipe: Recipe) -> None:
    """Write the model: a minute's work would be the random numbers, so that rows repeat."""
    writer = GGUFWriter(path)
    for key, value in metadata(shape, path.stem).items():
        writer.add(key, value)
    for key, (values, element) in vocabulary(shape.vocab_size).items():
        writer.add(key, values, element)
    types: dict[str, tuple[tuple[int, ...], GGMLType]] = {}
    for layer, name, dims in _tensors(shape):
        types[name] = (dims, fitting(recipe.type_of(name, layer, shape), dims[-1]))
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
        rows, cols = math.prod(dims[:-1]), dims[-1]
        key = (kind, cols)
        if key not in self._made:
            self._made[key] = random_blocks(kind, (TILE_ROWS, cols), self._rng)
        for start in range(0, rows, TILE_ROWS):
            yield self._made[key][: min(TILE_ROWS, rows - start)]


def metadata(shape: Shape, name: str) -> dict[str, object]:
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
        **({"expert_count": shape.n_expert, "expert_used_count": 2} if shape.n_expert else {}),
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


def vocabulary(size: int) -> dict[str, tuple[list[Any], ValueType]]:
    """The smallest vocabulary of the SentencePiece kind: control tokens, all bytes, and words nobody writes."""
    tokens = list(FIRST_TOKENS)
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
            *_feed_forward(s),
        ):
            yield i, f"blk.{i}.{name}.weight", dims
    yield 0, "output_norm.weight", (s.d_model,)
    if not s.tied:
        yield 0, "output.weight", (s.vocab_size, s.d_model)


def _feed_forward(s: Shape) -> list[tuple[str, tuple[int, ...]]]:
    shapes = {"gate": (s.d_ff, s.d_model), "up": (s.d_ff, s.d_model), "down": (s.d_model, s.d_ff)}
    if not s.n_expert:
        return [(f"ffn_{name}", dims) for name, dims in shapes.items()]
    experts = [(f"ffn_{name}_exps", (s.n_expert, *dims)) for name, dims in shapes.items()]
    return [("ffn_gate_inp", (s.n_expert, s.d_model)), *experts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = f"{', '.join(RECIPES)}; {', '.join(SHAPES)}"
    parser.add_argument("models", nargs="+", metavar="RECIPE[@SHAPE]", help=known)
    for recipe in parser.parse_args().models:
        path = ensure(recipe)
        print(f"{recipe}: {path} ({path.stat().st_size / 1e6:,.0f} MB)")


if __name__ == "__main__":
    main()
