"""`halfbyte quantize` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from halfbyte.formats.gguf import GGUFFile
from halfbyte.tools.commands.quantize import default_output

from ..recipe_models import importance_of, write
from .conftest import Halfbyte


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path / "tiny-f16.gguf", "alone")
    return tmp_path / "tiny-f16.gguf"


def test_a_model_becomes_smaller(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    done = halfbyte("quantize", model.name, "q4_k_m")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "tiny-Q4_K_M.gguf"
    assert "bits per weight" in done.stdout
    with GGUFFile.open(tmp_path / "tiny-Q4_K_M.gguf") as file:
        assert file.metadata["general.file_type"] == 15
        assert file.tensors["blk.5.ffn_up.weight"].type.name == "Q4_K"
    again = halfbyte("quantize", model.name, "Q4_K_M")
    assert again.returncode == 2
    assert "tiny-Q4_K_M.gguf exists" in again.stderr
    assert halfbyte("quantize", model.name, "Q4_K_M", "--overwrite").returncode == 0


def test_dry_run_and_json(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    done = halfbyte("quantize", model.name, "Q3_K_M", "--dry-run", "--json", "--tensor-type", "attn_q=Q8_0")
    about = json.loads(done.stdout)
    assert about["output"] is None
    types = {row["name"]: (row["after"], row["reason"]) for row in about["tensors"]}
    assert types["blk.0.attn_q.weight"] == ("Q8_0", "override")
    assert types["blk.0.attn_v.weight"] == ("Q5_K", "recipe")
    assert types["blk.0.attn_norm.weight"] == ("F32", "kept")
    assert about["bytes_after"] == sum(row["bytes"] for row in about["tensors"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-f16.gguf"]
    real = json.loads(halfbyte("quantize", model.name, "Q3_K_M", "--json", "--tensor-type", "attn_q=Q8_0").stdout)
    assert real["tensors"] == about["tensors"]
    with GGUFFile.open(tmp_path / real["output"]) as file:
        assert sum(tensor.n_bytes for tensor in file.tensors.values()) == about["bytes_after"]


def test_an_importance_matrix_in_both_forms(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    from ..quantize.test_importance import write_dat, write_gguf

    columns = {name: values.reshape(1, -1) for name, values in importance_of(model).items()}
    write_dat(tmp_path / "a.dat", columns)
    write_gguf(tmp_path / "a.gguf", columns)
    assert halfbyte("quantize", model.name, "Q4_0", "-o", "1.gguf", "--imatrix", "a.dat").returncode == 0
    assert halfbyte("quantize", model.name, "Q4_0", "-o", "2.gguf", "--imatrix", "a.gguf").returncode == 0
    with GGUFFile.open(tmp_path / "1.gguf") as one, GGUFFile.open(tmp_path / "2.gguf") as two:
        assert one.metadata["quantize.imatrix.file"] == "a.dat"
        assert all((one.tensors[name].data == two.tensors[name].data).all() for name in one.tensors)
        assert one.tensors["blk.0.ffn_down.weight"].type.name == "Q4_1"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tiny-f16.gguf", "Q4_K_X"], 2, "did you mean Q4_K"),
        (["tiny-f16.gguf", "Q4_0", "--tensor-type", "Q6_K"], 2, "is not REGEX=TYPE"),
        (["tiny-f16.gguf", "Q4_0", "--tensor-type", "(=Q6_K"], 2, "is not a regular expression"),
        (["tiny-f16.gguf", "Q4_0", "--output-type", "Q9"], 2, "no type that can be written"),
        (["tiny-f16.gguf", "IQ2_XS"], 2, "needs an importance matrix"),
        (["tiny-f16.gguf", "Q4_0", "-o", "tiny-f16.gguf", "--overwrite"], 2, "is the file that is read"),
        (["tiny-f16.gguf", "Q4_0", "-o", "nowhere/x.gguf"], 2, "nowhere"),
        (["tiny-f16.gguf", "Q4_0", "--imatrix", "tiny-f16.gguf"], 3, "not an importance matrix, but a model"),
        (["missing.gguf", "Q4_0"], 2, "missing.gguf"),
    ],
)
def test_what_goes_wrong(
    halfbyte: Halfbyte, model: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    before = model.read_bytes()
    done = halfbyte("quantize", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-f16.gguf"]
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("model-f16.gguf", "model-Q4_0.gguf"),
        ("model.BF16.gguf", "model-Q4_0.gguf"),
        ("model-Q8_0.gguf", "model-Q4_0.gguf"),
        ("model-f16-00001-of-00003.gguf", "model-Q4_0.gguf"),
        ("smollm2-135m.gguf", "smollm2-135m-Q4_0.gguf"),
        ("qwen.gguf", "qwen-Q4_0.gguf"),
    ],
)
def test_default_output(source: str, expected: str) -> None:
    assert default_output(Path("somewhere", source), "Q4_0") == Path(expected)
