"""Mutated models: well-formed GGUF files that lie about themselves, and the same with broken bytes.

`mutate` mostly produces files that the reader refuses. These get past it: the change is made to the content (a key, a
count, a list of tokens, a shape), the file is written anew around it, and what must hold is the model builder, the
tokenizer and the lowering. Every mutation is a function of (seed, index) alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..builders import CASES, Case, to_gguf
from ..tokenize.vocabularies import bpe_metadata, spm_metadata
from .mutate import NUMBERS, mutate_bytes
from .raw import ARR, BOOL, F32, I32, STR, U32, U64, Raw

FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e-6, 0.5, 1.0, 2.0, 1e6, 3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "\0", "llama", "bert", "t5", "rwkv", "gemma3", "yarn", "longrope", "\x1b[2J", "a" * 5000, b"\xff\xfe")
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 20: (32, 18), 30: (1, 2)}  # id -> block
TYPES = (*BLOCKS, 16, 24, 26, 39, 99)

Value = tuple[int, Any]  # type and value; of an array (ARR, (element type, values))


@dataclass
class Content:
    """What a file says: metadata, and (dimensions in file order, type) of each tensor. All data are ones."""

    metadata: dict[str, Value]
    tensors: dict[str, tuple[list[int], int]]

    def copy(self) -> Content:
        lists = {k: (t, (v[0], list(v[1]))) if t == ARR else (t, v) for k, (t, v) in self.metadata.items()}
        return Content(lists, {name: (list(ne), type_) for name, (ne, type_) in self.tensors.items()})

    def raw(self) -> Raw:
        """The file. Offsets are those the reader expects, as long as there are such."""
        file = Raw().header(len(self.tensors), len(self.metadata))
        for key, (type_, value) in self.metadata.items():
            file.array(key, *value) if type_ == ARR else file.kv(key, type_, value)
        end = 0
        for name, (ne, type_) in self.tensors.items():
            file.tensor(name, ne, type_, end % (1 << 64))
            end += -(-_n_bytes(ne, type_) // 32) * 32
        return file.pad().put("data", "data", b"\0\0\x80\x3f" * (min(end, 1 << 20) // 4))  # 1.0: a valid rope factor


def _n_bytes(ne: list[int], type_: int) -> int:
    per_block, n_bytes = BLOCKS.get(type_, (1, 1))
    n = 1
    for dimension in ne:
        n *= dimension
    return n // per_block * n_bytes


@cache
def models() -> tuple[Content, ...]:
    """A valid model of every family, with tokenizers of both common kinds."""
    small = {"vocab_size": 260, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    names = ("llama", "llama_yarn", "mixtral", "qwen2", "qwen3", "gemma3", "phi3_longrope_long")
    cases = [Case(name, {**CASES[name].config, **small, **heads, **_exceptions(name)}) for name in names]
    gpt2 = {"vocab_size": 260, "n_positions": 64, "n_embd": 32, "n_inner": 64, "n_layer": 1, "n_head": 4}
    cases.append(Case("gpt2", {**CASES["gpt2"].config, **gpt2}))
    return tuple(_content(case, spm=i % 2 == 1) for i, case in enumerate(cases))


def _exceptions(name: str) -> dict[str, Any]:
    if name == "phi3_longrope_long":
        factors = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [1.0, 3.0, 5.0]}
        return {"rope_scaling": {"rope_type": "longrope", **factors}}
    return {"num_hidden_layers": 6} if name == "gemma3" else {}


def _content(case: Case, *, spm: bool) -> Content:
    vocabulary = spm_metadata() if spm else bpe_metadata()
    n_vocab = len(vocabulary["tokenizer.ggml.tokens"])
    metadata, tensors = to_gguf(Case(case.name, {**case.config, "vocab_size": n_vocab}))
    shapes = {name: list(array.shape[::-1]) for name, array in tensors.items()}
    types = {name: 8 if len(ne) > 1 and ne[0] % 32 == 0 else 0 for name, ne in shapes.items()}
    return Content(
        {key: _typed(value) for key, value in {**metadata, **vocabulary}.items()},
        {name: (ne, types[name]) for name, ne in shapes.items()},
    )


def _typed(value: Any) -> Value:
    if isinstance(value, list | tuple | np.ndarray):
        items = list(value)
        return ARR, (STR if isinstance(items[0], str) else F32 if isinstance(items[0], float) else I32, items)
    kinds = {bool: BOOL, int: U32, str: STR}
    return kinds.get(type(value), F32), value


def mutate_model(seed: int, index: int) -> bytes:
    """The mutated model number `index`: one to three changes of content, or for every fourth file of bytes."""
    rng = random.Random(f"model {seed}:{index}")
    content = rng.choice(models()).copy()
    if index % 4 == 3:
        return mutate_bytes(rng, content.raw())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_MUTATIONS)(rng, content)
    return content.raw().done()


def _change_value(rng: random.Random, content: Content) -> None:
    key = rng.choice(list(content.metadata))
    type_, value = content.metadata[key]
    if type_ == ARR:
        _change_list(rng, value[1], value[0])
    elif type_ == STR:
        content.metadata[key] = STR, rng.choice(TEXTS)
    elif type_ == F32:
        content.metadata[key] = F32, rng.choice((*FLOATS, value * 1.5))
    elif type_ == BOOL:
        content.metadata[key] = BOOL, not value
    else:
        near = max(0, value + rng.choice((-32, -2, -1, 1, 2, 32)))
        number = rng.choice((near, value * 2, value // 2, rng.choice(NUMBERS)))
        number %= 1 << 64
        content.metadata[key] = (U32 if number < 1 << 32 else U64), number


def _change_list(rng: random.Random, values: list[Any], type_: int) -> None:
    """Shorter, longer, empty, in another order, or with another element."""
    what = rng.randrange(5)
    if what == 0:
        del values[rng.randrange(len(values) + 1) :]
    elif what == 1:
        values += values[: rng.randrange(len(values) + 1)] or values
    elif what == 2:
        rng.shuffle(values)
    elif what == 3:
        values.clear()
    elif values:
        other = {STR: TEXTS, F32: FLOATS}.get(type_, (-(1 << 31), -1, 0, 7, 255, 256, (1 << 31) - 1))
        values[rng.randrange(len(values))] = rng.choice((*other, rng.choice(values)))


def _change_type(rng: random.Random, content: Content) -> None:
    key = rng.choice(list(content.metadata))
    new: list[Value] = [(U32, 1), (U64, 1 << 40), (I32, -1), (F32, 1.0), (BOOL, 1), (STR, "1"), (ARR, (I32, [1, 2]))]
    content.metadata[key] = rng.choice([*new, (ARR, (STR, [])), (ARR, (F32, [float("nan")] * 3))])


def _drop_key(rng: random.Random, content: Content) -> None:
    del content.metadata[rng.choice(list(content.metadata))]


def _swap_values(rng: random.Random, content: Content) -> None:
    a, b = rng.sample(list(content.metadata), 2)
    content.metadata[a], content.metadata[b] = content.metadata[b], content.metadata[a]


def _drop_tensor(rng: random.Random, content: Content) -> None:
    del content.tensors[rng.choice(list(content.tensors))]


def _rename_tensor(rng: random.Random, content: Content) -> None:
    name = rng.choice(list(content.tensors))
    content.tensors[rng.choice((name + "x", "blk.7.ffn_up.weight", "output.weight"))] = content.tensors.pop(name)


def _change_shape(rng: random.Random, content: Content) -> None:
    ne, _ = content.tensors[rng.choice(list(content.tensors))]
    what, i = rng.randrange(4), rng.randrange(len(ne))
    if what == 0:
        ne.reverse()
    elif what == 1:
        ne.append(rng.choice((1, 2)))
    elif what == 2:
        ne[i] = rng.choice((0, 1, ne[i] + 1, max(0, ne[i] - 1), ne[i] * 2, ne[i] + 32))
    else:
        ne[i] = rng.choice(NUMBERS)


def _change_tensor_type(rng: random.Random, content: Content) -> None:
    name = rng.choice(list(content.tensors))
    content.tensors[name] = content.tensors[name][0], rng.choice(TYPES)


_MUTATIONS: list[Callable[[random.Random, Content], None]] = [
    *[_change_value] * 5,
    _change_type,
    _drop_key,
    _swap_values,
    _drop_tensor,
    _rename_tensor,
    _change_shape,
    _change_tensor_type,
]
