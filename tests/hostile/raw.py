"""Build GGUF bytes with no checks at all, and remember where every field lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from struct import pack

U64_MAX = (1 << 64) - 1

# Value type ids and the struct codes of the fixed-size ones.
U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}


@dataclass(frozen=True)
class Field:
    """`kind` is u32, u64, bytes or data; `name` says what it means."""

    name: str
    kind: str
    start: int
    end: int


@dataclass
class Raw:
    """A file under construction. Methods append a field and return self."""

    order: str = "<"
    data: bytearray = field(default_factory=bytearray)
    fields: list[Field] = field(default_factory=list)

    def put(self, name: str, kind: str, raw: bytes) -> Raw:
        self.fields.append(Field(name, kind, len(self.data), len(self.data) + len(raw)))
        self.data += raw
        return self

    def u32(self, n: int, name: str = "u32") -> Raw:
        return self.put(name, "u32", pack(self.order + "I", n & 0xFFFFFFFF))

    def u64(self, n: int, name: str = "u64") -> Raw:
        return self.put(name, "u64", pack(self.order + "Q", n & U64_MAX))

    def raw(self, raw: bytes, name: str = "bytes") -> Raw:
        return self.put(name, "bytes", raw)

    def string(self, text: bytes | str, name: str = "string", *, length: int | None = None) -> Raw:
        raw = text.encode() if isinstance(text, str) else text
        return self.u64(len(raw) if length is None else length, f"{name}.length").raw(raw, name)

    def header(self, n_tensors: int = 0, n_kv: int = 0, *, version: int = 3, magic: bytes = b"GGUF") -> Raw:
        return self.raw(magic, "magic").u32(version, "version").u64(n_tensors, "n_tensors").u64(n_kv, "n_kv")

    def kv(self, key: bytes | str, type_: int, value: object) -> Raw:
        self.string(key, "key").u32(type_, "value.type")
        return self.value(type_, value)

    def value(self, type_: int, value: object) -> Raw:
        if type_ == STR:
            assert isinstance(value, bytes | str)
            return self.string(value, "value")
        return self.raw(pack(self.order + CODES[type_], value), "value")

    def array(self, key: bytes | str, element: int, values: Sequence[object], *, count: int | None = None) -> Raw:
        self.string(key, "key").u32(ARR, "value.type").u32(element, "element.type")
        self.u64(len(values) if count is None else count, "array.count")
        for value in values:
            self.value(element, value)
        return self

    def tensor(
        self,
        name: bytes | str = "t",
        ne: Iterable[int] = (32,),
        type_: int = 0,
        offset: int = 0,
        *,
        n_dims: int | None = None,
    ) -> Raw:
        dims = list(ne)
        self.string(name, "tensor.name").u32(len(dims) if n_dims is None else n_dims, "n_dims")
        for n in dims:
            self.u64(n, "ne")
        return self.u32(type_, "tensor.type").u64(offset, "offset")

    def pad(self, alignment: int = 32) -> Raw:
        return self.put("padding", "bytes", bytes(-len(self.data) % alignment))

    def body(self, n: int) -> Raw:
        return self.put("data", "data", bytes(i % 251 for i in range(n)))

    @property
    def at(self) -> int:
        """Where the next field will lie."""
        return len(self.data)

    def done(self) -> bytes:
        return bytes(self.data)
