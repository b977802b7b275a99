"""Structure-aware mutation of GGUF files: change what a field means, not just bytes.

Every mutation is a function of (seed, index) alone, so a finding is reproduced by its two numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

from .raw import ARR, BOOL, CODES, STR, U16, U32, Field, Raw

_LIMITS = [1 << k for k in (7, 8, 15, 16, 20, 30, 31, 32, 42, 61, 62, 63)]
NUMBERS = sorted({0, 1, 2, 3, 4, 5, 13, 31, 32, 33, 255, *(n + d for n in _LIMITS for d in (-1, 0, 1)), (1 << 64) - 1})


@lru_cache(maxsize=1)
def bases() -> tuple[Raw, ...]:
    """Valid files that together hold every kind of field."""
    return (_everything("<"), _everything(">"), _tensors_only(), _keys_only())


def _everything(order: str) -> Raw:
    raw = Raw(order).header(3, len(CODES) + 7)
    for type_ in CODES:
        raw.kv(f"scalar.{type_}", type_, 1)
    raw.kv("general.alignment", U32, 64).kv("general.architecture", STR, "llama").kv("split.count", U16, 1)
    raw.array("tokens", STR, ["<s>", "a", "", b"\xff\xfe"]).array("scores", 6, [0.5, 1, 2]).array("flags", BOOL, [0, 1])
    raw.array("ids", 11, [1, -2, 3])
    raw.tensor("a", (32, 3), 0, 0).tensor("b", (64,), 1, 384).tensor("c", (4, 2, 3, 5), 26, 512)
    return raw.pad(64).body(1024)


def _tensors_only() -> Raw:
    raw = Raw().header(4)
    raw.tensor("q8", (64, 2), 8, 0).tensor("q4k", (256,), 12, 160).tensor("zero", (32, 0), 8, 320)
    return raw.tensor("i8", (7,), 24, 320).pad().body(352)


def _keys_only() -> Raw:
    return Raw().header(0, 2, version=2).kv("k", 12, 1.5).array("list", STR, [str(i) for i in range(40)])


def mutate(seed: int, index: int) -> bytes:
    """The mutated file number `index`: one to three changes to one of the bases."""
    rng = random.Random(f"{seed}:{index}")
    return mutate_bytes(rng, rng.choice(bases()))


def mutate_bytes(rng: random.Random, base: Raw) -> bytes:
    """One to three changes to the fields and bytes of a file."""
    data = bytearray(base.data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_MUTATIONS)(rng, base, data)
    return bytes(data)


def _set_number(rng: random.Random, base: Raw, data: bytearray) -> None:
    """Put an interesting or a nearby value into an integer field."""
    field = rng.choice([f for f in base.fields if f.kind in ("u32", "u64")])
    size = field.end - field.start
    order = "little" if base.order == "<" else "big"
    old = int.from_bytes(base.data[field.start : field.end], order)  # type: ignore[arg-type]
    new = rng.choice((rng.choice(NUMBERS), old + rng.choice((-32, -2, -1, 1, 2, 32)), rng.getrandbits(8 * size)))
    _overwrite(data, field.start, (new % (1 << 8 * size)).to_bytes(size, order))  # type: ignore[arg-type]


def _set_type(rng: random.Random, base: Raw, data: bytearray) -> None:
    field = rng.choice([f for f in base.fields if f.name.endswith("type")] or base.fields)
    order = "little" if base.order == "<" else "big"
    _overwrite(data, field.start, rng.choice((ARR, STR, rng.randrange(45))).to_bytes(4, order))  # type: ignore[arg-type]


def _flip_bits(rng: random.Random, base: Raw, data: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(rng: random.Random, base: Raw, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _append(rng: random.Random, base: Raw, data: bytearray) -> None:
    data += rng.randbytes(rng.choice((1, 7, 32, 300)))


def _delete_field(rng: random.Random, base: Raw, data: bytearray) -> None:
    field = rng.choice(base.fields)
    del data[field.start : field.end]


def _repeat_fields(rng: random.Random, base: Raw, data: bytearray) -> None:
    """Duplicate keys, tensors and parts of them."""
    first = rng.randrange(len(base.fields))
    last = min(first + rng.randrange(1, 8), len(base.fields) - 1)
    start, end = base.fields[first].start, base.fields[last].end
    data[start:start] = data[start:end] * rng.choice((1, 1, 2, 50))


def _swap_fields(rng: random.Random, base: Raw, data: bytearray) -> None:
    a, b = sorted(rng.sample(base.fields, 2), key=lambda f: f.start)
    data[a.start : b.end] = _part(data, b) + data[a.end : b.start] + _part(data, a)


def _copy_field(rng: random.Random, base: Raw, data: bytearray) -> None:
    source, target = rng.sample(base.fields, 2)
    data[target.start : target.end] = _part(data, source)


def _random_bytes(rng: random.Random, base: Raw, data: bytearray) -> None:
    field = rng.choice(base.fields)
    data[field.start : field.end] = rng.randbytes(rng.choice((field.end - field.start, rng.randrange(80))))


def _part(data: bytearray, field: Field) -> bytes:
    return bytes(data[field.start : field.end])


def _overwrite(data: bytearray, start: int, raw: bytes) -> None:
    if start + len(raw) <= len(data):
        data[start : start + len(raw)] = raw


_MUTATIONS: list[Callable[[random.Random, Raw, bytearray], None]] = [
    _set_number,
    _set_number,
    _set_number,
    _set_type,
    _flip_bits,
    _truncate,
    _append,
    _delete_field,
    _repeat_fields,
    _swap_fields,
    _copy_field,
    _random_bytes,
]
