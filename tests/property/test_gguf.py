"""Random GGUF files: write -> read -> write gives the same bytes, and the gguf package reads what we write.

HALFBYTE_TEST_EXAMPLES is how many files are made up for each test; the long run, of some minutes, is

    HALFBYTE_TEST_EXAMPLES=10000 pytest tests/property
"""

from __future__ import annotations

import io
import math
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf import GGUFWriter as PeerWriter
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter, ValueType
from halfbyte.formats.gguf.tensors import SWAPPED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..switches import examples

INTS = {
    ValueType.UINT8: (0, 2**8 - 1),
    ValueType.INT8: (-(2**7), 2**7 - 1),
    ValueType.UINT16: (0, 2**16 - 1),
    ValueType.INT16: (-(2**15), 2**15 - 1),
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UINT64: (0, 2**64 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
}
# The gguf package swaps these when it reads a big-endian file; to it, everything else is bytes.
PEER_SWAPS = {GGMLType.F32, GGMLType.F16, GGMLType.F64, GGMLType.I8, GGMLType.I16, GGMLType.I32, GGMLType.I64}


EVERY_RUN_ALIKE = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)


@dataclass(frozen=True)
class Model:
    """What to write: keys as (type, element type, value), tensors as (shape, type)."""

    version: int
    byte_order: str
    alignment: int
    keys: dict[str, tuple[ValueType, ValueType | None, Any]]
    tensors: dict[str, tuple[tuple[int, ...], GGMLType]]
    split_tensors: int | None

    def data(self, name: str) -> bytes:
        shape, type_ = self.tensors[name]
        n = math.prod(shape[:-1]) * type_.row_bytes(shape[-1] if shape else 1)
        return np.random.default_rng(len(name) + n).bytes(n)


def values(type_: ValueType) -> st.SearchStrategy[Any]:
    if type_ in INTS:
        return st.integers(*INTS[type_])
    if type_ is ValueType.BOOL:
        return st.booleans()
    if type_ is ValueType.STRING:
        return st.text(max_size=20) | st.binary(max_size=12).map(lambda b: b.decode("utf-8", "surrogateescape"))
    return st.floats(width=32 if type_ is ValueType.FLOAT32 else 64, allow_nan=False)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[ValueType, ValueType | None, Any]:
    type_ = draw(st.sampled_from(ValueType))
    if type_ is not ValueType.ARRAY:
        return type_, None, draw(values(type_))
    element = draw(st.sampled_from([t for t in ValueType if t is not ValueType.ARRAY]))
    return type_, element, draw(st.lists(values(element), max_size=6))


@st.composite
def shapes(draw: st.DrawFn, type_: GGMLType) -> tuple[int, ...]:
    rows = draw(st.lists(st.integers(0, 4), max_size=3))
    return (*rows, draw(st.integers(0, 3)) * type_.block_size)


@st.composite
def models(draw: st.DrawFn) -> Model:
    order = draw(st.sampled_from("<<>"))
    types = st.sampled_from(list(SWAPPED) if order == ">" else [t for t in GGMLType if t.on_disk])
    names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)
    keys = draw(st.dictionaries(names.filter(lambda k: not k.startswith(("split.", "general."))), typed_values()))
    tensors = draw(st.dictionaries(names, types.flatmap(lambda t: st.tuples(shapes(t), st.just(t))), max_size=6))
    alignment = draw(st.sampled_from([1 << k for k in range(13)]))
    return Model(draw(st.sampled_from([2, 3])), order, alignment, keys, tensors, draw(st.sampled_from([None, 1, 2])))


def write(model: Model, path: Path, *, pieces: int = 1) -> list[Path]:
    """Write `model`; each tensor is given in `pieces` pieces."""
    options = {"version": model.version, "byte_order": model.byte_order, "alignment": model.alignment}
    writer = GGUFWriter(path, **options, split_max_tensors=model.split_tensors)  # type: ignore[arg-type]
    for key, (type_, element, value) in model.keys.items():
        writer.add(key, value, type_ if element is None else element)
    for name, (shape, type_) in model.tensors.items():
        writer.add_tensor(name, shape, type_)
    with writer.open():
        for name in model.tensors:
            data = model.data(name)
            block = model.tensors[name][1].block_bytes
            step = block * max(1, len(data) // block // pieces)
            writer.write_tensor(name, [data[i : i + step] for i in range(0, len(data), step)])
    return [plan.path for plan in writer.plan()]


def rewrite(file: GGUFFile, path: Path, split_tensors: int | None) -> list[Path]:
    writer = GGUFWriter(path, version=file.version, byte_order=file.byte_order, split_max_tensors=split_tensors)
    writer.add_all(file.metadata)
    for tensor in file.tensors.values():
        writer.add_tensor(tensor.name, tensor.shape, tensor.type)
    with writer:
        for tensor in file.tensors.values():
            writer.write_tensor(tensor.name, tensor.data)
    return [plan.path for plan in writer.plan()]


def is_utf8(value: object) -> bool:
    return not any("\udc80" <= c <= "\udcff" for c in "".join(map(str, value if isinstance(value, list) else [value])))


def equal(found: object, value: object) -> bool:
    return [*found] == value if isinstance(found, np.ndarray) else found == value and type(found) is type(value)


@settings(EVERY_RUN_ALIKE, max_examples=examples())
@given(models(), st.integers(1, 3))
def test_write_read_write(model: Model, pieces: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = write(model, Path(folder, "a.gguf"), pieces=pieces)
        with GGUFFile.open(first[-1]) as file:
            assert (file.version, file.byte_order, file.alignment) == (
                model.version,
                model.byte_order,
                model.alignment,
            )
            for key, (type_, element, value) in model.keys.items():
                assert equal(file.metadata[key], value)
                assert (file.metadata.value_type(key), file.metadata.element_type(key)) == (type_, element)
            assert list(file.tensors) == list(model.tensors)
            for name, (shape, type_) in model.tensors.items():
                tensor = file.tensors[name]
                assert (tensor.shape, tensor.type) == (shape or (1,), type_)
                assert tensor.data.tobytes() == model.data(name)
            second = rewrite(file, Path(folder, "b.gguf"), model.split_tensors)
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
        assert not list(Path(folder).glob("*.partial"))


@settings(EVERY_RUN_ALIKE, max_examples=max(1, examples() * 3 // 10))  # the other reader is slow
@given(models())
def test_the_gguf_package_reads_what_we_write(model: Model) -> None:
    # Its limits: known types, no empty tensors or arrays, valid UTF-8, no keys that collide with its header fields.
    known = {int(t) for t in GGMLQuantizationType} - {GGMLType.Q8_1}  # gguf 0.19 takes 40 bytes a block, ggml 36
    tensors = {
        name: (shape, type_)
        for name, (shape, type_) in model.tensors.items()
        if 0 not in shape and int(type_) in known and (model.byte_order == "<" or type_ in PEER_SWAPS)
    }
    keys = {k: v for k, v in model.keys.items() if v[2] != [] and is_utf8(v[2]) and not k.startswith("GGUF.")}
    model = Model(model.version, model.byte_order, model.alignment, keys, tensors, None)
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write(model, Path(folder, "a.gguf"))
        with redirect_stdout(io.StringIO()):
            reader = GGUFReader(path)
        for key, (type_, element, value) in keys.items():
            peer = reader.get_field(key)
            assert peer is not None
            assert [int(t) for t in peer.types] == [type_, element] if element is not None else [type_]
            assert [*peer.contents()] == value if element is not None else peer.contents() == value
        for tensor, (name, (shape, _)) in zip(reader.tensors, tensors.items(), strict=True):
            assert tensor.name == name
            assert tuple(int(n) for n in reversed(tensor.shape)) == shape
            stored = tensor.data.astype(tensor.data.dtype.newbyteorder("<"))
            assert stored.tobytes() == model.data(name)


@pytest.mark.parametrize("order", ["<", ">"])
def test_we_read_what_the_gguf_package_writes(order: str, tmp_path: Path) -> None:
    from gguf import GGUFEndian

    path = tmp_path / "peer.gguf"
    peer = PeerWriter(path, "llama", endianess=GGUFEndian.LITTLE if order == "<" else GGUFEndian.BIG)
    peer.add_uint32("a.u32", 7)
    peer.add_float32("a.f32", 0.5)
    peer.add_float64("a.f64", 0.1)
    peer.add_bool("a.bool", True)
    peer.add_int64("a.i64", -(2**40))
    peer.add_token_list(["<s>", "hello", "é"])
    peer.add_token_scores([0.0, -1.5, 2.0])
    peer.add_token_types([3, 1, 1])
    rng = np.random.default_rng(0)
    f32 = rng.standard_normal((3, 5)).astype(np.float32)
    f16 = rng.standard_normal((2, 3, 7)).astype(np.float16)
    i8 = rng.integers(-100, 100, 33).astype(np.int8)
    for name, array in (("f32", f32), ("f16", f16), ("i8", i8)):
        peer.add_tensor(name, array.copy())
    peer.write_header_to_file()
    peer.write_kv_data_to_file()
    peer.write_tensors_to_file()
    peer.close()
    with GGUFFile.open(path) as file:
        assert (file.version, file.byte_order) == (3, order)
        md = file.metadata
        assert md.require("general.architecture", str) == "llama"
        assert (md["a.u32"], md["a.f32"], md["a.f64"], md["a.bool"], md["a.i64"]) == (7, 0.5, 0.1, True, -(2**40))
        assert md["tokenizer.ggml.tokens"] == ["<s>", "hello", "é"]
        assert [*md.require("tokenizer.ggml.scores", list)] == [0.0, -1.5, 2.0]
        assert md.element_type("tokenizer.ggml.token_type") is ValueType.INT32
        for name, array in (("f32", f32), ("f16", f16), ("i8", i8)):
            assert file.tensors[name].shape == array.shape
            assert file.tensors[name].data.tobytes() == array.tobytes()


def test_we_read_shards_of_the_gguf_package(tmp_path: Path) -> None:
    peer = PeerWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    for i in range(5):
        peer.add_tensor(f"t{i}", np.full((2, 3), i, np.float32))
    peer.write_header_to_file()
    peer.write_kv_data_to_file()
    peer.write_tensors_to_file()
    peer.close()
    with GGUFFile.open(tmp_path / "m-00002-of-00003.gguf") as file:
        assert list(file.tensors) == [f"t{i}" for i in range(5)]
        assert file.tensors["t4"].data.view("<f4")[0, 0] == 4.0


def test_our_shards_equal_those_of_the_gguf_package(tmp_path: Path) -> None:
    """Byte for byte, but for the order of the keys in the first shard."""
    arrays = {f"t{i}": np.full((2, 3 + i), i, np.float32) for i in range(5)}
    peer = PeerWriter(tmp_path / "peer.gguf", "llama", split_max_tensors=2)
    ours = GGUFWriter(tmp_path / "ours.gguf", split_max_tensors=2)
    ours.add("general.architecture", "llama")
    for name, array in arrays.items():
        peer.add_tensor(name, array)
        ours.add_tensor(name, array.shape, GGMLType.F32)
    peer.write_header_to_file()
    peer.write_kv_data_to_file()
    peer.write_tensors_to_file()
    peer.close()
    with ours.open():
        for name, array in arrays.items():
            ours.write_tensor(name, array)
    for i in (1, 2, 3):
        theirs = (tmp_path / f"peer-0000{i}-of-00003.gguf").read_bytes()
        assert (tmp_path / f"ours-0000{i}-of-00003.gguf").read_bytes() == theirs
