"""Model cards become general.* keys; cards that attack cost nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.converters.card import card_keys, sampling_keys
from halfbyte.converters.checkpoint import Checkpoint
from halfbyte.converters.front_matter import FrontMatterError, front_matter
from halfbyte.formats.gguf import GGUFFile, GGUFWriter

from .checkpoints import write_folder

CARD = """---
language:
- en
- no
license: apache-2.0
license_name: their-own
model_creator: Someone\u00e9
tags: [chat, small]
pipeline_tag: text-generation
base_model: some-org/tiny-base-v1.5-7B
datasets:
- web-texts
- https://huggingface.co/datasets/org/data
- https://example.com/a/b/c.tar
- name: Own
  url: https://example.com
model-index: [{results: [{value: 1.10}]}]
---
# A model
---
"""
EXPECTED = {
    "general.name": "Tiny Model 5B",
    "general.basename": "tiny-model",
    "general.finetune": "5b",  # three weights are no 5B
    "general.author": "Someone\u00e9",
    "general.license": "apache-2.0",
    "general.license.name": "their-own",
    "general.tags": ["chat", "small", "text-generation"],
    "general.languages": ["en", "no"],
    "general.base_model.count": 1,
    "general.base_model.0.name": "Tiny Base v1.5 7B",
    "general.base_model.0.organization": "Some Org",
    "general.base_model.0.repo_url": "https://huggingface.co/some-org/tiny-base-v1.5-7B",
    "general.dataset.count": 4,
    "general.dataset.0.name": "Web Texts",
    "general.dataset.1.repo_url": "https://huggingface.co/datasets/org/data",
    "general.dataset.2.repo_url": "https://example.com/a/b/c.tar",
    "general.dataset.3.name": "Own",
    "general.dataset.3.url": "https://example.com",
}


def keys_of(folder: Path, card: str | None, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """As a file has them."""
    write_folder(folder, config or {}, {"x": np.ones(3, np.float32)})
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    writer = GGUFWriter(folder / "m.gguf")
    with Checkpoint.open(folder) as checkpoint:
        for key, value in {**card_keys(checkpoint, 3), **sampling_keys(checkpoint)}.items():
            writer.add(key, *value) if isinstance(value, tuple) else writer.add(key, value)
    return dict(GGUFFile.from_buffer(writer.plan()[0].header, name="m").metadata)


def test_a_card(tmp_path: Path) -> None:
    assert keys_of(tmp_path / "tiny-model-5B", CARD) == EXPECTED


@pytest.mark.parametrize("card", [None, "", "# A model", "---\n---\n"])
def test_without_a_card_the_folder_has_a_name(card: str | None, tmp_path: Path) -> None:
    assert keys_of(tmp_path / "my-model", card) == {"general.name": "My Model"}


@pytest.mark.parametrize(
    "said", ["/home/me/x", "../x/y", "./x", "..", "", "x" * 257, "a\nb", ["a"], None]
)
def test_what_is_no_id_names_nothing(said: Any, tmp_path: Path) -> None:
    assert keys_of(tmp_path / "f", None, {"_name_or_path": said}) == {"general.name": "F"}


def test_sampling_defaults(tmp_path: Path) -> None:
    said = {"top_k": 20, "top_p": 0.75, "temperature": 1, "min_p": "0.1", "repetition_penalty": True, "do_sample": True}
    tmp_path.joinpath("generation_config.json").write_text(json.dumps(said))
    keys = keys_of(tmp_path, "---\nname: N\n---")
    assert keys == {
        "general.name": "N", "general.sampling.top_k": 20, "general.sampling.top_p": 0.75, "general.sampling.temp": 1.0,
    }  # fmt: skip


def test_sampling_defaults_that_no_sampler_takes(tmp_path: Path) -> None:
    said = {"top_k": -1, "top_p": 2, "temperature": -0.5, "min_p": 1.5, "repetition_penalty": 0}
    tmp_path.joinpath("generation_config.json").write_text(json.dumps(said))
    assert keys_of(tmp_path, "---\nname: N\n---") == {"general.name": "N"}
    edges = {"top_k": 0, "top_p": 1, "temperature": 0, "min_p": 0, "repetition_penalty": 1}
    tmp_path.joinpath("generation_config.json").write_text(json.dumps(edges))
    found = keys_of(tmp_path, "---\nname: N\n---")
    assert {key.rpartition(".")[2]: value for key, value in found.items() if "sampling" in key} == {
        "top_k": 0, "top_p": 1, "temp": 0, "min_p": 0, "penalty_repeat": 1,
    }  # fmt: skip


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
ATTACKS = {
    "aliases": (BOMB, "aliases"),
    "merge": ("a: &a {x: 1}\nb:\n  <<: *a\n", "aliases"),
    "depth": ("a: " + "[" * 5000 + "]" * 5000, "deep"),
    "items": ("a: [" + "x," * 15_000 + "]", "many"),
    "size": ("a: " + "x" * 300_000, "characters"),
    "list": ("- a", "not an object"),
    "syntax": ("a: [1\nb: 2", "line"),
    "two": ("a: 1\n--- \nb", ""),
    "control": ("a: \x00", "special characters"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_cards_that_cannot_be_read(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    block, said = ATTACKS[name]
    start = time.perf_counter()
    if name != "two":  # the block ends at the second line of dashes
        with pytest.raises(FrontMatterError, match=said):
            front_matter(f"---\n{block}\n---\n")
        assert keys_of(tmp_path / "f", f"---\n{block}\n---\n") == {"general.name": "F"}
        assert "README.md: its front matter is left out" in caplog.text
    else:
        assert front_matter(f"---\n{block}\n---\n") == {"a": "1"}
    assert time.perf_counter() - start < 20


def test_nothing_is_made_of_tags(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    block = f"name: !!python/object/apply:os.system ['touch {marker}']\nlicense: !!int '7'\nlanguage: [no, 1.10]\n"
    assert front_matter(f"---\n{block}---")["language"] == ["no", "1.10"]
    assert front_matter(f"---\n{block}---")["license"] == "7"
    assert not marker.exists()
