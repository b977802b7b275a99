"""What a folder of sentence-transformers says beside config.json, and older names of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.converters.checkpoint import Checkpoint
from halfbyte.converters.families import family_of
from halfbyte.converters.families.bert import pooling_of
from halfbyte.formats.errors import HalfbyteError

from ..builders import ENCODERS, Case
from .checkpoints import write_folder

CASE = ENCODERS["bert"]


def write_pooling(folder: Path, modules: Any, pooling: Any = None) -> Checkpoint:
    write_folder(folder, CASE.config, {"x": np.ones(3, np.float32)})
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return Checkpoint.open(folder)


def module(path: Any, kind: str = "sentence_transformers.models.Pooling") -> list[dict[str, Any]]:
    return [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": path, "type": kind}]


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "word_embedding_dimension": 96}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_pooling(pooling: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with write_pooling(tmp_path, module("1_Pooling"), pooling) as checkpoint:
        assert pooling_of(checkpoint) == expected
        family, config = family_of(checkpoint)
        number = {"mean": 1, "cls": 2, "last": 3}[expected]
        assert family.beside(checkpoint, config) == {
            "bert.pooling_type": number, "tokenizer.ggml.token_type_count": CASE.config["type_vocab_size"],
        }  # fmt: skip


def test_folders_without_pooling(tmp_path: Path) -> None:
    with write_pooling(tmp_path, module("2_Normalize", "sentence_transformers.models.Normalize")) as checkpoint:
        assert pooling_of(checkpoint) is None


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        (module("../1_Pooling"), {}, "leads out"),
        ([*module("1_Pooling"), {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}], {}, "models.Dense"),
        (module(7), {}, "not a name"),
        ({"a": 1}, None, "not a list"),
        ([["Pooling"]], None, "not a list"),
        (module("1_Pooling"), None, "no 1_Pooling/config.json"),
        (module("1_Pooling"), {"pooling_mode_max_tokens": True}, "max_tokens"),
        (module("1_Pooling"), {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls_token, pooling"),
        (module("1_Pooling"), {"pooling_mode": ["mean"]}, "mean"),
        (module("1_Pooling"), {}, "by nothing"),
    ],
)
def test_other_pooling_is_refused(modules: Any, pooling: Any, said: str, tmp_path: Path) -> None:
    with write_pooling(tmp_path, modules, pooling) as checkpoint, pytest.raises(HalfbyteError, match=said):
        pooling_of(checkpoint)


def test_heads_are_left_out_and_old_names_are_known(tmp_path: Path) -> None:
    """As BertForMaskedLM from TensorFlow: a prefix, gamma and beta, tensors of heads, positions as a buffer."""

    def old(name: str) -> str:
        return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    given = {old(name): array for name, array in CASE.weights().items()}
    given |= {name: np.ones((2, 2), np.float32) for name in ("bert.pooler.dense.weight", "cls.predictions.bias")}
    given["bert.embeddings.position_ids"] = np.arange(53)[None]
    config = {**CASE.config, "architectures": ["BertForMaskedLM"]}
    plain = Case("bert", CASE.config)
    found = []
    for number, (fields, tensors) in enumerate(((config, given), (plain.config, plain.weights()))):
        with Checkpoint.open(write_folder(tmp_path / str(number), fields, tensors)) as checkpoint:
            family, c = family_of(checkpoint)
            made = family.tensors(checkpoint, c)
            found.append({name: rows.floats(0, rows.n_rows).tolist() for name, rows in made.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "field", [{"hidden_act": "gelu_new"}, {"position_embedding_type": "relative_key"}, {"is_decoder": True}]
)
def test_what_is_not_computed_is_refused(field: dict[str, Any], tmp_path: Path) -> None:
    with Checkpoint.open(write_folder(tmp_path, {**CASE.config, **field}, CASE.weights())) as checkpoint:
        family, c = family_of(checkpoint)
        with pytest.raises(HalfbyteError, match=next(iter(field))):
            family.keys(c)
