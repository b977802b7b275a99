"""Files that lie: each is refused with a typed error that names the key or tensor, and no other exception escapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import ContextOverflow, ModelFileError, UnsupportedError
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.models import ModelSpec, build_model

from ..builders import CASES, Change, open_case, to_gguf, write


def build(case: str, change: Change, folder: Path, context: int | None = None) -> ModelSpec:
    return open_case(CASES[case], folder, context=context, change=change)


def sets(**values: Any) -> Change:
    """A change of metadata; `__` in a name stands for a dot."""
    return lambda metadata, tensors: metadata.update({k.replace("__", "."): v for k, v in values.items()})


def tensor(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A change of one tensor."""
    return lambda metadata, tensors: tensors.update({name: edit(tensors[name])})


def drops(name: str) -> Change:
    return lambda metadata, tensors: (metadata if name in metadata else tensors).__delitem__(name)


def poke(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.concatenate([array[:-1], np.array([value], np.float32)])


WRONG: dict[str, tuple[str, Change, str]] = {
    "no heads": ("llama", sets(llama__attention__head_count=0), r"head_count'.*got 0, allowed: 1 to"),
    "heads do not divide": ("llama", sets(llama__attention__head_count=10), "divisor of embedding_length, 96"),
    "too many heads": ("llama", sets(llama__attention__head_count=96 * 96), "head_count"),
    "no kv heads": ("llama", sets(llama__attention__head_count_kv=0), "head_count_kv"),
    "kv heads do not divide": ("llama", sets(llama__attention__head_count_kv=4), "divisor of the 6 heads"),
    "more kv heads than heads": ("llama", sets(llama__attention__head_count_kv=12), "divisor of the 6 heads"),
    "other kv heads": ("llama", sets(llama__attention__head_count_kv=3), r"attn_k\.weight.*\(32, 96\).*\(48, 96\)"),
    "negative kv heads": ("llama", sets(llama__attention__head_count_kv=-2), "head_count_kv"),
    "head count is text": ("llama", sets(llama__attention__head_count="6"), "wrong type"),
    "head count is an array": ("llama", sets(llama__attention__head_count=[6, 6, 6]), "wrong type"),
    "key length": ("llama", sets(llama__attention__key_length=18), r"attn_q\.weight.*\(96, 96\).*\(108, 96\)"),
    "huge key length": ("llama", sets(llama__attention__key_length=1 << 31), "key_length"),
    "no blocks": ("llama", sets(llama__block_count=0), "block_count"),
    "2^31 blocks": ("llama", sets(llama__block_count=1 << 31), "block_count.*2147483648"),
    "a block too many": ("llama", sets(llama__block_count=4), r"blk\.3\.attn_norm\.weight': tensor is missing"),
    "no context": ("llama", sets(llama__context_length=0), "context_length"),
    "context beyond int32": ("llama", sets(llama__context_length=1 << 31), "context_length"),
    "context missing": ("llama", drops("llama.context_length"), "required key is missing"),
    "other width": ("llama", sets(llama__embedding_length=102), r"token_embd\.weight.*\(101, 96\).*\(101, 102\)"),
    "feed forward": ("llama", sets(llama__feed_forward_length=1 << 19), r"ffn_gate\.weight.*\(136, 96\)"),
    "vocabulary": ("llama", sets(llama__vocab_size=100), r"token_embd\.weight.*got 101, allowed: 100"),
    "token list": ("llama", sets(tokenizer__ggml__tokens=["a"] * 102), "got 101, allowed: 102"),
    "odd rope": ("llama", sets(llama__rope__dimension_count=15), "even number"),
    "no rope": ("llama", sets(llama__rope__dimension_count=0), "dimension_count"),
    "rope beyond the head": ("llama", sets(llama__rope__dimension_count=18), "dimension_count'.*2 to 16"),
    "NaN base": ("llama", sets(llama__rope__freq_base=math.nan), "freq_base"),
    "infinite base": ("llama", sets(llama__rope__freq_base=math.inf), "freq_base"),
    "base 0": ("llama", sets(llama__rope__freq_base=0.0), "freq_base"),
    "yarn base 1": ("llama_yarn", sets(llama__rope__freq_base=1.0), "above 1"),
    "yarn beta 0": ("llama_yarn", sets(llama__rope__scaling__yarn_beta_fast=0.0), "yarn_beta_fast"),
    "negative scaling": ("llama_linear_rope", sets(llama__rope__scaling__factor=-2.0), "scaling.factor"),
    "NaN scaling": ("llama_linear_rope", sets(llama__rope__scaling__factor=math.nan), "scaling.factor"),
    "NaN epsilon": ("llama", sets(llama__attention__layer_norm_rms_epsilon=math.nan), "epsilon"),
    "epsilon 0": ("llama", sets(llama__attention__layer_norm_rms_epsilon=0.0), "epsilon"),
    "epsilon 2": ("gpt2", sets(gpt2__attention__layer_norm_epsilon=2.0), "epsilon"),
    "negative window": ("mistral_window", sets(llama__attention__sliding_window=-1), "sliding_window"),
    "pattern 0": ("gemma3", sets(gemma3__attention__sliding_window_pattern=0), "sliding_window_pattern"),
    "softcap 0": ("gemma3_softcap", sets(gemma3__final_logit_softcapping=0.0), "softcapping"),
    "more experts used": ("mixtral", sets(llama__expert_used_count=6), "1 to expert_count, 5"),
    "no experts used": ("mixtral", sets(llama__expert_used_count=0), "expert_used_count"),
    "a missing expert": ("mixtral", sets(llama__expert_count=6), r"ffn_gate_inp\.weight.*\(5, 96\).*\(6, 96\)"),
    "rope factor 0": ("llama3_rope", tensor("rope_freqs.weight", poke(0.0)), "rope factor"),
    "rope factor NaN": ("llama3_rope", tensor("rope_freqs.weight", poke(math.nan)), "rope factor"),
    "rope factors too few": ("llama3_rope", tensor("rope_freqs.weight", lambda a: a[:-1]), r"\(11,\).*\(12,\)"),
    "short rope missing": ("phi3_longrope_short", drops("rope_factors_short.weight"), "tensor is missing"),
    "norm missing": ("llama", drops("blk.1.ffn_norm.weight"), r"blk\.1\.ffn_norm\.weight': tensor is missing"),
    "embedding missing": ("llama", drops("token_embd.weight"), r"token_embd\.weight': tensor is missing"),
    "position missing": ("gpt2", drops("position_embd.weight"), "position_embd"),
    "bias missing": ("gpt2", drops("blk.0.ffn_norm.bias"), r"blk\.0\.ffn_norm\.bias"),
    "other bias": ("qwen2", tensor("blk.1.attn_q.bias", lambda a: a[:-1]), r"blk\.1\.attn_q\.bias.*\(95,\).*\(96,\)"),
    "vector embedding": ("llama", tensor("token_embd.weight", lambda a: a[:, 0]), "wrong shape"),
    "empty embedding": ("llama", tensor("token_embd.weight", lambda a: a[:0]), "got 0"),
}

UNKNOWN: dict[str, tuple[str, Change, str]] = {
    "key": ("llama", sets(llama__attention__sink_tokens=4), r"does not know llama\.attention\.sink_tokens"),
    "tensor": ("llama", lambda m, t: t.update(extra=np.ones(3, np.float32)), "no use for the tensors extra"),
    "a block too few": ("llama", sets(llama__block_count=2), r"no use for the tensors blk\.2\.attn_q"),
    "bidirectional": ("llama", sets(llama__attention__causal=False), "only True is supported"),
    "experts in a dense family": ("qwen2", sets(qwen2__expert_count=4), "only 0 is supported"),
    "split experts": (
        "mixtral",
        lambda m, t: t.update({"blk.0.ffn_gate.0.weight": np.ones((2, 2), np.float32)}),
        "before",
    ),
    "rope scaling": ("llama", sets(llama__rope__scaling__type="wobble"), "'wobble' is not supported"),
    "architecture": ("llama", sets(general__architecture="qwen33"), r"'qwen33'.*nearest name is 'qwen3'.*gpt2, gpt"),
    "far architecture": ("llama", sets(general__architecture="x" * 999), "not supported. Supported: bert, gemma"),
}


@pytest.mark.parametrize("name", WRONG)
def test_contradictions(name: str, tmp_path: Path) -> None:
    case, change, message = WRONG[name]
    with pytest.raises(ModelFileError, match=message) as error:
        build(case, change, tmp_path)
    assert f"{case}.gguf" in str(error.value)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_this_version_does_not_know(name: str, tmp_path: Path) -> None:
    case, change, message = UNKNOWN[name]
    with pytest.raises(UnsupportedError, match=message):
        build(case, change, tmp_path)


HOSTILE_INTS = (0, 1, 3, -1, 1 << 12, (1 << 20) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
HOSTILE_FLOATS = (0.0, -0.0, -1.0, 5e-324, 1e-300, 1e-6, 1.0, 1e6, 1e12, 1e300, math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("case", ["llama_yarn", "mixtral", "gemma3_softcap", "phi3_longrope_long", "gpt2"])
def test_no_number_causes_another_exception(case: str, tmp_path: Path) -> None:
    """Every numeric key of the file, set to every hostile value: built or refused, never anything else."""
    metadata, tensors = to_gguf(CASES[case])
    numeric = {key: value for key, value in metadata.items() if type(value) in (int, float)}
    refused = 0
    for key, old in numeric.items():
        for value in HOSTILE_INTS if type(old) is int else HOSTILE_FLOATS:
            stored = value if type(old) is int else np.float64(value)
            path = write(metadata | {key: stored}, tensors, tmp_path / "model.gguf")
            try:
                with GGUFFile.open(path, use_mmap=False) as file:
                    build_model(file)
            except (ModelFileError, UnsupportedError):
                refused += 1
    assert refused > 5 * len(numeric)


def test_harmless_keys_are_skipped(tmp_path: Path) -> None:
    build("llama", sets(llama__tensor_data_layout="Meta AI original pth", llama__attention__causal=True), tmp_path)
    build("llama", sets(llama__rope__scaling__finetuned=True, llama__expert_count=0), tmp_path)
    build("llama", sets(general__file_type=7, tokenizer__ggml__model="none"), tmp_path)


def test_context_decides_between_long_and_short_factors(tmp_path: Path) -> None:
    """The original context is 28, the trained one 112."""
    tables = {}
    for context in (None, 29, 28):
        spec = build("phi3_longrope_long", lambda m, t: None, tmp_path, context)
        tables[context] = next(n.attrs["inv_freq"] for n in spec.graph.nodes if n.op == "rope").tolist()
        assert spec.context == (context or 112)
    assert tables[None] == tables[29] != tables[28]


def test_a_context_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ContextOverflow, match="54 tokens do not fit into a context of 53"):
        build("gpt2", lambda m, t: None, tmp_path, 54)
    assert build("gpt2", lambda m, t: None, tmp_path, 53).max_context == 53
    with pytest.raises(ValueError, match="at least 1"):
        build("llama", lambda m, t: None, tmp_path, 0)
