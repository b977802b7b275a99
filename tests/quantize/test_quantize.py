"""Whole files against llama.cpp's, byte by byte, and what goes wrong with them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.quantize import RECIPES, Choices, Importance, plan, quantize
from halfbyte.formats.errors import Cancelled, InvalidRequest, ModelFileError, UnsupportedError
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.formats.quants import CODECS, CodecError, decode
from halfbyte.runtime.backends.base import CancelFlag

from ..recipe_models import by_kind, importance_of, write

EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures/recipes.json").read_text(encoding="utf-8"))
MODELS = ("alone", "shared", "eight", "odd")
COPIED = ("F16", "F32")  # types of the models themselves


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for name in MODELS:
        write(folder / f"{name}.gguf", name)
    return {name: folder / f"{name}.gguf" for name in MODELS}


def importance(path: Path) -> Importance:
    return Importance(importance_of(path))


def has_encoders(path: Path, recipe: str, weighted: bool) -> bool:
    with GGUFFile.open(path) as file:
        planned = plan(file, recipe, Choices(has_importance=weighted))
    return all(one.type in CODECS for one in planned)


@pytest.mark.parametrize("kind", ["plain", "weighted"])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_file_as_llama_cpp(
    models: dict[str, Path], tmp_path: Path, model: str, recipe: str, kind: str
) -> None:
    expected, source, target = EXPECTED[model][recipe][kind], models[model], tmp_path / "out.gguf"
    if not has_encoders(source, recipe, kind == "weighted"):
        pytest.skip("a type of this recipe has no encoder yet")
    given = importance(source) if kind == "weighted" else None
    if expected is None and recipe == "Q1_0":
        pytest.skip("llama.cpp has nothing for rows that are not whole blocks of Q1_0")
    if expected is None:
        with pytest.raises(InvalidRequest, match="importance matrix"):
            quantize(source, target, recipe, importance=given)
        assert list(tmp_path.iterdir()) == []
        return
    quantize(source, target, recipe, importance=given)
    with GGUFFile.open(target) as file:  # says more than the checksum where types are wrong
        assert by_kind({name: tensor.type.name for name, tensor in file.tensors.items()}) == expected["types"]
    assert f"{zlib.crc32(target.read_bytes()):08x}" == expected["crc"]


def test_where_the_importance_came_from_is_recorded(models: dict[str, Path], tmp_path: Path) -> None:
    given = Importance(importance_of(models["shared"]), "a.imatrix", "some text", 7)
    quantize(models["shared"], tmp_path / "a.gguf", "Q4_0", importance=given)
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        found = {k: v for k, v in file.metadata.items() if k.startswith("quantize.imatrix.")}
        assert found == {
            "quantize.imatrix.file": "a.imatrix", "quantize.imatrix.dataset": "some text",
            "quantize.imatrix.entries_count": len(given.columns), "quantize.imatrix.chunks_count": 7,
        }  # fmt: skip
        assert file.metadata["general.file_type"] == 2
        assert file.metadata["general.quantization_version"] == 2


UP = "blk.0.ffn_up.weight"


def model_of(path: Path, weights: np.ndarray, ggml_type: GGMLType = GGMLType.F32, name: str = UP) -> Path:
    writer = GGUFWriter(path)
    writer.add("general.architecture", "llama")
    writer.add("llama.block_count", 1)
    writer.add_tensor(name, weights.shape, ggml_type)
    with writer.open():
        writer.write_tensor(name, CODECS[ggml_type].encode(weights) if weights.size else b"")
    return path


def test_pieces_of_a_large_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that end anywhere in a batch, and a progress that counts every byte once."""
    x = np.random.default_rng(1).standard_normal((3, 67, 96)).astype(np.float32)
    source, seen = model_of(tmp_path / "a.gguf", x), []
    monkeypatch.setattr("halfbyte.converters.quantize.run.PIECE_WEIGHTS", 96 * 7)
    quantize(source, tmp_path / "b.gguf", "Q5_1", progress=lambda *state: seen.append(state))
    with GGUFFile.open(tmp_path / "b.gguf") as file:
        np.testing.assert_array_equal(file.tensors["blk.0.ffn_up.weight"].data, CODECS[GGMLType.Q5_1].encode(x))
    steps = [done for stage, done, total in seen if stage == "quantize"]
    assert steps == sorted(set(steps)) and steps[-1] == x.nbytes


@pytest.mark.parametrize("before", [GGMLType.F16, GGMLType.BF16, GGMLType.Q8_0, GGMLType.Q4_K], ids=lambda t: t.name)
def test_from_other_types(tmp_path: Path, before: GGMLType) -> None:
    x = np.random.default_rng(2).standard_normal((33, 512)).astype(np.float32)
    source = model_of(tmp_path / "a.gguf", x, before)
    if before.block_size > 1:
        with pytest.raises(InvalidRequest, match=rf"is {before.name} already.*allow"):
            quantize(source, tmp_path / "b.gguf", "Q6_K")
    quantize(source, tmp_path / "b.gguf", "Q6_K", allow_requantize=True)
    given = decode(CODECS[before].encode(x), before)
    with GGUFFile.open(tmp_path / "b.gguf") as file:
        np.testing.assert_array_equal(file.tensors["blk.0.ffn_up.weight"].data, CODECS[GGMLType.Q6_K].encode(given))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    x = np.zeros((600, 4096), np.float32)
    x[599, 4000] = value
    source = model_of(tmp_path / "a.gguf", x)
    with pytest.raises(CodecError, match=rf"blk.0.ffn_up.weight.*weight 4000 of row 599 is {value}"):
        quantize(source, tmp_path / "b.gguf", "Q4_K_M")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_the_source_is_not_the_target(tmp_path: Path) -> None:
    source = model_of(tmp_path / "a.gguf", np.ones((4, 256), np.float32))
    before = source.read_bytes()
    (tmp_path / "link.gguf").symlink_to(source)
    for target in (source, tmp_path / "link.gguf"):
        with pytest.raises(InvalidRequest, match="is the file that is read"):
            quantize(source, target, "Q4_0")
    assert source.read_bytes() == before


def test_an_importance_of_another_model(models: dict[str, Path], tmp_path: Path) -> None:
    columns = importance_of(models["alone"])
    columns["blk.3.ffn_up.weight"] = np.ones(128, np.float32)
    with pytest.raises(InvalidRequest, match=r"blk.3.ffn_up.weight.*128 numbers.*256.*another model"):
        quantize(models["alone"], tmp_path / "b.gguf", "Q4_0", importance=Importance(columns))


def test_cancelled(models: dict[str, Path], tmp_path: Path) -> None:
    flag = CancelFlag()

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "quantize":
            flag.set()

    with pytest.raises(Cancelled):
        quantize(models["alone"], tmp_path / "b.gguf", "Q8_0", progress=stop, cancel=flag)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_the_unfinished_target(tmp_path: Path) -> None:
    source = model_of(tmp_path / "a.gguf.partial", np.ones((4, 256), np.float32))
    before = source.read_bytes()
    with pytest.raises(InvalidRequest, match=r"a.gguf.partial is the file that is read"):
        quantize(source, tmp_path / "a.gguf", "Q4_0")
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", [UP, "blk.0.attn_norm.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_no_numbers_are_refused_too(tmp_path: Path, name: str, value: float) -> None:
    x = np.ones((5, 64), np.float32)
    x[3, 7] = value
    source, recipe = model_of(tmp_path / "a.gguf", x, name=name), "F32" if name == UP else "Q4_0"
    for target in (recipe, "F16", "BF16"):
        with pytest.raises(CodecError, match=rf"{name}.*weight 7 of row 3 is {value}"):
            quantize(source, tmp_path / "b.gguf", target)
    quantize(source, tmp_path / "b.gguf", "F32", allow_nonfinite=True)
    with GGUFFile.open(tmp_path / "b.gguf") as file:
        np.testing.assert_array_equal(file.tensors[name].data.view(np.float32), x)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "Q6_K", "IQ1_M"])  # of IQ1_M no field of a block is a float
@pytest.mark.parametrize("bad", [0x7C00, 0xFE00])
def test_scales_that_are_no_numbers_are_not_copied(tmp_path: Path, name: str, bad: int) -> None:
    codec, recipe = CODECS[GGMLType[name]], "Q4_K_M" if name in ("Q4_K", "Q6_K") else "Q4_0"
    x = np.random.default_rng(4).standard_normal((4, 512)).astype(np.float32)
    blocks = codec.encode(x).view(codec.block)
    if name == "IQ1_M":  # four bits of the scale in each word
        nibbles = np.array([bad >> shift & 15 for shift in (0, 4, 8, 12)], np.uint16)
        blocks["scales"][2, 1] = blocks["scales"][2, 1] & 0x0FFF | nibbles << 12
    else:
        blocks["d"].view(np.uint16)[2, 1] = bad
    source, options = model_of(tmp_path / "a.gguf", x, GGMLType[name]), {"overrides": [(UP, name)]}
    source.write_bytes(source.read_bytes().replace(codec.encode(x).tobytes(), blocks.tobytes()))
    with pytest.raises(CodecError, match=rf"{UP}.*weight \d+ of row 2 .*--allow-nonfinite"):
        quantize(source, tmp_path / "b.gguf", recipe, **options)
    quantize(source, tmp_path / "b.gguf", recipe, **options, allow_nonfinite=True)
    with GGUFFile.open(tmp_path / "b.gguf") as file:
        np.testing.assert_array_equal(file.tensors[UP].data, blocks.view(np.uint8))


def test_a_weight_beyond_float16(tmp_path: Path) -> None:
    x = np.full((2, 64), 1e6, np.float32)
    with pytest.raises(CodecError, match="F16: weight 0 of row 0 is inf"):
        quantize(model_of(tmp_path / "a.gguf", x), tmp_path / "b.gguf", "F16")


def test_allowed_they_become_zero(tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((9, 256)).astype(np.float32)
    bad = x.copy()
    bad[4, 10:12] = np.nan, -np.inf
    x[4, 10:12] = 0
    quantize(model_of(tmp_path / "a.gguf", bad), tmp_path / "b.gguf", "Q6_K", allow_nonfinite=True)
    with GGUFFile.open(tmp_path / "b.gguf") as file:
        np.testing.assert_array_equal(file.tensors[UP].data, CODECS[GGMLType.Q6_K].encode(x))


@pytest.mark.parametrize("shape", [(3, 0), (0, 64), (2, 3, 0), (4, 0, 64)])
def test_tensors_of_nothing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    source = model_of(tmp_path / "a.gguf", np.zeros(shape, np.float32))
    quantize(source, tmp_path / "b.gguf", "Q4_0")
    with GGUFFile.open(tmp_path / "b.gguf") as file:
        assert file.tensors[UP].shape == shape


def test_an_importance_that_knows_nothing_of_the_model_or_not_all(tmp_path: Path) -> None:
    source = model_of(tmp_path / "a.gguf", np.ones((4, 3, 2, 64), np.float32))
    with pytest.raises(InvalidRequest, match="knows none of these tensors"):
        quantize(source, tmp_path / "b.gguf", "Q4_0", importance=Importance({"x": np.ones((1, 64), np.float32)}))
    with pytest.raises(InvalidRequest, match="192 numbers for it, not 768"):
        quantize(source, tmp_path / "b.gguf", "Q4_0", importance=Importance({UP: np.ones((3, 64), np.float32)}))
    given = Importance({UP: np.ones((12, 64), np.float32)})
    summary = quantize(source, tmp_path / "b.gguf", "Q5_0", importance=given)
    assert summary.without_importance == ()
    write(tmp_path / "c.gguf", "alone")
    columns = importance_of(tmp_path / "c.gguf")
    del columns["blk.3.ffn_up.weight"]
    summary = quantize(tmp_path / "c.gguf", tmp_path / "d.gguf", "Q4_0", importance=Importance(columns), dry_run=True)
    assert summary.without_importance == ("blk.3.ffn_up.weight",)


def test_a_dry_run_finds_what_a_real_one_would(models: dict[str, Path], tmp_path: Path) -> None:
    dry = quantize(models["alone"], tmp_path / "a.gguf", "Q4_K_M", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert dry.bytes_after == quantize(models["alone"], tmp_path / "a.gguf", "Q4_K_M").bytes_after
    with pytest.raises(InvalidRequest, match=r"'output.weight' has rows of 288.*Q4_K; Q5_0 fits"):
        quantize(models["odd"], tmp_path / "b.gguf", "Q4_0", output_type="Q4_K", dry_run=True)
    with pytest.raises(InvalidRequest, match="already"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0", dry_run=True)
    for threads in (0, -1):
        with pytest.raises(InvalidRequest, match="at least one"):
            quantize(models["alone"], tmp_path / "b.gguf", "Q4_0", threads=threads)


def test_metadata_that_is_no_number(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf")
    writer.add("general.architecture", "llama")
    writer.add("llama.expert_count", "abc")
    writer.open().close()
    with pytest.raises(ModelFileError, match=r"llama\.expert_count"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0")


def test_types_that_cannot_be_read(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf")
    writer.add("general.architecture", "llama")
    writer.add_tensor(UP, (4, 64), GGMLType.I32)
    with writer.open():
        writer.write_tensor(UP, np.zeros((4, 64), np.int32))
    with pytest.raises(UnsupportedError, match=rf"{UP}.*I32, which cannot become Q4_0"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0")
