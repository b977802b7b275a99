"""Typed metadata access: required, defaulted, must-equal, and nothing overlooked."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.formats.errors import UnsupportedError
from halfbyte.formats.gguf import GGUFFile, Metadata, ValueType
from halfbyte.formats.gguf.errors import MetadataError

from ..hostile.raw import ARR, BOOL, F32, F64, I8, I32, STR, U8, U16, U32, U64, Raw


def metadata() -> Metadata:
    raw = Raw().header(n_kv=14)
    raw.kv("general.architecture", STR, "llama").kv("llama.block_count", U32, 3).kv("llama.wide", U64, 2**63)
    raw.kv("llama.small", I8, -5).kv("llama.eps", F32, 0.1).kv("llama.double", F64, 0.1).kv("llama.causal", BOOL, 1)
    raw.kv("llama.one", U8, 1).array("llama.heads", I32, [4, 2, 4]).array("llama.names", STR, ["a", "b"])
    raw.kv("llama.rope.scaling.type", STR, "yarn").kv("llama.rope.scaling.factor", F32, 4.0)
    raw.kv("llama.rope.freq_base", F32, 1e4).kv("llama2.block_count", U16, 9)
    return GGUFFile.from_buffer(raw.done(), name="m.gguf").metadata


def test_mapping() -> None:
    md = metadata()
    assert len(md) == 14
    assert next(iter(md)) == "general.architecture"
    assert "llama.wide" in md
    assert "absent" not in md
    assert md["llama.wide"] == 2**63
    with pytest.raises(KeyError):
        md["absent"]


def test_require_gives_the_value() -> None:
    md = metadata()
    assert md.require("llama.block_count", int) == 3
    assert md.require("llama.small", int) == -5
    assert md.require("llama.double", float) == 0.1
    assert md.require("llama.eps", float) == float(np.float32(0.1))
    assert md.require("llama.causal", bool) is True
    assert md.require("general.architecture", str) == "llama"
    heads = md.require("llama.heads", list)
    assert isinstance(heads, np.ndarray)
    assert heads.dtype == np.int32
    assert [*heads] == [4, 2, 4]
    assert not heads.flags.writeable
    assert md.require("llama.names", list) == ["a", "b"]


def test_missing_key_names_key_and_file() -> None:
    with pytest.raises(MetadataError, match=r"m\.gguf.*'llama\.absent'.*missing"):
        metadata().require("llama.absent", int)


@pytest.mark.parametrize(
    ("key", "type_", "found"),
    [
        ("llama.block_count", str, "UINT32"),
        ("llama.block_count", float, "UINT32"),
        ("llama.block_count", bool, "UINT32"),
        ("llama.block_count", list, "UINT32"),
        ("llama.causal", int, "BOOL"),
        ("llama.eps", int, "FLOAT32"),
        ("general.architecture", int, "STRING"),
        ("llama.heads", int, "ARRAY of INT32"),
        ("llama.heads", str, "ARRAY of INT32"),
    ],
)
def test_wrong_type_names_key_offset_and_found_type(key: str, type_: type, found: str) -> None:
    md = metadata()
    for read in (lambda: md.require(key, type_), lambda: md.optional(key, type_, None)):
        with pytest.raises(MetadataError) as caught:
            read()
        assert caught.value.field == key
        assert caught.value.got == found
        assert caught.value.offset is not None
        assert "m.gguf" in str(caught.value)


def test_unknown_python_type_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="int, float, str, bool and list"):
        metadata().require("llama.heads", dict)


def test_optional() -> None:
    md = metadata()
    assert md.optional("llama.block_count", int, 7) == 3
    assert md.optional("llama.absent", int, 7) == 7
    assert md.optional("llama.absent", str, None) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.absent", 5),
        ("llama.causal", True),
        ("llama.block_count", 3),
        ("llama.eps", 0.1),  # compared as the float32 that is stored
        ("llama.double", 0.1),
        ("general.architecture", "llama"),
        ("llama.heads", [4, 2, 4]),
        ("llama.names", ["a", "b"]),
    ],
)
def test_expect_accepts(key: str, value: object) -> None:
    metadata().expect(key, value)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("llama.causal", False, "True"),
        ("llama.one", True, "1"),  # a number is no bool
        ("llama.block_count", 4, "3"),
        ("llama.block_count", 3.0, "3"),
        ("llama.eps", 0.2, "0.1"),
        ("general.architecture", "qwen3", "'llama'"),
        ("llama.heads", [4, 2], "ARRAY of INT32"),
    ],
)
def test_expect_refuses(key: str, value: object, found: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        metadata().expect(key, value)
    for part in (key, found, repr(value), "m.gguf"):
        assert part in str(caught.value)


def test_types_and_counts() -> None:
    md = metadata()
    assert md.value_type("llama.heads") is ValueType.ARRAY
    assert md.element_type("llama.heads") is ValueType.INT32
    assert md.element_type("llama.eps") is None
    assert (md.count("llama.heads"), md.count("llama.eps")) == (3, 1)
    assert md.scope("llama").value_type("eps") is ValueType.FLOAT32


def read_most() -> object:
    scope = metadata().scope("llama")
    scope.require("block_count", int)
    scope.optional("wide", int, 0)
    scope.expect("causal", True)
    scope.require("heads", list)
    scope.ignore("small", "eps", "double", "one", "names")
    return scope


def test_done_lists_what_nobody_read() -> None:
    scope = read_most()
    with pytest.raises(UnsupportedError) as caught:
        scope.done()  # type: ignore[attr-defined]
    message = str(caught.value)
    assert "llama.rope.scaling.type, llama.rope.scaling.factor, llama.rope.freq_base" in message
    assert "llama2.block_count" not in message  # another scope
    assert "llama.small" not in message
    assert "update Halfbyte" in message


def test_ignore_takes_whole_branches() -> None:
    scope = read_most()
    scope.ignore("rope.scaling.*")  # type: ignore[attr-defined]
    assert scope.unread() == ["llama.rope.freq_base"]  # type: ignore[attr-defined]
    scope.ignore("rope.*")  # type: ignore[attr-defined]
    scope.done()  # type: ignore[attr-defined]


def test_ignored_branch_is_not_a_prefix_of_names() -> None:
    raw = Raw().header(n_kv=2).kv("a.rope.x", U8, 1).kv("a.ropes", U8, 1)
    scope = GGUFFile.from_buffer(raw.done()).metadata.scope("a")
    scope.ignore("rope.*")
    assert scope.unread() == ["a.ropes"]


def test_inner_scope_counts_for_the_outer() -> None:
    scope = metadata().scope("llama")
    rope = scope.scope("rope")
    assert "freq_base" in rope
    assert rope.require("freq_base", float) == 1e4
    assert rope.unread() == ["llama.rope.scaling.type", "llama.rope.scaling.factor"]
    assert "llama.rope.freq_base" not in scope.unread()


def test_a_failed_read_counts_as_read() -> None:
    scope = metadata().scope("llama")
    with pytest.raises(MetadataError):
        scope.require("eps", int)
    assert "llama.eps" not in scope.unread()


def test_long_lists_of_unread_keys_are_cut() -> None:
    raw = Raw().header(n_kv=30)
    for i in range(30):
        raw.kv(f"a.{i}", U8, 0)
    with pytest.raises(UnsupportedError, match=r"a\.9 and 20 more"):
        GGUFFile.from_buffer(raw.done()).metadata.scope("a").done()


def test_strings_keep_bytes_that_are_not_utf8() -> None:
    data = Raw().header(n_kv=1).array("t", STR, [b"\xe2\x96\x81a", b"\xff\x80", b"\xed\xa0\x80"]).done()
    tokens = GGUFFile.from_buffer(data).metadata.require("t", list)
    assert tokens[0] == "▁a"
    assert [t.encode("utf-8", "surrogateescape") for t in tokens[1:]] == [b"\xff\x80", b"\xed\xa0\x80"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_are_native_and_aligned(order: str) -> None:
    data = Raw(order).header(n_kv=2).array("odd", F64, [1.5, -2.0]).array("b", BOOL, [0, 1]).done()
    md = GGUFFile.from_buffer(data).metadata
    array = md.require("odd", list)
    assert isinstance(array, np.ndarray)
    assert array.flags.aligned
    assert array.dtype.isnative
    assert [*array] == [1.5, -2.0]
    assert md["b"].dtype == np.bool_  # type: ignore[union-attr]
    assert ARR == ValueType.ARRAY
