"""`halfbyte quantize` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.gguf import GGUFFile

from ..quantize.test_importance import write_dat, write_gguf
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


def test_a_name_that_ends_like_a_folder(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    done = halfbyte("quantize", model.name, "Q4_0", "-o", "new/")
    assert done.returncode == 2 and "'new/' is the name of a folder" in done.stderr
    assert not (tmp_path / "new").exists()


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
        (["tiny-f16.gguf", "zzz"], 2, "no recipe is called 'zzz'; there are: F32, F16, "),
        (["tiny-f16.gguf", "NF4:100"], 2, "'NF4:100'; its blocks have 32, 64, 128, "),
        (["tiny-f16.gguf", "Q4_0", "--split-max-size", "2T"], 2, "is not a size, such as 2G"),
        (["tiny-f16.gguf", "Q4_0", "--split-max-size", "2G", "--keep-split"], 2, "either the source says"),
        (["tiny-f16.gguf", "Q4_0", "--prune-layers", "1,x"], 2, "is not a list of layers"),
        (["tiny-f16.gguf", "Q4_0", "--tensor-type", "Q6_K"], 2, "is not REGEX=TYPE"),
        (["tiny-f16.gguf", "Q4_0", "--tensor-type", "(=Q6_K"], 2, "is not a regular expression"),
        (["tiny-f16.gguf", "Q4_0", "--output-type", "Q9"], 2, "no type that can be written"),
        (["tiny-f16.gguf", "IQ2_XS"], 2, "needs an importance matrix"),
        (["tiny-f16.gguf", "Q4_0", "-o", "tiny-f16.gguf", "--overwrite"], 2, "is the file that is read"),
        (["tiny-f16.gguf", "Q4_0", "-o", "nowhere/x.gguf"], 2, "there is no folder"),
        (["tiny-f16.gguf", "Q4_0", "-o", "."], 2, "is a directory"),
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


def damaged(model: Path, kind: str) -> list[str]:
    """What quantizes a file that was changed in one way, or with something that is not of it."""
    folder, name = model.parent, "blk.3.ffn_up.weight"
    if kind == "truncated":
        (folder / "bad.gguf").write_bytes(model.read_bytes()[:-64])
        return ["bad.gguf", "Q4_0"]
    if kind == "not finite":
        with GGUFFile.open(model) as file:
            at = file.tensors[name].offset + 2 * (256 + 5)
        data = bytearray(model.read_bytes())
        data[at : at + 2] = np.float16(np.inf).tobytes()
        (folder / "bad.gguf").write_bytes(data)
        return ["bad.gguf", "Q4_0"]
    columns = {key: values.reshape(1, -1) for key, values in importance_of(model).items()}
    if kind == "imatrix without a matrix":
        del columns[name]
    elif kind == "imatrix with too few columns":
        columns[name] = columns[name][:, :128]
    else:
        columns = {key.replace("blk", "layers"): values for key, values in columns.items()}
    write_gguf(folder / "bad.gguf", columns)
    return ["tiny-f16.gguf", "IQ2_XS", "--imatrix", "bad.gguf"]


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("truncated", 3, "The file is damaged or incomplete"),
        ("not finite", 3, "tensor 'blk.3.ffn_up.weight': Q4_0: weight 5 of row 1 is inf"),
        ("imatrix without a matrix", 2, "would become IQ2_XS, which needs an importance matrix, and the given one"),
        ("imatrix with too few columns", 2, "has 128 numbers for it, not 256: it is of another model"),
        ("imatrix of another model", 2, "it knows none of these tensors"),
    ],
)
def test_damaged_files(halfbyte: Halfbyte, model: Path, tmp_path: Path, kind: str, code: int, words: str) -> None:
    arguments = damaged(model, kind)
    before = sorted(tmp_path.iterdir())
    done = halfbyte("quantize", *arguments, "-o", "out.gguf")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_one_file_for_each_of_the_source(halfbyte: Halfbyte, tmp_path: Path) -> None:
    write(tmp_path / "m-f16.gguf", "alone", split_counts=(1, 100, 22))
    arguments = ("quantize", "m-f16-00002-of-00003.gguf", "Q8_0", "--keep-split", "--prune-layers", "3,4")
    dry = json.loads(halfbyte(*arguments, "--dry-run", "--json").stdout)
    done = halfbyte(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "m-Q8_0-00001-of-00003.gguf"
    made = {path.name: path.stat().st_size for path in tmp_path.glob("m-Q8_0-*")}
    assert {one["path"]: one["bytes"] for one in dry["files"]} == made and len(made) == 3
    again = halfbyte(*arguments)
    assert again.returncode == 2 and "m-Q8_0-00001-of-00003.gguf exists" in again.stderr


def test_twice_quantized_is_allowed_with_a_warning(halfbyte: Halfbyte, model: Path) -> None:
    assert halfbyte("quantize", model.name, "Q8_0", "-o", "8.gguf").returncode == 0
    refused = halfbyte("quantize", "8.gguf", "Q4_0")
    assert refused.returncode == 2 and "is Q8_0 already" in refused.stderr
    done = halfbyte("quantize", "8.gguf", "Q4_0", "--allow-requantize")
    assert done.returncode == 0, done.stderr
    assert "warning: 121 tensors were quantized already; a model made of them is worse" in done.stderr
    converted = halfbyte("convert", "8.gguf", "--type", "Q4_0", "--allow-requantize", "--dry-run")
    assert converted.returncode == 0 and "warning: 121 tensors were quantized already" in converted.stderr


def test_what_was_asked_for_in_vain_is_told(halfbyte: Halfbyte, model: Path) -> None:
    dry = ("quantize", model.name, "--dry-run")
    done = halfbyte(*dry, "Q4_0", "--tensor-type", "attn_qq=Q8_0", "--nf4-as", "bf16")
    assert done.returncode == 0, done.stderr
    assert "note: 'attn_qq' is found in no tensor's name" in done.stderr
    assert "note: no tensor becomes NF4 or FP4, so none is stored as bf16" in done.stderr
    assert "'best'" not in done.stderr
    assert "that the search 'best' is for" in halfbyte(*dry, "F16", "--search", "best").stderr


def test_standard_output_is_no_file(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    done = halfbyte("quantize", model.name, "Q4_0", "-o", "-")
    assert done.returncode == 2 and "name a file" in done.stderr
    assert not (tmp_path / "-").exists()


def test_what_is_not_there_is_wrong_use(halfbyte: Halfbyte, model: Path) -> None:
    for arguments in (
        ("quantize", "none.gguf", "Q4_0"),
        ("quantize", model.name, "Q4_0", "--imatrix", "none.dat"),
        ("imatrix", model.name, "none.txt", "-o", "new.gguf"),
        ("compare", model.name, "none.gguf"),
        ("compare", model.name, model.name, "--text", "none.txt"),
        ("quantize", model.name, "Q4_0", "--dry-run", "-o", "none/new.gguf"),
    ):
        done = halfbyte(*arguments)
        assert done.returncode == 2, done.stderr
        assert "none" in done.stderr and "no " in done.stderr


def test_a_search_by_name(halfbyte: Halfbyte, model: Path) -> None:
    done = halfbyte("quantize", model.name, "Q4_0", "--search", "best", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    searched = {row["name"]: row["search"] for row in json.loads(done.stdout)["tensors"]}
    assert searched["blk.0.attn_q.weight"] == "best"
    assert searched["blk.0.attn_norm.weight"] is None
    assert "tensors are searched (best)" in done.stderr
    wrong = halfbyte("quantize", model.name, "Q4_0", "--search", "bset")
    assert wrong.returncode == 2
    assert "no search is called 'bset'; did you mean best?" in wrong.stderr


def test_types_of_bitsandbytes(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    """Their bytes include those of the absmaxes, wherever they are."""
    done = halfbyte("quantize", model.name, "nf4_dq:128", "--json")
    about = json.loads(done.stdout)
    assert about["output"] == "tiny-NF4_DQ_128.gguf"
    row = about["types"]["NF4_DQ_128"]
    matrices, blocks = row["tensors"], 2 * 256 // 128
    assert row["bytes"] == matrices * (blocks * (1 + 64) + 4 * (1 + 1))
    assert about["types"]["F16"]["tensors"] == 2  # embedding and output
    compared = json.loads(halfbyte("compare", model.name, "tiny-NF4_DQ_128.gguf", "--json").stdout)
    kind = compared["changed"][0]["kinds"]["ffn_up"]
    assert kind["types"] == ["NF4_DQ_128"]
    assert kind["bytes"] == row["bytes"] // matrices * 17
    assert 0.05 < kind["relative_rmse"] < 0.12
    shown = halfbyte("inspect", "tiny-NF4_DQ_128.gguf").stdout
    assert f"{matrices} tensors of kind nf4dq.128.256" in shown
    refused = halfbyte("quantize", model.name, "NF4", "--nf4-as", "q4_k")
    assert refused.returncode == 2
    halfbyte("quantize", model.name, "FP4", "--nf4-as", "q8_0-reversible", "-o", "r.gguf")
    assert f"{matrices} tensors of Q8_0 made of FP4" in halfbyte("inspect", "r.gguf").stdout
    halfbyte("quantize", model.name, "INT8", "-o", "i.gguf")
    assert f"{matrices} tensors of Q8_0 with one scale for each row" in halfbyte("inspect", "i.gguf").stdout
