"""Checkpoints become what llama.cpp's converter makes of them, tensor by tensor and key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.converters.checkpoint import Checkpoint, CheckpointError
from halfbyte.converters.config import Config
from halfbyte.converters.families import FAMILIES, family_of
from halfbyte.converters.families.family import Keys
from halfbyte.converters.source import SourceModel, tensor
from halfbyte.formats.errors import UnsupportedError
from halfbyte.formats.gguf import hollow
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.ir import Graph
from halfbyte.runtime.loading import LoadOptions, choose_backend
from halfbyte.runtime.models import build_model

from ..builders import CASES, ENCODERS, N_TOKENS, Arrays, Case, to_gguf
from ..fixtures.make.families import load
from ..models.running import N_PAGES, distance, prefill, run_in_chunks
from ..switches import needs_kernels
from .checkpoints import write_folder


def _is_bias(name: str) -> bool:
    """Of a matrix in the middle layer: graphs ask for those of norms themselves."""
    return ".1." in name and name.endswith("bias") and not re.search(r"norm|ln_", name)


@pytest.mark.parametrize("case", (CASES | ENCODERS).values(), ids=list(CASES | ENCODERS))
@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_and_keys_are_those_of_the_layout(case: Case, shards: int, tmp_path: Path) -> None:
    keys, tensors = to_gguf(case)
    with Checkpoint.open(write_folder(tmp_path, case.config, case.weights(), shards=shards)) as checkpoint:
        family, config = family_of(checkpoint)
        made = family.tensors(checkpoint, config)
        assert made.keys() == tensors.keys()
        for name, rows in made.items():
            whole = rows.floats(0, rows.n_rows).reshape(rows.shape)
            assert np.array_equal(whole, tensors[name].astype(np.float32)), name
            middle = rows.n_rows // 2
            assert np.array_equal(rows.read(middle, rows.n_rows), rows.read(0, rows.n_rows)[middle:]), name
        found = {f"{family.architecture}.{key}": value for key, value in family.keys(config).items()}
    expected = {key: value for key, value in keys.items() if not key.startswith("general.")}
    assert {key: found[key] for key in expected} == pytest.approx(expected)


@contextmanager
def converted(case: Case, folder: Path) -> Iterator[Graph]:
    """Straight from the checkpoint: its graph, which is checked without its numbers first."""
    with Checkpoint.open(write_folder(folder, case.config, case.weights())) as checkpoint:
        family, config = family_of(checkpoint)
        scoped = {f"{family.architecture}.{key}": value for key, value in family.keys(config).items()}
        rows = family.tensors(checkpoint, config)
        tensors = {name: tensor(name, rows) for name, rows in rows.items()}
        keys = {"general.architecture": family.architecture, **scoped}
        model = SourceModel(folder, (), keys, tensors, checkpoint.close)
        build_model(hollow(model))
        yield build_model(model).graph


@pytest.mark.parametrize("case", (CASES | ENCODERS).values(), ids=list(CASES | ENCODERS))
def test_what_is_converted_runs(case: Case, tmp_path: Path) -> None:
    """It computes what transformers does."""
    with converted(case, tmp_path) as graph:
        executor = ReferenceBackend().compile(graph, n_pages=N_PAGES, max_tokens=N_TOKENS)
        assert distance(prefill(executor, case.tokens()), load(case.name)["logits"]) < 1e-5


@needs_kernels
@pytest.mark.parametrize("case", (CASES | ENCODERS).values(), ids=list(CASES | ENCODERS))
def test_kernels_compute_what_transformers_does(case: Case, tmp_path: Path) -> None:
    """As `Model.load` runs it, of a prompt and token by token (encoders take texts whole). Measured: 2e-6 at most."""
    tokens, expected = case.tokens(), load(case.name)["logits"]
    with converted(case, tmp_path) as graph:
        backend = choose_backend(graph, LoadOptions(), N_TOKENS)
        executor = backend.compile(graph, n_pages=N_PAGES, max_tokens=N_TOKENS, threads=1)
        for sizes in ([N_TOKENS], *([[1] * N_TOKENS] if graph.is_causal else [])):
            assert distance(run_in_chunks(executor, tokens, sizes), expected) < 1e-5
        executor.close()


def fused(weights: Arrays) -> Arrays:
    """The experts of each layer in two tensors, as transformers 5 has them."""
    out: Arrays = {}
    for name, array in weights.items():
        stem, found, rest = name.replace("block_sparse_moe", "mlp").partition(".experts.")
        number, _, matrix = rest.partition(".")
        if not found:
            out[stem] = array
        elif matrix in ("down_proj.weight", "w2.weight"):
            down = f"{stem}.experts.down_proj"
            out[down] = np.concatenate([out[down], array[None]]) if int(number) else array[None]
        elif matrix in ("gate_proj.weight", "w1.weight"):
            up = weights[name.replace("gate_proj", "up_proj").replace("w1", "w3")]
            both, gate_up = np.concatenate([array, up])[None], f"{stem}.experts.gate_up_proj"
            out[gate_up] = np.concatenate([out[gate_up], both]) if int(number) else both
    return out


@pytest.mark.parametrize("name", ["mixtral", "qwen2moe", "qwen3moe"])
def test_experts_may_be_fused(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    given, (_, tensors) = fused(case.weights()), to_gguf(case)
    with Checkpoint.open(write_folder(tmp_path, case.config, given)) as checkpoint:
        family, config = family_of(checkpoint)
        made = family.tensors(checkpoint, config)
        assert made.keys() == tensors.keys()
        for name, rows in made.items():
            assert np.array_equal(rows.floats(0, rows.n_rows).reshape(rows.shape), tensors[name]), name
            middle = rows.n_rows // 3
            assert np.array_equal(rows.read(middle, rows.n_rows), rows.read(0, rows.n_rows)[middle:]), name


@pytest.mark.parametrize("order", [1, -1])
def test_experts_are_there_once(order: int, tmp_path: Path) -> None:
    case = CASES["qwen3moe"]
    both = {**case.weights(), **fused(case.weights())}
    twice = {name: both[name] for name in list(both)[::order]}
    with Checkpoint.open(write_folder(tmp_path, case.config, twice)) as checkpoint:
        family, config = family_of(checkpoint)
        with pytest.raises(CheckpointError, match="and so would another one"):
            family.tensors(checkpoint, config)


@pytest.mark.parametrize("names", ["language_model.model.{}", "model.language_model.{}"])
def test_a_language_model_in_one_that_sees(names: str, tmp_path: Path) -> None:
    """Under both kinds of names, with fields left out that have transformers' values; the rest of it is not read."""
    case = CASES["gemma3"]
    _, tensors = to_gguf(case)
    given = {names.format(name.removeprefix("model.")): array for name, array in case.weights().items()}
    seen = {"vision_tower.vision_model.post_layernorm.weight", "multi_modal_projector.mm_soft_emb_norm.weight"}
    given |= {f"{'' if names.startswith('l') else 'model.'}{name}": np.zeros(3, np.float32) for name in seen}
    given["language_model.lm_head.weight"] = case.weights()["model.embed_tokens.weight"]
    text = {key: value for key, value in case.config.items() if key not in ("architectures", "rms_norm_eps")}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    with Checkpoint.open(write_folder(tmp_path, config, given)) as checkpoint:
        family, inner = family_of(checkpoint)
        assert family.keys(inner)["attention.layer_norm_rms_epsilon"] == 1e-6
        assert inner.count("vocab_size") == text["vocab_size"]
        assert family.tensors(checkpoint, inner).keys() == tensors.keys()


def tensors_of(folder: Path, config: Mapping[str, Any], weights: Arrays) -> set[str]:
    with Checkpoint.open(write_folder(folder, config, weights)) as checkpoint:
        family, inner = family_of(checkpoint)
        return set(family.tensors(checkpoint, inner))


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    """A copy is left out. transformers keeps one with other numbers, whatever config.json says."""
    case = CASES["llama"]
    embedding = case.weights()["model.embed_tokens.weight"]
    for is_tied in (True, False):
        config = {**case.config, "tie_word_embeddings": is_tied}
        for head, is_there in ((embedding, not is_tied), (2 * embedding, True)):
            made = tensors_of(tmp_path, config, {**case.weights(), "lm_head.weight": head})
            assert ("output.weight" in made) is is_there


@pytest.mark.parametrize("name", ["gemma", "gemma3", "gpt2"])
def test_families_whose_head_is_the_embedding_have_no_other(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    embedding = next(array for key, array in case.weights().items() if re.search(r"(embed_tokens|wte)\.weight$", key))
    assert "output.weight" not in tensors_of(tmp_path, case.config, {**case.weights(), "lm_head.weight": embedding})
    for wrong in (2 * embedding, embedding[:3]):
        with pytest.raises(CheckpointError, match=r"'lm_head.weight': it is not the embedding.*tie_word_embeddings"):
            tensors_of(tmp_path, case.config, {**case.weights(), "lm_head.weight": wrong})


def test_a_head_that_is_missing_is_no_embedding_unless_config_says_so(tmp_path: Path) -> None:
    for name, is_tied in (("llama", False), ("qwen3", False), ("starcoder2", True)):
        case = CASES[name]
        weights = {key: array for key, array in case.weights().items() if key != "lm_head.weight"}
        config = {key: value for key, value in case.config.items() if key != "tie_word_embeddings"}
        if is_tied:
            assert "output.weight" not in tensors_of(tmp_path, config, weights)
            continue
        with pytest.raises(CheckpointError, match=r"lm_head.weight.*the head is missing.*does not say that it is"):
            tensors_of(tmp_path, config, weights)


@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("llama", "model.layers.0.self_attn.q_proj.bias"), ("qwen2", "model.layers.1.self_attn.o_proj.bias"),
        ("gemma2", "model.layers.0.mlp.down_proj.bias"), ("phi3", "model.layers.0.self_attn.qkv_proj.bias"),
        ("olmo2", "model.norm.bias"), ("llama", "lm_head.bias"), ("qwen3moe", "model.layers.0.mlp.gate.bias"),
    ],
)  # fmt: skip
def test_biases_that_nobody_should_add(name: str, bias: str, tmp_path: Path) -> None:
    case = CASES[name]
    weights = case.weights()
    rows = len(weights[bias.replace(".bias", ".weight")])
    with pytest.raises(CheckpointError, match=rf"{re.escape(bias)}'?: models with this config.json have no such bias"):
        tensors_of(tmp_path, case.config, {**weights, bias: np.ones(rows, np.float32)})


def test_rotations_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"rotary_emb_base.*900"):
        keys_of("gptneox", rotary_emb_base=500.0, rope_theta=900.0)
    flat = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    with pytest.raises(CheckpointError, match=r"rope_parameters\.rope_type"):
        keys_of("gemma3", rope_parameters=flat, rope_scaling=None)


def test_a_base_that_is_not_said_is_that_of_transformers() -> None:
    for name, base in (("llama", 1e4), ("mixtral", 1e6), ("gemma3", 1e6)):
        assert keys_of(name, rope_theta=None)["rope.freq_base"] == base


def test_factors_of_rotation_are_of_the_base_that_is_not_said() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 4096}
    unsaid, said, other = (
        extra_of("mixtral", rope_scaling=scaling, rope_theta=base)["rope_freqs.weight"] for base in (None, 1e6, 1e4)
    )
    assert np.array_equal(unsaid, said) and not np.array_equal(unsaid, other)


def keys_of(name: str, **changes: Any) -> Keys:
    config: Mapping[str, Any] = {**CASES[name].config, **changes}
    return FAMILIES[config["architectures"][0]].keys(Config(config, Path("config.json")))


def test_rotation_is_where_transformers_5_has_it() -> None:
    parameters = {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5}
    new = keys_of("gptneox", rope_parameters=parameters, rotary_pct=None, rotary_emb_base=None)
    assert new == keys_of("gptneox")


def extra_of(name: str, **changes: Any) -> Mapping[str, np.ndarray]:
    """Tensors that are computed from config.json."""
    config: Mapping[str, Any] = {**CASES[name].config, **changes}
    extra = FAMILIES[config["architectures"][0]].extra(Config(config, Path("config.json")))
    return {tensor: rows.floats(0, rows.n_rows).reshape(-1) for tensor, rows in extra.items()}


def test_old_fields_of_rotation_win_over_new_ones() -> None:
    """As in transformers, which takes nothing of the new ones then: neither base nor part of the head."""
    linear, new = {"type": "linear", "factor": 4.0}, {"rope_type": "default", "rope_theta": 5e5}
    keys = keys_of("llama", rope_scaling=linear, rope_parameters=new, rope_theta=None)
    assert (keys["rope.scaling.type"], keys["rope.scaling.factor"], keys["rope.freq_base"]) == ("linear", 4.0, 1e4)
    beside = keys_of("llama", rope_scaling=linear, rope_parameters=new, rope_theta=7e5)
    assert beside["rope.freq_base"] == 7e5
    within = keys_of("llama", rope_scaling={**linear, "rope_theta": 9e5}, rope_theta=7e5)
    assert within["rope.freq_base"] == 9e5
    assert list(extra_of("llama", rope_scaling=LLAMA3, rope_parameters=new)) == ["rope_freqs.weight"]
    for nothing in (None, {}):
        keys = keys_of("llama", rope_scaling=nothing, rope_parameters=new, rope_theta=None)
        assert keys["rope.freq_base"] == 5e5
        assert "rope.scaling.type" not in keys


def gemma3_rotation(whole: Mapping[str, Any], local: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Changes of config.json to the form that transformers 5 writes."""
    unsaid = dict.fromkeys(("rope_scaling", "rope_theta", "rope_local_base_freq"))
    return {**unsaid, "rope_parameters": {"full_attention": whole, "sliding_attention": local}, **changes}


def test_kinds_of_layers_have_rotations_of_their_own() -> None:
    plain = {"rope_type": "default", "rope_theta": 150.0}
    linear = {"rope_type": "linear", "factor": 2.5, "rope_theta": 700.0}
    assert keys_of("gemma3", **gemma3_rotation(linear, plain)) == keys_of("gemma3")
    added = gemma3_rotation({"rope_theta": 700.0}, plain, rope_scaling={"rope_type": "linear", "factor": 2.5})
    assert keys_of("gemma3", **added) == keys_of("gemma3")
    beside = gemma3_rotation({"rope_type": "default"}, {}, rope_theta=700.0, rope_local_base_freq=150.0)
    assert keys_of("gemma3", **beside) == keys_of("gemma3", rope_scaling=None)


def test_factors_of_rotation_are_those_of_the_layers_that_see_everything() -> None:
    flat = extra_of("gemma3", rope_scaling=LLAMA3, rope_theta=3e5)
    nested = extra_of("gemma3", **gemma3_rotation({**LLAMA3, "rope_theta": 3e5}, {}))
    assert np.array_equal(nested["rope_freqs.weight"], flat["rope_freqs.weight"])
    unsaid = extra_of("gemma3", **gemma3_rotation(LLAMA3, {}))
    million = extra_of("gemma3", **gemma3_rotation({**LLAMA3, "rope_theta": 1e6}, {}))
    assert np.array_equal(unsaid["rope_freqs.weight"], million["rope_freqs.weight"])


def test_factors_of_rotation_are_as_many_as_rotated_pairs() -> None:
    """And of the base that GPT-NeoX has under its own name."""
    found = extra_of("gptneox", rope_scaling=LLAMA3)["rope_freqs.weight"]
    assert len(found) == keys_of("gptneox", rope_scaling=LLAMA3)["rope.dimension_count"] // 2
    base = CASES["gptneox"].config["rotary_emb_base"]
    turns = 64 * base ** -(np.arange(len(found)) / len(found)) / (2 * np.pi)
    smooth = np.clip((turns - 1) / 3, 0, 1)
    assert found == pytest.approx(1 / ((1 - smooth) / 8 + smooth), rel=1e-6)


def without(name: str, field: str) -> dict[str, Any]:
    """config.json of a case that lacks a field, which is not the same as null."""
    return {key: value for key, value in CASES[name].config.items() if key != field}


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "mistral_window"])
def test_a_window_that_is_not_said_is_that_of_transformers(name: str) -> None:
    config = without(name, "sliding_window")
    keys = FAMILIES[config["architectures"][0]].keys(Config(config, Path("config.json")))
    assert keys["attention.sliding_window"] == 4096


def test_windows_that_are_said_to_be_none() -> None:
    key = "attention.sliding_window"
    n_layer = CASES["mistral_window"].config["num_hidden_layers"]
    whole, local = ["full_attention"] * n_layer, ["sliding_attention"] * n_layer
    assert key not in keys_of("mistral_window", sliding_window=None)
    assert key not in keys_of("mistral_window", layer_types=whole)
    assert keys_of("mistral_window", layer_types=local) == keys_of("mistral_window")
    for name in ("llama", "mixtral"):
        config = without(name, "sliding_window")
        assert key not in FAMILIES[config["architectures"][0]].keys(Config(config, Path("config.json")))
    with pytest.raises(UnsupportedError, match="layer_types"):
        keys_of("mistral_window", layer_types=[*whole[1:], "sliding_attention"])


def test_the_base_of_rotation_may_stand_beside_the_rest_of_it() -> None:
    keys = keys_of("llama", rope_parameters={"rope_type": "default"}, rope_theta=5e5)
    assert keys["rope.freq_base"] == 5e5


def test_magnitudes_of_rotation_are_those_of_transformers() -> None:
    factors = {"short_factor": [1.0], "long_factor": [2.0], "original_max_position_embeddings": 16}
    long = {"rope_type": "longrope", "factor": 4.0, "attention_factor": 1.7, **factors}
    assert keys_of("phi3", rope_scaling=long)["rope.scaling.attn_factor"] == 1.7
    both = {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}
    assert keys_of("llama", rope_scaling=both)["rope.scaling.yarn_attn_factor"] == 1.0


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "olmo2", "starcoder2", "gemma"])
def test_factors_of_rotation_are_tensors_in_every_family(name: str) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16}
    config = {**CASES[name].config, "rope_scaling": scaling, "rope_parameters": None}
    extra = FAMILIES[config["architectures"][0]].extra(Config(config, Path("config.json")))
    assert list(extra) == ["rope_freqs.weight"]


def test_a_head_that_is_missing_is_not_the_embedding(tmp_path: Path) -> None:
    case = CASES["llama"]
    given = {name: array for name, array in case.weights().items() if name != "lm_head.weight"}
    config = {**case.config, "tie_word_embeddings": False}
    with Checkpoint.open(write_folder(tmp_path, config, given)) as checkpoint:
        family, inner = family_of(checkpoint)
        with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
            family.tensors(checkpoint, inner)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if any(map(_is_bias, case.weights()))])
def test_a_bias_that_is_missing_is_no_bias_that_never_was(name: str, tmp_path: Path) -> None:
    given = CASES[name].weights()
    for bias in filter(_is_bias, given):
        others = {key: array for key, array in given.items() if key != bias}
        with Checkpoint.open(write_folder(tmp_path, CASES[name].config, others)) as checkpoint:
            family, config = family_of(checkpoint)
            with pytest.raises(CheckpointError, match=re.escape(f"'{bias}': the bias is missing")):
                family.tensors(checkpoint, config)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}
# What llama.cpp takes for granted of an architecture is checked, because a file cannot say otherwise.
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("qwen2moe", {"norm_topk_prob": True}),
    ("qwen3moe", {"norm_topk_prob": False}),
    ("qwen3moe", {"norm_topk_prob": None}),
    ("qwen3moe", {"mlp_only_layers": [0]}),
    ("qwen2moe", {"decoder_sparse_step": 2}),
    ("gemma2", {"layer_types": ["full_attention"] * 4}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma3", {"sliding_window_pattern": 3}),
    ("gemma", {"hidden_activation": "relu"}),
    ("gptneox", {"hidden_act": "relu"}),
    ("starcoder2", {"hidden_act": "gelu"}),
    ("olmo2", {"hidden_act": "gelu"}),
    ("gemma3", {"sliding_window": None}),
    ("gemma3", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}}),
    ("gemma3", {"use_bidirectional_attention": True}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gpt2", {"scale_attn_weights": False}),
    ("gpt2", {"tie_word_embeddings": False}),
    ("llama", {"partial_rotary_factor": 0.5}),
    ("llama", {"rope_scaling": {**YARN, "truncate": False}}),
    ("llama", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}),
]


@pytest.mark.parametrize(("name", "changes"), REFUSED, ids=[f"{name}-{next(iter(c))}" for name, c in REFUSED])
def test_what_a_file_cannot_say_is_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        keys_of(name, **changes)
