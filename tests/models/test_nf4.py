"""Models in bitsandbytes' types, quantized, stored and run: the CPU backend against the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.quantize import quantize
from halfbyte.formats.errors import InvalidRequest
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.formats.gguf.kinds import KINDS
from halfbyte.formats.quants import decode
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.backends.repack import repack
from halfbyte.runtime.graph.ir import Weight
from halfbyte.runtime.models import ModelSpec, build_model
from numpy.typing import NDArray

from ..builders import CASES, N_TOKENS, Case, write_gguf
from ..switches import needs_kernels
from ..tolerances import INT8_LOGITS
from .running import N_PAGES, distance, prefill
from .test_cpu import compiled

UP = "blk.0.ffn_up.weight"


@pytest.fixture(scope="module")
def case() -> Case:
    config = {**CASES["llama"].config, "hidden_size": 192, "intermediate_size": 320, "head_dim": 48}
    return replace(CASES["llama"], config=config)


@pytest.fixture(scope="module")
def source(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(case, tmp_path_factory.mktemp("nf4") / "source.gguf")


def made(source: Path, folder: Path, recipe: str) -> Path:
    target = folder / f"{recipe.replace(':', '_')}.gguf"
    quantize(source, target, recipe, threads=1)
    return target


def reversible(source: Path, folder: Path) -> Path:
    target = folder / "reversible.gguf"
    quantize(source, target, "NF4", nf4_as="q8_0-reversible", threads=1)
    return target


def types(path: Path) -> dict[str, str]:
    with GGUFFile.open(path) as file:
        return {name: tensor.type.name for name, tensor in file.tensors.items()}


def logits(spec: ModelSpec, case: Case) -> NDArray[np.float32]:
    return prefill(ReferenceBackend().compile(spec.graph, n_pages=N_PAGES, max_tokens=2 * N_TOKENS), case.tokens())


@needs_kernels
@pytest.mark.parametrize("form", ["NF4", "NF4_DQ", "NF4:32", "q8_0-reversible"])
def test_the_same_logits_as_the_reference(case: Case, source: Path, tmp_path: Path, form: str) -> None:
    """What is stored as Q8_0 has rounded levels, and kernels go back to the codes: those of the native file."""
    is_reversible = form.startswith("q8_0")
    native = made(source, tmp_path, "NF4" if is_reversible else form)
    with GGUFFile.open(native) as file:
        spec = build_model(file, context=64)
    with GGUFFile.open(reversible(source, tmp_path) if is_reversible else native) as file:
        executor = compiled(build_model(file, context=64).graph)
    try:
        found = prefill(executor, case.tokens())
    finally:
        executor.close()
    assert distance(found, logits(spec, case)) < INT8_LOGITS


def test_what_becomes_of_tensors(source: Path, tmp_path: Path) -> None:
    found = types(made(source, tmp_path, "NF4:128"))
    assert found["token_embd.weight"] == "F16"
    assert found["output_norm.weight"] == "F32"
    assert found[UP] == "Q8_0"  # rows of 192
    assert types(made(source, tmp_path, "FP4_DQ"))[UP] == "FP4_DQ"
    with GGUFFile.open(made(source, tmp_path, "INT8")) as file:
        assert file.tensors[UP].type is GGMLType.Q8_0
        assert UP in file.metadata.require("halfbyte.int8.rows", list)
        scales = file.tensors[UP].data.reshape(320, -1, 34)[:, :, :2]
        assert (scales == scales[:, :1]).all()


def test_forms_of_one_weight(source: Path, tmp_path: Path) -> None:
    """What other programs are given, and what a copy of a container keeps."""
    native = made(source, tmp_path, "NF4_DQ")
    with GGUFFile.open(native) as file:
        tensor = file.tensors[UP]
        raw, weights = tensor.raw.copy(), decode(tensor.data, tensor.type)  # type: ignore[attr-defined]
        assert "general.file_type" not in file.metadata
    copied = tmp_path / "copied.gguf"
    quantize(native, copied, "NF4_DQ", threads=1)
    with GGUFFile.open(copied) as file:
        assert np.array_equal(file.tensors[UP].raw, raw)  # type: ignore[attr-defined]
    as_bf16 = tmp_path / "bf16.gguf"
    quantize(source, as_bf16, "NF4_DQ", nf4_as="bf16", threads=1)
    with GGUFFile.open(as_bf16) as file:
        assert file.tensors[UP].type is GGMLType.BF16
        assert not [key for key in file.metadata if key.startswith("halfbyte.")]
        off = decode(file.tensors[UP].data, GGMLType.BF16) - weights
        assert np.abs(off).max() <= 2**-8 * np.abs(weights).max()
    with pytest.raises(InvalidRequest, match="blocks of 32 cannot be told back"):
        quantize(source, tmp_path / "x.gguf", "NF4:32", nf4_as="q8_0-reversible", threads=1)


@pytest.mark.parametrize("name", ["NF4_DQ", "FP4_512", "NF4_DQ_32"])
def test_weights_that_kernels_read_in_smaller_blocks(name: str) -> None:
    from ..builders_quants import random_blocks

    type_ = GGMLType[name]
    data = random_blocks(type_, (2, 3, 1024), np.random.default_rng(2))
    weight = repack(Weight("w", type_, (2, 3, 1024), data))
    assert weight.type.name in ("NF4", "FP4", "NF4_32")
    assert weight.data.shape == (2, 3, weight.type.row_bytes(1024))
    before, after = decode(data, type_), decode(weight.data, weight.type)
    assert np.abs(after - before).max() <= (2**-11 if KINDS[type_].nested else 0) * np.abs(before).max()


def test_q8_0_that_was_changed_stays_q8_0(source: Path, tmp_path: Path) -> None:
    with GGUFFile.open(reversible(source, tmp_path)) as file:
        tensor = file.tensors[UP]
        good = Weight(tensor.name, tensor.type, tensor.shape, tensor.data.copy(), tensor.made_of)
    assert (good.made_of, repack(good).type) == (GGMLType.NF4, GGMLType.NF4)
    assert repack(good.rows(3, 9)).type is GGMLType.NF4
    good.data[5, 2] += 1
    assert repack(good) is good
