"""Named hostile GGUF files. Each says what it is a case of, and which error, field and offset it must give.

Origins: `llama:` cases of llama.cpp's tests/test-gguf.cpp, CVE and issue numbers of GGUF parsers, `spec` for rules of
the format, `own` for ours. A seed with `error=None` is a control: it must load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from halfbyte.formats.gguf import errors as e

from .raw import ARR, BOOL, CODES, F64, I8, I32, STR, U8, U16, U32, U64, U64_MAX, Raw

HEADER = 24  # bytes before the first key
Q4_0, Q8_0, Q4_K, T_I8, T_I64 = 2, 8, 12, 24, 27


@dataclass(frozen=True)
class Seed:
    """A file and the verdict it must get."""

    name: str
    origin: str
    data: bytes
    error: type[e.GGUFError] | None = None
    field: str | None = None
    offset: int | None = None


SEEDS: list[Seed] = []


def seeds(make: Callable[[], Iterator[Seed]]) -> Callable[[], Iterator[Seed]]:
    SEEDS.extend(make())
    return make


def one_tensor(**tensor: object) -> Raw:
    """A header with one tensor info, not yet padded. The tensor info begins at byte 24."""
    return Raw().header(1).tensor(**tensor)  # type: ignore[arg-type]


@seeds
def _starts() -> Iterator[Seed]:
    yield Seed(
        "bad_magic", "llama:HEADER_BAD_MAGIC", Raw().header(magic=b"FUGG").pad().done(), e.NotGGUFError, "magic", 0
    )
    yield Seed("empty_file", "AT-29", b"", e.NotGGUFError, "magic", 0)
    yield Seed("one_byte", "own", b"G", e.NotGGUFError, "magic", 0)
    for version in (0, 1, 4, 0xFFFF, 0xFFFFFFFF):
        data = Raw().header(version=version).pad().done()
        yield Seed(f"version_{version:x}", "llama:HEADER_BAD_VERSION", data, e.VersionError, "version", 4)
    yield Seed("big_version_1", "own", Raw(">").header(version=1).done(), e.VersionError, "version", 4)
    yield Seed("big_counts", "own", Raw(">").header(1, 1).done(), e.CountError, "n_tensors", 8)
    # A big-endian version on a little-endian rest: the counts become enormous.
    mixed = Raw().raw(b"GGUF").raw(b"\0\0\0\3").u64(0).u64(1).kv("a", U8, 1).done()
    yield Seed("mixed_order", "own", mixed, e.CountError, "n_kv", 16)
    full = Raw().header().done()
    for cut, field, at in ((4, "version", 4), (7, "version", 4), (8, "n_tensors", 8), (15, "n_tensors", 8)):
        yield Seed(f"start_cut_{cut}", "CVE-2024-32878", full[:cut], e.TruncatedError, field, at)
    yield Seed("start_cut_23", "CVE-2024-32878", full[:23], e.TruncatedError, "n_kv", 16)
    yield Seed("ok_empty", "llama:HEADER_EMPTY", full)
    yield Seed("ok_empty_version_2", "spec", Raw().header(version=2).done())
    yield Seed("ok_empty_big", "spec", Raw(">").header().done())


@seeds
def _counts() -> Iterator[Seed]:
    for n in (1, 1 << 31, 1 << 32, 1 << 61, 1 << 63, U64_MAX):
        data = Raw().header(n_kv=n).done()
        yield Seed(f"n_kv_{n:x}", "CVE-2024-23605", data, e.CountError, "n_kv", 16)
        data = Raw().header(n).raw(bytes(20)).done()
        yield Seed(f"n_tensors_{n:x}", "CVE-2024-21836", data, e.CountError, "n_tensors", 8)
    many = Raw().header(n_kv=32769).raw(bytes(32769 * 13)).done()
    yield Seed("n_kv_over_limit", "AT-02", many, e.CountError, "n_kv", 16)
    many = Raw().header(65537).raw(bytes(65537 * 24 + 8)).done()
    yield Seed("n_tensors_over_limit", "AT-02", many, e.CountError, "n_tensors", 8)


@seeds
def _keys() -> Iterator[Seed]:
    for n in (14, 1 << 31, 1 << 32, 1 << 63, U64_MAX):
        data = Raw().header(n_kv=1).u64(n).raw(bytes(13)).done()
        origin = "llama:KV_BAD_KEY_SIZE, CVE-2024-23496"
        yield Seed(f"key_length_{n:x}", origin, data, e.StringLengthError, "kv[0].key", HEADER)
    data = Raw().header(n_kv=1).kv("", U8, 1).done()
    yield Seed("key_empty", "llama:KV_EMPTY_KEY, llama.cpp#24263", data, e.KeyNameError, "kv[0].key", HEADER)
    data = Raw().header(n_kv=1).kv("k" * 65536, U8, 1).done()
    yield Seed("key_too_long", "spec", data, e.KeyNameError, "kv[0].key", HEADER)
    yield Seed("ok_key_longest", "spec", Raw().header(n_kv=1).kv("k" * 65535, U8, 1).done())
    for name, key in (
        ("lone_byte", b"a\xff"),
        ("surrogate", b"\xed\xa0\x80"),
        ("overlong", b"\xc0\xaf"),
        ("cut", b"\xe2\x82"),
    ):
        data = Raw().header(n_kv=1).kv(key, U8, 1).done()
        yield Seed(f"key_utf8_{name}", "spec", data, e.KeyNameError, "kv[0].key", HEADER)
    data = Raw().header(n_kv=1).kv("a\0b", U8, 1).done()
    yield Seed("key_nul", "own", data, e.KeyNameError, "kv[0].key", HEADER)
    yield Seed("ok_key_unicode", "own", Raw().header(n_kv=1).kv("schlüssel.鍵", U8, 1).done())
    twice = Raw().header(n_kv=2).kv("my_key", U8, 1)
    at = twice.at
    data = twice.kv("my_key", U32, 1).done()
    yield Seed("key_duplicate", "llama:KV_DUPLICATE_KEY", data, e.DuplicateKeyError, "my_key", at)
    many = Raw().header(n_kv=32768)
    for i in range(32767):
        many.kv(f"{i:x}", U8, 0)
    at = many.at
    data = many.kv("0", U8, 0).done()
    yield Seed("key_duplicate_last_of_32768", "AT-02", data, e.DuplicateKeyError, "0", at)


@seeds
def _value_types() -> Iterator[Seed]:
    for n in (13, 255, 0x7FFFFFFF, 0xFFFFFFFF):
        data = Raw().header(n_kv=1).string("k").u32(n).raw(bytes(8)).done()
        yield Seed(f"value_type_{n:x}", "llama:KV_BAD_TYPE, ggml#709", data, e.ValueTypeError, "k.type", HEADER + 9)
        data = Raw().header(n_kv=1).string("k").u32(ARR).u32(n).u64(0).done()
        yield Seed(f"element_type_{n:x}", "ggml#709", data, e.ValueTypeError, "k.type", HEADER + 13)
    for type_, code in CODES.items():
        if code not in "Bb":
            data = Raw().header(n_kv=1).kv("k", type_, 1).done()[:-1]
            yield Seed(f"value_cut_{type_}", "CVE-2024-32878", data, e.TruncatedError, "k", HEADER + 13)
    for type_ in CODES:
        yield Seed(f"ok_value_{type_}", "llama:KV_SUCCESS", Raw().header(n_kv=1).kv("k", type_, 1).done())
        yield Seed(f"ok_array_{type_}", "llama:KV_SUCCESS", Raw().header(n_kv=1).array("k", type_, [1, 0, 1]).done())
        yield Seed(f"ok_array_empty_{type_}", "own", Raw().header(n_kv=1).array("k", type_, []).done())
    yield Seed("ok_string", "llama:KV_SUCCESS", Raw().header(n_kv=1).kv("k", STR, "text").done())
    yield Seed("ok_string_empty", "own", Raw().header(n_kv=1).kv("k", STR, "").done())
    yield Seed("ok_string_bytes", "own", Raw().header(n_kv=1).kv("k", STR, b"\xff\xfe\0").done())
    yield Seed("ok_array_strings", "llama:KV_SUCCESS", Raw().header(n_kv=1).array("k", STR, ["a", "", b"\xff"]).done())
    for n in (2, 255):
        data = Raw().header(n_kv=1).kv("k", BOOL, n).done()
        yield Seed(f"bool_{n}", "spec", data, e.BoolError, "k", HEADER + 13)
    data = Raw().header(n_kv=1).array("k", BOOL, [1, 0, 1, 7, 9]).done()
    yield Seed("bool_array", "spec", data, e.BoolError, "k", HEADER + 28)


@seeds
def _strings() -> Iterator[Seed]:
    for n in (5, 1 << 30, (1 << 30) + 1, 1 << 32, 1 << 62, 1 << 63, U64_MAX):
        data = Raw().header(n_kv=1).string("k").u32(STR).string("text", length=n).done()
        yield Seed(f"string_length_{n:x}", "CVE-2024-23496", data, e.StringLengthError, "k", HEADER + 13)
        data = Raw().header(n_kv=1).string("k").u32(ARR).u32(STR).u64(2).string("a").string("text", length=n).done()
        yield Seed(f"array_string_length_{n:x}", "CVE-2024-23496", data, e.StringLengthError, "k[1]", HEADER + 34)
    data = Raw().header(n_kv=1).array("k", STR, ["long enough", "b"], count=3).raw(b"\0" * 3).done()
    yield Seed("array_string_missing", "CVE-2024-32878", data, e.TruncatedError, "k[2]", HEADER + 53)


@seeds
def _arrays() -> Iterator[Seed]:
    for type_ in [*CODES, STR]:
        for n in (1 << 30, 1 << 32, 1 << 61, 1 << 63, U64_MAX):
            data = Raw().header(n_kv=1).array("k", type_, [], count=n).raw(bytes(16)).done()
            name, origin = f"array_{type_}_count_{n:x}", "CVE-2024-21825"
            yield Seed(name, origin, data, e.ArrayLengthError, "k", HEADER + 17)
        if type_ != STR:
            data = Raw().header(n_kv=1).array("k", type_, [1, 1, 1], count=4).done()
            yield Seed(f"array_{type_}_one_short", "CVE-2024-21825", data, e.ArrayLengthError, "k", HEADER + 17)
    bomb = Raw().header(n_kv=1).string("aaa").u32(ARR).u32(U8)
    yield Seed("bomb_43_bytes", "llama.cpp#27188", bomb.done(), e.TruncatedError, "aaa.count", 43)
    bomb.u64(1 << 63)
    yield Seed("bomb_51_bytes", "llama.cpp#27188", bomb.done(), e.ArrayLengthError, "aaa", 43)
    for depth in (2, 16, 100, 1000, 100_000):
        nest = Raw().header(n_kv=1).string("k").u32(ARR)
        nest.raw((b"\x09\0\0\0" + b"\1" + bytes(7)) * (depth - 1)).u32(U8).u64(1).raw(b"\0")
        yield Seed(f"nested_{depth}", "llama.cpp#28880", nest.done(), e.NestedArrayError, "k.type", HEADER + 13)


@seeds
def _alignments() -> Iterator[Seed]:
    key = "general.alignment"
    at = HEADER + 8 + len(key) + 4
    for n in (0, 3, 13, 48, 1 << 21, 1 << 30, 1 << 31, U64_MAX >> 32):
        data = Raw().header(n_kv=1).kv(key, U32, n).done()
        yield Seed(f"alignment_{n}", "llama:KV_BAD_ALIGN, ggml#1516", data, e.AlignmentError, key, at)
    for type_ in (U8, I8, U16, I32, U64, F64, BOOL):
        data = Raw().header(n_kv=1).kv(key, type_, 1).done()
        yield Seed(
            f"alignment_type_{type_}", "llama:KV_WRONG_TYPE_ALIGN, llama.cpp#26318", data, e.AlignmentError, key, at
        )
    data = Raw().header(n_kv=1).kv(key, U64, 1 << 32).done()
    yield Seed("alignment_2_32", "ggml#1516", data, e.AlignmentError, key, at)
    data = Raw().header(n_kv=1).kv(key, STR, "32").done()
    yield Seed("alignment_string", "llama.cpp#26318", data, e.AlignmentError, key, at)
    data = Raw().header(n_kv=1).array(key, U32, [32]).done()
    yield Seed("alignment_array", "llama.cpp#26318", data, e.AlignmentError, key, at + 12)
    for n in (1, 2, 8, 4096, 1 << 20):
        data = Raw().header(1, 1).kv(key, U32, n).tensor().pad(n).body(128).done()
        yield Seed(f"ok_alignment_{n}", "llama:DATA_CUSTOM_ALIGN", data)
    data = Raw().header(1, 1).kv(key, U32, 1 << 20).tensor().pad(32).body(128).done()
    yield Seed("alignment_beyond_file", "ggml#1516", data, e.TensorDataError, "data", 1 << 20)


@seeds
def _names() -> Iterator[Seed]:
    def named(name: bytes | str) -> bytes:
        return one_tensor(name=name).pad().body(128).done()

    for n in (64, 65, 1000):
        yield Seed(
            f"name_{n}", "llama:TENSORS_BAD_NAME_SIZE", named("n" * n), e.TensorNameError, "tensor[0].name", HEADER
        )
    yield Seed("ok_name_63", "llama:TENSORS_SUCCESS", named("n" * 63))
    yield Seed("name_empty", "llama.cpp#24263", named(""), e.TensorNameError, "tensor[0].name", HEADER)
    yield Seed("name_nul", "own", named(b"a\0b"), e.TensorNameError, "tensor[0].name", HEADER)
    yield Seed("name_utf8", "spec", named(b"\xff"), e.TensorNameError, "tensor[0].name", HEADER)
    for n in (1 << 20, 1 << 63, U64_MAX):
        data = Raw().header(1).string("t", length=n).raw(bytes(32)).done()
        yield Seed(f"name_length_{n:x}", "CVE-2024-23496", data, e.StringLengthError, "tensor[0].name", HEADER)
    two = Raw().header(2).tensor("same").tensor("same", offset=128).pad().body(256).done()
    yield Seed("name_duplicate", "llama:TENSORS_DUPLICATE_NAME", two, e.DuplicateTensorError, "same")
    info = one_tensor().done()
    for cut in range(25, 48):
        yield Seed(f"info_cut_{cut}", "CVE-2024-32878", info[:cut], e.CountError, "n_tensors", 8)
    yield Seed("info_cut_48", "CVE-2024-32878", info[:48], e.TruncatedError, "t.type", 45)
    for cut in range(49, 57):
        yield Seed(f"info_cut_{cut}", "CVE-2024-32878", info[:cut], e.TruncatedError, "t.offset", 49)


@seeds
def _dims() -> Iterator[Seed]:
    for n in (5, 8, 9, 255, 1_000_000, U64_MAX >> 32):
        data = one_tensor(n_dims=n).raw(bytes(64)).done()
        yield Seed(f"n_dims_{n}", "CVE-2024-21802, llama.cpp#25378", data, e.TensorShapeError, "t.n_dims", HEADER + 9)
    yield Seed("ok_n_dims_0", "llama.cpp accepts scalars", one_tensor(ne=()).pad().body(4).done())
    quantized = one_tensor(ne=(), type_=Q8_0).pad().body(34).done()
    yield Seed("n_dims_0_quantized", "own", quantized, e.TensorBlockError, "t.ne[0]", HEADER + 13)
    big = 0x7FFFFFFFFFFFFFFF
    for name, ne, field in (
        ("negative", (-1,), "t.ne[0]"),
        ("negative_last", (32, 1, 1, -32), "t.ne[3]"),
        ("2_63", (1 << 63,), "t.ne[0]"),
        ("product_2_64", (1 << 32, 1 << 32), "t.ne"),
        ("product_wraps_to_4", (4194305, 4194305, 211106198978564), "t.ne"),
        ("product_2_63", (1 << 62, 2), "t.ne"),
        ("product_2_64_plus", (1 << 32, (1 << 32) + 1), "t.ne"),
        ("dim1_2_42_plus_1", (1 << 22, (1 << 42) + 1), "t.ne"),
        ("four_int32_max", (4 * 0x7FFFFFFF, 4 * 0x7FFFFFFF), "t.ne"),
        ("zero_hides_overflow", (1 << 62, 8, 0), "t.ne"),
        ("bytes_2_65", (big,), "t.ne"),
        ("pad_wrap", (4, 1073741823, 1073741825), "t.ne"),
        ("bytes_2_63", (1 << 61,), "t.ne"),
    ):
        data = one_tensor(ne=ne).pad().body(64).done()
        origin = "CVE-2026-33298, llama.cpp#18674, #25378, llama:TENSORS_*"
        yield Seed(f"ne_{name}", origin, data, e.TensorShapeError, field, HEADER + 13)
    for type_, ne in ((T_I8, big), (Q8_0, big - 31), (Q4_K, big - 255)):
        data = one_tensor(ne=(ne,), type_=type_).pad().body(64).done()
        fits = type_ in (T_I8, Q4_K)  # less than a byte per element keeps the size below 2**63
        wanted = e.TensorDataError if fits else e.TensorShapeError
        yield Seed(f"ne_top_{type_}", "CVE-2026-33298", data, wanted, "t.data" if fits else "t.ne")
    side = int(1.01 * (U64_MAX // 8) ** 0.5) + 1
    data = one_tensor(ne=(side, side), type_=T_I64).pad().body(64).done()
    yield Seed("nbytes_too_big", "llama:TENSORS_NBYTES_TOO_BIG", data, e.TensorShapeError, "t.ne", HEADER + 13)
    for name, ne in (("all", (0, 0)), ("last", (32, 0)), ("first", (0, 5)), ("middle", (32, 0, 7))):
        yield Seed(f"ok_zero_dim_{name}", "llama:TENSORS_ZERO_DIM", one_tensor(ne=ne).pad().done())
        yield Seed(f"ok_zero_dim_{name}_q8_0", "llama.cpp#24263", one_tensor(ne=ne, type_=Q8_0).pad().done())


@seeds
def _types() -> Iterator[Seed]:
    for n in (4, 5, 31, 32, 33, 36, 37, 38, 43, 255, 0x7FFFFFFF, 0xFFFFFFFF):
        data = one_tensor(type_=n).pad().body(256).done()
        yield Seed(
            f"tensor_type_{n:x}", "llama:TENSORS_BAD_TYPE, ggml#709", data, e.TensorTypeError, "t.type", HEADER + 21
        )
    for type_, ne in ((Q8_0, 31), (Q8_0, 1), (Q4_0, 48), (Q4_K, 32), (Q4_K, 255), (40, 32), (41, 64), (42, 32)):
        data = one_tensor(ne=(ne, 2), type_=type_).pad().body(512).done()
        yield Seed(f"block_{type_}_{ne}", "llama:TENSORS_BAD_SHAPE", data, e.TensorBlockError, "t.ne[0]", HEADER + 13)


@seeds
def _offsets() -> Iterator[Seed]:
    for name, offset in (("minus_1", -1), ("1", 1), ("32", 32), ("2_63", 1 << 63)):
        data = one_tensor(offset=offset).pad().body(256).done()
        yield Seed(f"offset_{name}", "llama:TENSORS_BAD_OFFSET", data, e.TensorOffsetError, "t.offset", HEADER + 25)
    for name, offset in (("same", 0), ("overlap", 96), ("unaligned", 127), ("hole", 160), ("before", -128)):
        data = Raw().header(2).tensor("a").tensor("b", offset=offset).pad().body(512).done()
        yield Seed(
            f"second_offset_{name}", "llama:TENSORS_BAD_OFFSET", data, e.TensorOffsetError, "b.offset", HEADER + 58
        )
    data = Raw().header(2).tensor("a", (3,)).tensor("b", offset=12).pad().body(512).done()
    yield Seed("offset_not_padded", "llama:TENSORS_INCONSISTENT_ALIGN", data, e.TensorOffsetError, "b.offset")
    key = Raw().header(2, 1).kv("general.alignment", U32, 64)
    data = key.tensor("a", (3,)).tensor("b", offset=32).pad(64).body(512).done()
    yield Seed("offset_other_alignment", "llama:DATA_INCONSISTENT_ALIGN", data, e.TensorOffsetError, "b.offset")
    huge = 0x7FFFFFFFFFFFFFC0
    for origin, second in (("CVE-2025-53630, llama:DATA_MEM_SIZE_OVERFLOW", huge), ("CVE-2026-27940", 0x60)):
        data = Raw().header(2).tensor("a", (huge,), T_I8).tensor("b", (second,), T_I8, huge).pad().body(32).done()
        yield Seed(f"sizes_sum_{second:x}", origin, data, e.TensorDataError, "a.data")


@seeds
def _data() -> Iterator[Seed]:
    info = one_tensor().done()
    yield Seed("data_absent", "CVE-2024-41130", info, e.TensorDataError, "data", 64)
    whole = one_tensor().pad().body(128).done()
    yield Seed("data_none_after_padding", "CVE-2024-41130", whole[:64], e.TensorDataError, "t.data", 64)
    for name, missing in (("1_byte", 1), ("half", 64), ("all_but_1", 127)):
        data = whole[:-missing]
        yield Seed(
            f"data_short_{name}", "CVE-2026-7482, llama:DATA_NOT_ENOUGH_DATA", data, e.TensorDataError, "t.data", 64
        )
    yield Seed("ok_data", "llama:DATA_SUCCESS", whole)
    yield Seed("ok_data_trailing", "llama:extra_bytes", whole + b"more")
    ends = Raw().header(1).tensor(ne=(33,), type_=T_I8).pad().body(33).done()
    yield Seed("ok_last_padding_missing", "own: some writers do not pad the end", ends)
    yield Seed(
        "empty_tensor_without_padding", "llama: seek to data", one_tensor(ne=(0,)).done(), e.TensorDataError, "data", 64
    )
    blocks = one_tensor(ne=(64,), type_=Q8_0).pad().body(68).done()
    yield Seed("ok_blocks", "llama:DATA_SUCCESS", blocks)
    yield Seed("data_short_block", "CVE-2026-7482", blocks[:-34], e.TensorDataError, "t.data", 64)


@seeds
def _split_keys() -> Iterator[Seed]:
    for name, n in (("2", 2), ("65535", 65535)):
        data = Raw().header(n_kv=1).kv("split.count", U16, n).done()
        yield Seed(f"split_count_{name}", "own", data, e.SplitError, "split.count")
    for name, type_, n in (("negative", I32, -1), ("2_16", U32, 65536), ("2_63", U64, 1 << 63)):
        data = Raw().header(n_kv=1).kv("split.count", type_, n).done()
        yield Seed(f"split_count_{name}", "own", data, e.SplitError, "split.count")
    data = Raw().header(n_kv=1).kv("split.count", STR, "2").done()
    yield Seed("split_count_string", "own", data, e.MetadataError, "split.count")
    for n in (0, 1):
        yield Seed(f"ok_split_count_{n}", "own", Raw().header(n_kv=1).kv("split.count", U16, n).done())


@seeds
def _containers() -> Iterator[Seed]:
    """Keys about tensors that are stored as bytes: two names for one kind."""
    made = Raw().header(0, 5).kv("halfbyte.container.version", U32, 1)
    made = made.array("halfbyte.quant.names", STR, ["a", "b"]).array("halfbyte.quant.kinds", STR, ["nf4.64"])
    made = made.array("halfbyte.quant.rows", U32, [1]).array("halfbyte.quant.cols", U32, [1])
    yield Seed("container_kinds", "own", made.pad().done(), e.ContainerError, "halfbyte.quant.kinds")
