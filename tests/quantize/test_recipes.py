"""Recipes against llama.cpp's own, tensor by tensor, on models that touch each rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from halfbyte.converters.quantize import RECIPES, Choices, as_type, plan, recipe_named
from halfbyte.converters.quantize.plan import by_layer
from halfbyte.formats.errors import InvalidRequest
from halfbyte.formats.gguf import GGMLType, GGUFFile

from ..recipe_models import MODELS, by_kind, write

EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures/recipes.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for model in MODELS:
        write(folder / f"{model}.gguf", model)
    return folder


def types(path: Path, recipe: str, choices: Choices | None = None) -> dict[str, str]:
    with GGUFFile.open(path) as file:
        return {one.tensor.name: one.type.name for one in plan(file, recipe, choices)}


def test_every_recipe_and_model_is_held_against_llama_cpp() -> None:
    assert set(EXPECTED) == set(MODELS)
    assert all(set(recipes) == set(RECIPES) for recipes in EXPECTED.values())


@pytest.mark.parametrize("kind", ["plain", "weighted"])
@pytest.mark.parametrize("model", MODELS)
def test_types(folder: Path, model: str, kind: str) -> None:
    with GGUFFile.open(folder / f"{model}.gguf") as file:
        plans = {recipe: plan(file, recipe, Choices(has_importance=kind == "weighted")) for recipe in RECIPES}
    for recipe, planned in plans.items():
        expected, needed = EXPECTED[model][recipe][kind], any(one.needs_importance for one in planned)
        if expected is None:  # llama.cpp refuses; of Q1_0 also rows that are not whole blocks, which are F16 here
            assert recipe == "Q1_0" or needed, recipe
            continue
        assert by_kind({one.tensor.name: one.type.name for one in planned}) == expected["types"], recipe
        assert not needed or kind == "weighted", recipe


def test_order_of_tensors() -> None:
    names = ["output.weight", "blk.10.a.weight", "blk.9.b.weight", "blk.9.a.weight", "token_embd.weight", "blkx"]
    assert sorted(names, key=by_layer) == [
        "blkx", "output.weight", "token_embd.weight", "blk.9.a.weight", "blk.9.b.weight", "blk.10.a.weight",
    ]  # fmt: skip


def test_overrides_come_before_the_recipe_and_the_first_one_counts(folder: Path) -> None:
    overrides = [(r"blk\.[0-3]\.ffn_down", GGMLType.Q8_0), ("ffn_down", GGMLType.Q3_K), ("norm", GGMLType.Q8_0)]
    found = types(folder / "alone.gguf", "Q4_K_M", Choices(overrides=overrides))
    downs = [found[f"blk.{i}.ffn_down.weight"] for i in range(6)]
    assert downs == ["Q8_0"] * 4 + ["Q3_K"] * 2
    assert found["blk.0.attn_norm.weight"] == "F32"
    assert found["blk.0.attn_v.weight"] == "Q6_K"


def test_pure_and_types_of_embedding_and_output(folder: Path) -> None:
    pure = types(folder / "alone.gguf", "Q4_K_M", Choices(pure=True))
    assert set(pure.values()) == {"F32", "Q4_K"}
    chosen = Choices(output_type=GGMLType.F16, embedding_type=GGMLType.Q3_K)
    found = types(folder / "alone.gguf", "Q5_0", chosen)
    assert (found["output.weight"], found["token_embd.weight"]) == ("F16", "Q3_K")
    tied = types(folder / "shared.gguf", "Q5_0", Choices(output_type=GGMLType.Q8_0))
    assert tied["token_embd.weight"] == "Q8_0"
    kept = types(folder / "alone.gguf", "Q2_K", Choices(keep_output=True))
    assert kept["output.weight"] == "F16"


def test_unknown_names_offer_near_ones(folder: Path) -> None:
    assert recipe_named("q4_k")[0] == "Q4_K_M"
    assert [recipe_named(name)[0] for name in ("NF4:64", "fp4_dq:64", "NF4:128")] == ["NF4", "FP4_DQ", "NF4_128"]
    assert as_type("NF4_DQ:64").name == "NF4_DQ"
    with pytest.raises(InvalidRequest, match=r"'Q4_K_X'.*did you mean .*Q4_K_[MS]"):
        recipe_named("Q4_K_X")
    with pytest.raises(InvalidRequest, match=r"'Q4_7'.*did you mean .*Q4_[01]"):
        as_type("Q4_7")
    for not_written in ("Q8_1", "Q8_K", "I32"):  # of activations, and of numbers
        with pytest.raises(InvalidRequest, match=rf"'{not_written}'"):
            as_type(not_written)
    with pytest.raises(InvalidRequest, match="regular expression"):
        types(folder / "alone.gguf", "Q4_0", Choices(overrides=[("(", GGMLType.Q8_0)]))
