"""What can be said beside a recipe, against llama.cpp's own files, byte by byte; and what only Halfbyte can do."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.quantize import Importance, quantize
from halfbyte.formats.errors import InvalidRequest
from halfbyte.formats.gguf import GGUFFile

from ..recipe_models import importance_of, write
from .options import CASES

EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures/quantize_options.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_the_same_files_as_llama_cpp(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    source = case.source(tmp_path)
    given = Importance(importance_of(source)) if case.weighted else None
    summary = quantize(source, tmp_path / "out.gguf", case.recipe, importance=given, **case.options)
    made = {path.name: f"{zlib.crc32(path.read_bytes()):08x}" for path in tmp_path.glob("out*")}
    assert made == EXPECTED[name]
    assert {path.name: size for path, size in summary.files} == {n: (tmp_path / n).stat().st_size for n in made}
    assert summary.path == min(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"split_max_tensors": 50}, [50, 50, 23]),
        ({"split_max_bytes": 10_000}, None),
        ({"split_max_tensors": 123}, [123]),
        ({"keep_split": True}, [123]),  # of a source that is one file
    ],
)
def test_split_while_written(tmp_path: Path, options: dict[str, int], counts: list[int] | None) -> None:
    write(tmp_path / "in.gguf", "alone")
    quantize(tmp_path / "in.gguf", tmp_path / "whole.gguf", "Q4_0")
    summary = quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q4_0", **options)
    with GGUFFile.open(summary.path) as split, GGUFFile.open(tmp_path / "whole.gguf") as whole:
        assert list(split.tensors) == list(whole.tensors) or options == {"keep_split": True}
        assert split.tensors.keys() == whole.tensors.keys()
        assert all(np.array_equal(split.tensors[n].data, one.data) for n, one in whole.tensors.items())
        assert {k: v for k, v in split.metadata.items() if not k.startswith("split.")} == dict(whole.metadata)
        found = [sum(Path(one.path) == path for one in split.tensors.values()) for path in split.paths]
        sizes = [sum(t.n_bytes for t in split.tensors.values() if Path(t.path) == path) for path in split.paths]
    assert found == counts or (counts is None and len(found) > 2 and max(sizes) <= 10_000)
    part = tmp_path / "out-00001-of-00009.gguf"  # which stands for the name of the whole
    assert quantize(tmp_path / "in.gguf", part, "Q4_0", dry_run=True, **options).files == summary.files


def test_files_that_cannot_be(tmp_path: Path) -> None:
    write(tmp_path / "in.gguf", "alone", split_counts=(100, 23))
    source, before = tmp_path / "in-00001-of-00002.gguf", sorted(tmp_path.iterdir())
    for options in ({"keep_split": True, "split_max_tensors": 5}, {"split_max_bytes": 0}, {"split_max_tensors": -1}):
        with pytest.raises(InvalidRequest, match=r"either the source says|at least one"):
            quantize(source, tmp_path / "out.gguf", "Q4_0", **options)
    for target in ("in.gguf", "in-00002-of-00002.gguf"):  # which would be the files that are read
        with pytest.raises(InvalidRequest, match=r"in-00001-of-00002.gguf is the file that is read"):
            quantize(source, tmp_path / target, "Q4_0", keep_split=True)
    for layers in ([17], [-1], range(17)):
        with pytest.raises(InvalidRequest, match=r"there is no layer|a model without layers"):
            quantize(source, tmp_path / "out.gguf", "Q4_0", prune_layers=layers)
    assert sorted(tmp_path.iterdir()) == before
    quantize(source, tmp_path / "out.gguf", "Q8_0", keep_split=True)
    with pytest.raises(InvalidRequest, match=r"out-00001-of-00002.gguf exists"):
        quantize(source, tmp_path / "out.gguf", "Q8_0", keep_split=True, overwrite=False)


def test_numbers_of_each_layer_are_pruned_with_it(tmp_path: Path) -> None:
    write(tmp_path / "in.gguf", "hybrid")
    quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q8_0", prune_layers=[0, 8])
    with GGUFFile.open(tmp_path / "in.gguf") as before, GGUFFile.open(tmp_path / "out.gguf") as after:
        assert after.metadata["llama.block_count"] == 7
        assert list(after.metadata["llama.attention.head_count_kv"]) == [4, 0] * 3 + [4]
        key = "llama.attention.head_count_kv"
        assert after.metadata.element_type(key) is before.metadata.element_type(key)
        assert not any(name.startswith("blk.7.") for name in after.tensors)


WRONG: dict[str, dict[str, object]] = {
    "no pair of a regular": {"overrides": {"ffn": "Q8_0"}},
    "8 is no type": {"output_type": 8},
    "no search is called None": {"search": None},
    "at least one byte": {"split_max_bytes": "2G"},
    "prune_layers=3": {"prune_layers": 3},
    "either the output stays": {"keep_output": True, "output_type": "Q8_0"},
}


@pytest.mark.parametrize("said", WRONG)
def test_requests_that_are_none(said: str, tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", "alone")
    with pytest.raises(InvalidRequest, match=said):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0", **WRONG[said])  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.parametrize("options", [{"output_type": "IQ1_S"}, {"embedding_type": "IQ2_XXS"}])
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_an_encoder_needs_is_asked_for_first(options: dict[str, str], dry_run: bool, tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", "alone")
    with pytest.raises(InvalidRequest, match="needs an importance matrix"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0", dry_run=dry_run, **options)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_what_is_copied_stays_what_it_was_called(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", "alone")
    for name, recipe, again, options, key in (
        ("best", "Q4_0", "Q4_0", {"search": "best"}, "halfbyte.quantize.search"),
        ("four", "NF4", "Q8_0", {"nf4_as": "q8_0-reversible"}, "halfbyte.nf4.reversible"),
        ("rows", "INT8", "Q8_0", {}, "halfbyte.int8.rows"),
    ):
        made, copied = tmp_path / f"{name}.gguf", tmp_path / f"{name}-again.gguf"
        quantize(tmp_path / "a.gguf", made, recipe, **options)  # type: ignore[arg-type]
        quantize(made, copied, again, allow_requantize=True)
        with GGUFFile.open(made) as one, GGUFFile.open(copied) as two:
            before, after = one.metadata[key], two.metadata[key]
            assert after == before if isinstance(before, str) else set(after) == set(before)

