"""The base of all block codecs: registry, shape arithmetic, chunking. A codec itself is a layout and a function or two.

To add a type, subclass `BlockCodec` in the file of its family:

    class Q8_0(BlockCodec, ggml=GGMLType.Q8_0):
        block = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
        def decode_blocks(b): ...     # blocks[n] -> float32[n, 32]
        def encode_blocks(cls, x): ...  # float32[n, 32] -> blocks[n]; leave it out where there is no encoder

The class itself is the codec; it has no instances.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import HalfbyteError, UnsupportedError
from ..gguf.types import GGMLType

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.void]
Shape = tuple[int, ...]

# Weights handled at once: 1 MiB as float32, so that a chunk and its temporaries stay in the second-level cache.
CHUNK_WEIGHTS = 1 << 18


class CodecError(HalfbyteError, ValueError):
    """An array does not fit a block type: wrong dtype or row length, or values that the type cannot hold."""


class BlockCodec:
    """How one GGML type stores weights: `block` documents the bytes, `decode` and `encode` are exact."""

    type: ClassVar[GGMLType]
    block: ClassVar[np.dtype[np.void]]
    block_size: ClassVar[int]  # weights per block
    block_bytes: ClassVar[int]

    def __init_subclass__(cls, *, ggml: GGMLType) -> None:
        assert cls.block.itemsize == ggml.block_bytes, f"{ggml.name}: the layout disagrees with the type table"
        cls.type, cls.block_size, cls.block_bytes = ggml, ggml.block_size, ggml.block_bytes
        assert ggml not in _REGISTRY, f"{ggml.name} has two codecs"
        _REGISTRY[ggml] = cls

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        """blocks[n] -> float32[n, block_size]. The arithmetic, in ggml's order of operations."""
        raise AssertionError("every codec defines decode_blocks")

    @classmethod
    def encode_blocks(cls, x: Floats) -> Blocks:
        """float32[n, block_size] -> blocks[n]. Not every type has an encoder: see `can_encode`."""
        able = ", ".join(t.name for t in sorted(_REGISTRY) if _REGISTRY[t].can_encode())
        raise UnsupportedError(f"cannot write {cls.type.name}: there is no encoder for it; types with one: {able}")

    @classmethod
    def can_encode(cls) -> bool:
        return "encode_blocks" in vars(cls)

    @classmethod
    def byte_shape(cls, shape: Shape) -> Shape:
        """weights[..., cols] are stored as bytes[..., row_bytes]. CodecError if a row is not whole blocks."""
        return (*shape[:-1], _whole_blocks(cls, shape, cls.block_size, "weights") * cls.block_bytes)

    @classmethod
    def weight_shape(cls, shape: Shape) -> Shape:
        """bytes[..., row_bytes] hold weights[..., cols]. CodecError if a row is not whole blocks."""
        return (*shape[:-1], _whole_blocks(cls, shape, cls.block_bytes, "bytes") * cls.block_size)

    @classmethod
    def decode(cls, data: Bytes) -> Floats:
        """uint8[..., row_bytes] -> a new float32[..., cols]; NaN and infinite scales pass through.

        Beside the result it needs a few MiB, whatever the size or the strides of `data`.
        """
        _require_dtype(cls, data, np.uint8)
        out = np.empty(cls.weight_shape(data.shape), np.float32)
        # An infinite scale times zero is NaN by design; NumPy need not warn about it.
        with np.errstate(all="ignore"):
            for source, target in _chunks(data, out, cls.block_size):
                blocks = np.ascontiguousarray(source).reshape(-1).view(cls.block)
                target[...] = cls.decode_blocks(blocks).reshape(target.shape)
        return out

    @classmethod
    def encode(cls, weights: Floats) -> Bytes:
        """float32[..., cols] -> uint8[..., row_bytes], byte-exact with ggml's reference encoder.

        Raises CodecError for values that a scaled type cannot hold (NaN, infinity, beyond its float16 scale) and
        UnsupportedError for a type without an encoder.
        """
        _require_dtype(cls, weights, np.float32)
        out = np.empty(cls.byte_shape(weights.shape), np.uint8)
        with np.errstate(all="ignore"):
            for target, source in _chunks(out, weights, cls.block_size):
                x = np.ascontiguousarray(source, np.float32).reshape(-1, cls.block_size)
                target[...] = cls.encode_blocks(x).view(np.uint8).reshape(target.shape)
        return out


_REGISTRY: dict[GGMLType, type[BlockCodec]] = {}
CODECS = MappingProxyType(_REGISTRY)


def codec_for(ggml_type: GGMLType) -> type[BlockCodec]:
    """The codec of a type; UnsupportedError names the type and the ones there are."""
    codec = CODECS.get(ggml_type)
    if codec is None:
        name = ggml_type.name if isinstance(ggml_type, GGMLType) else repr(ggml_type)
        known = ", ".join(t.name for t in sorted(CODECS))
        raise UnsupportedError(f"weights of type {name} cannot be read; supported types: {known}")
    return codec


def decode(data: Bytes, ggml_type: GGMLType) -> Floats:
    """uint8[..., row_bytes] of `ggml_type` -> float32[..., cols]. See `BlockCodec.decode`."""
    return codec_for(ggml_type).decode(data)


def _whole_blocks(codec: type[BlockCodec], shape: Shape, unit: int, noun: str) -> int:
    if not shape:
        raise CodecError(f"{codec.type.name}: a tensor needs at least one dimension, the array has none")
    count, rest = divmod(int(shape[-1]), unit)
    if rest:
        raise CodecError(
            f"{codec.type.name}: a row of {shape[-1]} {noun} is not a whole number of blocks; "
            f"a block is {unit} {noun} (array shape {tuple(shape)})"
        )
    return count


def _require_dtype(codec: type[BlockCodec], array: npt.NDArray[Any], dtype: npt.DTypeLike) -> None:
    if array.dtype != dtype:
        raise CodecError(f"{codec.type.name}: expected an array of {np.dtype(dtype).name}, got {array.dtype}")


def _chunks(data: Bytes, weights: Floats, block_size: int) -> Iterator[tuple[Bytes, Floats]]:
    """Matching pieces of both arrays, each whole blocks and about CHUNK_WEIGHTS weights or less.

    Splits rows, or several rows together, or goes down into the leading dimensions: never copies more than a piece.
    """
    if not weights.size:
        return
    cols = weights.shape[-1]
    if weights.ndim > 1 and weights.size > CHUNK_WEIGHTS:
        step = max(1, CHUNK_WEIGHTS * weights.shape[0] // weights.size)
        for lo in range(0, weights.shape[0], step):
            part, rows = data[lo : lo + step], weights[lo : lo + step]
            yield from _chunks(part[0], rows[0], block_size) if step == 1 else [(part, rows)]
    else:
        step = max(1, CHUNK_WEIGHTS // block_size)
        per_block = data.shape[-1] * block_size // cols
        for lo in range(0, cols // block_size, step):
            yield (
                data[..., lo * per_block : (lo + step) * per_block],
                weights[..., lo * block_size : (lo + step) * block_size],
            )
