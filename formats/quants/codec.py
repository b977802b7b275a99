"""The base of all block codecs: registry, shape arithmetic, chunking. A codec itself is a layout and a function or two.

To add a type, subclass `BlockCodec` in the file of its family:

    class Q8_0(BlockCodec, ggml=GGMLType.Q8_0):
        block = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
        def decode_blocks(b): ...     # blocks[n] -> float32[n, 32]
        def encode_blocks(cls, x, importance): ...  # float32[n, 32] -> blocks[n]

The class itself is the codec; it has no instances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


class NotFiniteError(CodecError):
    """A weight that is NaN or infinite, or would become so. `row` counts those of the array."""

    exit_code = 3  # the file that it is in is damaged

    def __init__(self, type_name: str, row: int, column: int, value: float, where: str = "", hint: str = "") -> None:
        self.type_name, self.row, self.column, self.value = type_name, row, column, value
        super().__init__(
            f"{where}{': ' * bool(where)}{type_name}: weight {column} of row {row} is {value}, which is no number to "
            "multiply with; the file is damaged, or needs a type of a wider range"
            f"{hint}"
        )


@dataclass(frozen=True)
class BlockImportance:
    """What errors of the weights of some blocks cost, from an importance matrix (ggml's `imatrix`)."""

    columns: Floats  # float32[n, block_size]: the mean square of what each column is multiplied with
    row_power: Floats  # float32[n, 1]: the mean square of the whole row that a block is of, see `needs_row_power`
    type_name: str  # for errors

    def cost(self, x: Floats, power: Floats) -> Floats:
        """Of an error of each weight: large weights count more, `power` says from where on.

        CodecError where squares are infinite: no scale would come of them.
        """
        if not np.isfinite(power).all():
            raise CodecError(
                f"{self.type_name}: a weight is beyond 1e19, too large for a float16 scale; store this tensor as F32 "
                "or BF16"
            )
        return self.columns * np.sqrt(power + x * x)


# Blocks, their weights float32[n, block_size], the type and what errors cost -> blocks.
Improved = Callable[[Blocks, Floats, GGMLType, BlockImportance | None], Blocks]


class BlockCodec:
    """How one GGML type stores weights: `block` documents the bytes, `decode` and `encode` are exact."""

    type: ClassVar[GGMLType]
    block: ClassVar[np.dtype[np.void]]
    block_size: ClassVar[int]  # weights per block
    block_bytes: ClassVar[int]
    needs_row_power: ClassVar[bool] = False  # with an importance

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
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        """float32[n, block_size] -> blocks[n], in ggml's order of operations."""
        raise AssertionError("every codec defines encode_blocks")

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
        require_dtype(cls, data, np.uint8)
        out = np.empty(cls.weight_shape(data.shape), np.float32)
        # An infinite scale times zero is NaN by design; NumPy need not warn about it.
        with np.errstate(all="ignore"):
            for source, target in _chunks(data, out, cls.block_size):
                blocks = np.ascontiguousarray(source).reshape(-1).view(cls.block)
                target[...] = cls.decode_blocks(blocks).reshape(target.shape)
        return out

    @classmethod
    def encode(cls, weights: Floats, importance: Floats | None = None, improved: Improved | None = None) -> Bytes:
        """float32[..., cols] -> uint8[..., row_bytes], byte-exact with ggml's encoder.

        `importance` is float32 that broadcasts to the shape of the weights, one row for a matrix: what an error of each
        column costs. Types that ggml gives no use for it ignore it. `improved` may make other blocks of the type from
        those that ggml makes.

        Raises CodecError for values that a scaled type cannot hold: NaN, infinity, beyond its float16 scale.
        """
        require_dtype(cls, weights, np.float32)
        if cls.block_size > 1:
            require_finite(cls.type.name, weights)
        out = np.empty(cls.byte_shape(weights.shape), np.uint8)
        given: list[Floats] = []
        if importance is not None and weights.size:
            check_importance(cls, weights, importance)
            power = row_powers(weights) if cls.needs_row_power or improved else np.zeros(weights.shape[:-1], np.float32)
            given = [np.broadcast_to(v, weights.shape) for v in (importance, power[..., None])]
        with np.errstate(all="ignore"):
            for target, *sources in _chunks(out, weights, cls.block_size, *given):
                x, *costs = (np.ascontiguousarray(s, np.float32).reshape(-1, cls.block_size) for s in sources)
                cost = BlockImportance(costs[0], costs[1][:, :1], cls.type.name) if costs else None
                blocks = cls.encode_blocks(x, cost)
                if improved is not None:
                    blocks = improved(blocks, x, cls.type, cost)
                target[...] = blocks.view(np.uint8).reshape(target.shape)
        return out


_REGISTRY: dict[GGMLType, type[BlockCodec]] = {}
CODECS = MappingProxyType(_REGISTRY)


def codec_for(ggml_type: GGMLType) -> type[BlockCodec]:
    """The codec of a type; UnsupportedError names the type and the ones that files have."""
    codec = CODECS.get(ggml_type)
    if codec is None:
        name = ggml_type.name if isinstance(ggml_type, GGMLType) else repr(ggml_type)
        known = ", ".join(t.name for t in sorted(CODECS) if t.on_disk)
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


def require_dtype(codec: type[BlockCodec], array: npt.NDArray[Any], dtype: npt.DTypeLike) -> None:
    if array.dtype != dtype:
        raise CodecError(f"{codec.type.name}: expected an array of {np.dtype(dtype).name}, got {array.dtype}")


def require_finite(type_name: str, weights: Floats) -> None:
    """NotFiniteError for the first weight of float32[..., cols] that is NaN or infinite."""
    rows = weights.reshape(-1, weights.shape[-1]) if weights.size else weights[:0].reshape(0, 1)
    step = max(1, CHUNK_WEIGHTS // max(1, rows.shape[1]))
    for lo in range(0, len(rows), step):
        bad = np.argwhere(~np.isfinite(rows[lo : lo + step]))
        if len(bad):
            row, column = int(bad[0][0]) + lo, int(bad[0][1])
            raise NotFiniteError(type_name, row, column, float(rows[row, column]))


def check_importance(codec: type[BlockCodec], weights: Floats, importance: Floats) -> None:
    """CodecError where an importance is of other columns than the weights, or not of finite numbers from zero on."""
    require_dtype(codec, importance, np.float32)
    if importance.shape[-1:] != weights.shape[-1:]:
        raise CodecError(
            f"{codec.type.name}: an importance of {importance.shape[-1:]} columns for rows of {weights.shape[-1]}"
        )
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise CodecError(f"{codec.type.name}: the importance holds NaN, infinity or a negative number")


def row_powers(weights: Floats) -> Floats:
    """The mean square of each row: float32[..., cols] -> float32[...]."""
    power = np.empty(weights.shape[:-1], np.float32)
    rows, means = weights.reshape(-1, weights.shape[-1]), power.reshape(-1)
    step = max(1, CHUNK_WEIGHTS // weights.shape[-1])
    with np.errstate(all="ignore"):
        for lo in range(0, len(rows), step):  # one after the other, as C adds them
            some = rows[lo : lo + step]
            means[lo : lo + step] = np.add.accumulate(some * some, axis=1)[:, -1] / np.float32(weights.shape[-1])
    return power


def _chunks(data: Bytes, weights: Floats, block_size: int, *others: Floats) -> Iterator[tuple[Any, ...]]:
    """Matching pieces of all arrays, each whole blocks and about CHUNK_WEIGHTS weights or less.

    `others` have the shape of the weights. Splits rows, or several rows together, or goes down into the leading
    dimensions: never copies more than a piece.
    """
    if not weights.size:
        return
    cols, arrays = weights.shape[-1], (weights, *others)
    if weights.ndim > 1 and weights.size > CHUNK_WEIGHTS:
        step = max(1, CHUNK_WEIGHTS * weights.shape[0] // weights.size)
        for lo in range(0, weights.shape[0], step):
            part, rows = data[lo : lo + step], [array[lo : lo + step] for array in arrays]
            if step == 1:
                yield from _chunks(part[0], rows[0][0], block_size, *(row[0] for row in rows[1:]))
            else:
                yield part, *rows
    else:
        step = max(1, CHUNK_WEIGHTS // block_size)
        per_block = data.shape[-1] * block_size // cols
        for lo in range(0, cols // block_size, step):
            columns = slice(lo * block_size, (lo + step) * block_size)
            yield data[..., lo * per_block : (lo + step) * per_block], *(array[..., columns] for array in arrays)
