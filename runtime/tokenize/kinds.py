"""The kinds of tokenizer (`tokenizer.ggml.model`) and what each assumes when the file is silent.

The numbers are the conventions of the formats' first models (LLaMA, BERT, T5, PLaMo-2): old files leave them out.
Byte-level BPE has no convention, so its ids come from the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Kind:
    """special: default ids. byte_tokens: <0xNN> tokens stand for bytes. pre: a fixed pre-tokenizer name."""

    name: str
    special: Mapping[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = False
    has_merges: bool = False
    byte_tokens: bool = False
    pre: str | None = None


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("llama", {"bos": 1, "eos": 2, "unk": 0}, add_bos=True, add_space_prefix=True, byte_tokens=True),
        Kind("gpt2", has_merges=True),
        Kind("gemma4", has_merges=True, byte_tokens=True, pre="gemma4"),
        Kind("whitespace", has_merges=True),
        Kind("hybriddna", has_merges=True),
        Kind("bert", {"bos": 101, "unk": 100, "sep": 102, "pad": 0, "mask": 103}, add_bos=True),
        Kind("t5", {"eos": 1, "unk": 2, "pad": 0}, add_eos=True, byte_tokens=True),
        Kind("rwkv"),
        Kind("plamo2", {"bos": 1, "eos": 2, "unk": 0, "pad": 3}, byte_tokens=True),
    )
}
