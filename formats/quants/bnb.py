"""A weight of four bits as checkpoints of bitsandbytes have it, and as our files do: exact both ways.

Beside X.weight, with two codes a byte and the first in its high half, a checkpoint has (names without "X.weight."):

    absmax             float32[n / blocksize], or uint8 codes with double quantization
    quant_map          float32[16], the levels
    nested_absmax      float32[blocks / 256], nested_quant_map float32[256]: with double quantization
    quant_state.bitsandbytes__nf4, or __fp4: uint8, JSON with quant_type, blocksize, dtype, shape, and nested_blocksize,
                       nested_dtype, nested_offset

Its blocks go on from one row to the next, ours do not: they are the same where rows are whole blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gguf.kinds import KINDS, NESTED_SIZE, Kind
from ..gguf.nested import Nested
from .bits import pack, unpack
from .codec import Bytes, CodecError, Floats
from .four_bit import dequantize_flat, levels_of
from .nf4 import run_of

Arrays = Mapping[str, npt.NDArray[Any]]
_STATE = "quant_state.bitsandbytes__"


@dataclass(frozen=True)
class FourBitWeight:
    """codes uint8[rows * cols], one in each; absmax of each block, float32, or what was made of them."""

    kind: Kind
    shape: tuple[int, int]
    dtype: str  # of the weight that was quantized, as checkpoints name it
    codes: Bytes
    absmax: Floats | Nested

    def absmaxes(self) -> Floats:
        return self.absmax.values() if isinstance(self.absmax, Nested) else self.absmax

    def weights(self) -> Floats:
        """float32[rows, cols], as bitsandbytes dequantizes it."""
        flat = dequantize_flat(self.codes, self.absmaxes(), self.kind.codes, self.kind.block)
        return flat.reshape(self.shape)

    @property
    def fits_rows(self) -> bool:
        """Whether rows are whole blocks: then our files can hold the codes."""
        return self.shape[1] % self.kind.block == 0

    @property
    def is_exact_in_files(self) -> bool:
        """Whether float16 has every absmax. It has those of float16 weights, and of bfloat16 ones from 2^-17 on."""
        if isinstance(self.absmax, Nested):
            return True
        with np.errstate(over="ignore"):
            return bool(np.array_equal(self.absmax.astype(np.float16).astype(np.float32), self.absmax))

    def to_file(self) -> tuple[Bytes, Floats | None]:
        """What a container stores: uint8[rows, stored row bytes], and the companion's numbers (gguf/kinds.py).

        Absmaxes that float16 does not have are rounded. CodecError where rows are not whole blocks, or an absmax is too
        large.
        """
        if not self.fits_rows:
            raise CodecError(f"rows of {self.shape[1]} weights are not whole blocks of {self.kind.block}")
        blocks = np.empty(self.codes.size // self.kind.block, _layout(self.kind))
        blocks["qs"] = pack(self.codes.reshape(-1, self.kind.block), 4, run_of(self.kind))
        companion = None
        if isinstance(self.absmax, Nested):
            blocks["d"] = self.absmax.codes
            companion = np.append(self.absmax.offset, self.absmax.absmax).astype(np.float32)
        else:
            with np.errstate(over="ignore"):
                blocks["d"] = self.absmax
            if not np.isfinite(blocks["d"]).all():
                raise CodecError(f"an absmax of {self.absmax.max():g} is too large for float16")
        return blocks.view(np.uint8).reshape(self.shape[0], -1), companion

    @classmethod
    def from_file(
        cls, kind: Kind, raw: Bytes, dtype: str, companion: Floats | None = None, levels: Floats | None = None
    ) -> FourBitWeight:
        """The inverse; `levels` are those of the codes of absmaxes, float32[256]."""
        blocks = np.ascontiguousarray(raw).reshape(-1).view(_layout(kind))
        codes = unpack(blocks["qs"], 4, run_of(kind)).reshape(-1)
        absmax: Floats | Nested = blocks["d"].astype(np.float32)
        if companion is not None and levels is not None:
            absmax = Nested(blocks["d"].copy(), companion[1:], companion[0], levels)
        return cls(kind, (len(raw), codes.size // len(raw)), dtype, codes, absmax)

    def to_checkpoint(self) -> dict[str, npt.NDArray[Any]]:
        """The tensors of a checkpoint; X.weight itself is called ""."""
        padded = np.append(self.codes, np.zeros(self.codes.size % 2, np.uint8))
        state: dict[str, Any] = {
            "quant_type": self.kind.codes, "blocksize": self.kind.block, "dtype": self.dtype, "shape": [*self.shape],
        }  # fmt: skip
        tensors: dict[str, npt.NDArray[Any]] = {
            "": (padded[::2] << 4 | padded[1::2])[:, None], "quant_map": levels_of(self.kind.codes),
        }  # fmt: skip
        if isinstance(self.absmax, Nested):
            nested = self.absmax
            tensors |= {"absmax": nested.codes, "nested_absmax": nested.absmax, "nested_quant_map": nested.map}
            state |= {
                "nested_blocksize": NESTED_SIZE, "nested_dtype": "float32", "nested_offset": float(nested.offset)
            }  # fmt: skip
        else:
            tensors["absmax"] = self.absmax
        tensors[_STATE + self.kind.codes] = np.frombuffer(json.dumps(state).encode(), np.uint8)
        return tensors

    @classmethod
    def from_checkpoint(cls, tensors: Arrays) -> FourBitWeight:
        """The inverse of `to_checkpoint`. The packed codes may be of any type: they are taken as bytes.

        Raises CodecError for what is missing, contradicts itself, or is not known.
        """
        state = _state(tensors)
        kind, shape = _kind(state), _shape(state)
        size = shape[0] * shape[1]
        packed = np.ascontiguousarray(_array(tensors, "")).reshape(-1).view(np.uint8)
        _require(packed.size == (size + 1) // 2, f"{packed.size} bytes for {size} weights")
        codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:size]
        levels = _array(tensors, "quant_map")
        _require(np.array_equal(levels, levels_of(kind.codes)), f"the levels are not those of {kind.codes}")
        absmax, blocks = _array(tensors, "absmax"), -(-size // kind.block)
        _require(absmax.shape == (blocks,), f"{absmax.size} absmaxes for {blocks} blocks")
        if not kind.nested:
            return cls(kind, shape, str(state.get("dtype")), codes, absmax.astype(np.float32))
        nested, map_ = _array(tensors, "nested_absmax"), _array(tensors, "nested_quant_map")
        wanted = -(-blocks // NESTED_SIZE)
        _require(absmax.dtype == np.uint8 and map_.shape == (256,), "absmaxes are not codes of 256 levels")
        _require(nested.shape == (wanted,), f"{nested.size} nested absmaxes, not {wanted}")
        offset = np.float32(state.get("nested_offset", 0.0))
        rest = Nested(absmax, nested.astype(np.float32), offset, map_.astype(np.float32))
        return cls(kind, shape, str(state.get("dtype")), codes, rest)


def _layout(kind: Kind) -> np.dtype[np.void]:
    return np.dtype([("d", "u1" if kind.nested else "<f2"), ("qs", "u1", kind.block // 2)])


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise CodecError(f"a weight of bitsandbytes contradicts itself: {problem}")


def _array(tensors: Arrays, name: str) -> npt.NDArray[Any]:
    if name not in tensors:
        raise CodecError(f"a weight of bitsandbytes lacks {name or 'its codes'!r}")
    return np.asarray(tensors[name])


def _state(tensors: Arrays) -> dict[str, Any]:
    names = [name for name in tensors if name.startswith(_STATE)]
    _require(len(names) == 1, f"{len(names)} tensors called {_STATE}...")
    try:
        state = json.loads(np.asarray(tensors[names[0]], np.uint8).tobytes())
    except ValueError as error:
        raise CodecError(f"{names[0]} is not JSON: {error}") from None
    _require(isinstance(state, dict), f"{names[0]} is not an object")
    return dict(state)


def _kind(state: dict[str, Any]) -> Kind:
    codes, size, nested = state.get("quant_type"), state.get("blocksize"), "nested_blocksize" in state
    found = [k for k in KINDS.values() if (k.codes, k.block, k.nested) == (codes, size, nested)]
    if not found or (nested and state["nested_blocksize"] != NESTED_SIZE):
        raise CodecError(f"{codes!r} in blocks of {size!r} is no weight of bitsandbytes that this version knows")
    return found[0]


def _shape(state: dict[str, Any]) -> tuple[int, int]:
    shape = state.get("shape")
    is_matrix = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)
    _require(is_matrix, f"a shape of {shape!r}")
    assert isinstance(shape, list)
    return shape[0], shape[1]
