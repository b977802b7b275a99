"""Names of models and files are those of llama.cpp's converter, whatever a card says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from halfbyte.converters.card import card_keys
from halfbyte.converters.checkpoint import Checkpoint
from halfbyte.converters.naming import converted_name, quantized_name, size_label
from hypothesis import example, given
from hypothesis import strategies as st

from .checkpoints import write_folder

IDS = {  # and how many weights such a model has
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Meta-Llama-3.1-8B-Instruct": 8_030_261_248,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "google/gemma-2-2b-it": 2_614_341_888,
    "microsoft/Phi-3-mini-128k-instruct": 3_821_079_552,
    "EleutherAI/pythia-160m": 162_322_944,
    "bigcode/starcoder2-3b": 3_030_371_328,
    "bigscience/bloom-7b1": 7_069_016_064,
    "BAAI/bge-small-en-v1.5": 33_360_000,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "gpt2": 124_439_808,
    "org/some-model": 1_000_000,
}
CARD = """---
name: Their Own
basename: own-base
finetune: [math, code]
version: "2.0"
model_size_label: 3B
uuid: 123e4567-e89b-12d3-a456-426614174000
base_model: [mistralai/Mistral-7B-v0.3, https://huggingface.co/Qwen/Qwen3-30B-A3B]
---
"""
FIELDS = ("name", "organization", "basename", "size_label", "finetune", "version", "source_uuid")


def ours(folder: Path, n_weights: int) -> dict[str, Any]:
    with Checkpoint.open(folder) as checkpoint:
        return dict(card_keys(checkpoint, n_weights))


@pytest.mark.parametrize("place", ["config.json", "folder"])
@pytest.mark.parametrize("model_id", IDS)
def test_ids_say_what_they_say_to_gguf(model_id: str, place: str, tmp_path: Path) -> None:
    is_folder, n_weights = place == "folder", IDS[model_id]
    folder = tmp_path / (model_id.rpartition("/")[2] if is_folder else "folder-3B-chat")
    write_folder(folder, {} if is_folder else {"_name_or_path": model_id}, {"x": np.ones(3, np.float32)})
    expected = gguf.Metadata.load(model_path=folder, total_params=n_weights)
    keys = ours(folder, n_weights)
    assert keys == {f"general.{key}": value for key in FIELDS if (value := getattr(expected, key)) is not None}
    name = gguf.naming_convention(
        expected.name, expected.basename, expected.finetune, expected.version, expected.size_label, "Q4_K_M"
    )
    if is_folder and expected.basename is None:
        name = f"{folder.name}-Q4_K_M"
    assert converted_name(keys, folder, "q4_k_m") == f"{name}.gguf"


def test_a_card_says_it_first(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "other-1B-v3", {"_name_or_path": "org/x-7B-v1"}, {"x": np.ones(3, np.float32)})
    (folder / "README.md").write_text(CARD)
    keys = ours(folder, 7_000_000_000)
    found = {key: keys.get(f"general.{key.replace('source_', 'source.')}") for key in FIELDS}
    assert found == {
        "name": "Their Own", "organization": "Org", "basename": "own-base", "size_label": "3B", "finetune": "math,code",
        "version": "2.0", "source_uuid": "123e4567-e89b-12d3-a456-426614174000",
    }  # fmt: skip
    theirs = gguf.Metadata.load(model_path=folder, total_params=7_000_000_000).base_models
    assert theirs is not None
    for i, described in enumerate(theirs):
        for key, text in described.items():
            assert keys[f"general.base_model.{i}.{key}"] == text
    assert converted_name(keys, folder, "F16") == "own-base-3B-math,code-2.0-F16.gguf"


def test_a_snapshot_of_the_hub_is_called_like_its_repository(tmp_path: Path) -> None:
    commit = "9a41b2c0" * 5
    place = tmp_path / "models--org--Tiny-5M--chat" / "snapshots" / commit
    folder = write_folder(place, {}, {"x": np.ones(3, np.float32)})
    keys = ours(folder, 5_000_000)
    assert (keys["general.name"], keys["general.organization"]) == ("Tiny 5M Chat", "Org")
    assert converted_name(keys, folder, "F16") == "Tiny-5M-chat-F16.gguf"
    nameless = write_folder(tmp_path / "models--gpt2" / "snapshots" / commit, {}, {"x": np.ones(3, np.float32)})
    assert converted_name(ours(nameless, 0), nameless, "F16") == "gpt2-F16.gguf"


TEXTS = st.text(st.characters(codec=None, exclude_characters="\0"), min_size=1, max_size=300)
FOLDERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=80)
SAFE = re.compile(r"[^\0-\x20\x7f-\x9f<>:\"/\\|?*.\-][^\0-\x20\x7f-\x9f<>:\"/\\|?*]*")
DEVICES = {"con", "prn", "aux", "nul", "com1", "lpt9", "conin$"}


@given(base=st.none() | TEXTS, name=TEXTS, version=st.none() | TEXTS, folder=FOLDERS)
@example(base="../../etc/passwd", name="x", version="\x1b[2J", folder="x")
@example(base="CON.x", name="x", version=None, folder="x")
@example(base="..\\..\\x", name="x", version="C:", folder="x")
@example(base="\u202egnp", name="x", version="a\nb", folder="x")
@example(base="\ud800", name="x", version=None, folder="x")
@example(base="-o", name="x", version=".", folder="x")
@example(base="\U0001f600" * 300, name="x", version=None, folder="x")
@example(base=None, name="x", version=None, folder="....")
def test_hostile_names(base: str | None, name: str, version: str | None, folder: str) -> None:
    keys = {"general.name": name, "general.version": version} | ({"general.basename": base} if base else {})
    made = converted_name(keys, Path("/somewhere", folder), "Q4_0")
    assert SAFE.fullmatch(made) and made.isprintable() and made.endswith("-Q4_0.gguf"), made
    assert len(made.encode()) <= 140  # .partial and shards come behind it
    assert made.partition(".")[0].lower() not in DEVICES
    assert Path("here", made).parent == Path("here")


@given(TEXTS)
@example("a-7B1-ſMALL-1\u212a")
@example("-" * 300)
def test_any_name_of_a_folder_has_parts(name: str) -> None:
    from halfbyte.converters.naming import parts_of

    for n_weights in (0, 1, 7_000_000_000):
        assert all(isinstance(text, str) and text for text in parts_of(name, n_weights).values())


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"token_embd.weight": (512, 64)}, "33K"),
        ({"token_embd.weight": (1000, 1000), "blk.0.x.weight": (400, 1000)}, "1.4M"),
        ({"token_embd.weight": (2_000_000, 1000), "blk.0.ffn_up_exps.weight": (8, 5_000_000, 1000)}, "8x7.0B"),
        ({"x": (3,)}, "0.00K"),
    ],
)
def test_size_labels(shapes: dict[str, tuple[int, ...]], expected: str, tmp_path: Path) -> None:
    assert size_label(shapes) == expected
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    for name, shape in shapes.items():
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 0)
    assert gguf.size_label(*writer.get_total_parameter_count()) == expected


@pytest.mark.parametrize(
    ("source", "recipe", "expected"),
    [
        ("model-f16.gguf", "Q4_0", "model-Q4_0.gguf"),
        ("model.BF16.gguf", "Q4_0", "model-Q4_0.gguf"),
        ("model-Q8_0.gguf", "Q4_0", "model-Q4_0.gguf"),
        ("model-f16-00001-of-00003.gguf", "Q4_0", "model-Q4_0.gguf"),
        ("smollm2-135m.gguf", "Q4_0", "smollm2-135m-Q4_0.gguf"),
        ("qwen.gguf", "NF4:128", "qwen-NF4-128.gguf"),
    ],
)
def test_quantized_names(source: str, recipe: str, expected: str) -> None:
    assert quantized_name(Path("somewhere", source), recipe) == expected
