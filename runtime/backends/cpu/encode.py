"""Weights into blocks on a team of threads: the same bytes as `formats.quants` makes, in a small part of the time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.gguf.types import GGMLType
from ....formats.quants import FORMS, check_importance, codec_for, decode, encode_best, row_powers
from ..base import CancelFlag
from . import objects
from .args import ENCODE_SCRATCH_BYTES, GROUPS, STEP, args_of
from .compile import Report, ensure_compiled
from .points import LATTICE_TYPES, table_of
from .team import FUNCTIONS, Team

# Types with a kernel, and how many of their blocks are a batch, which is sixteen groups; a block of floats is a weight.
# NumPy encodes the others: F32, which is a copy, and the types of bitsandbytes.
KERNEL_TYPES = {
    **dict.fromkeys(("F16", "BF16"), 512),
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "IQ4_NL", "MXFP4", "Q2_0"), 16),
    "NVFP4": 4,
    **dict.fromkeys(("Q4_K", "Q5_K", "IQ4_XS", "Q1_0", "IQ1_S", "IQ2_XXS", "IQ3_XXS", "IQ3_S"), 2),
    **dict.fromkeys(("Q2_K", "Q3_K", "Q6_K", "Q8_K", "TQ1_0", "TQ2_0", "IQ1_M", "IQ2_XS", "IQ2_S"), 1),
}
# Those that there is no encoding of without an importance.
ALWAYS_WEIGHTED = frozenset({"IQ1_S", "IQ2_XXS", "IQ2_XS"})
# Those that an importance changes nothing of, unless they are searched.
UNWEIGHTED = frozenset({"F16", "BF16", "Q8_0", "Q8_1", "Q8_K", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0"})
WIDENED = (GGMLType.F16, GGMLType.BF16)  # become float32 by kernels; NumPy decodes the others


def kernel_of(ggml_type: GGMLType, *, weighted: bool, best: bool = False) -> str:
    """The kernel that encodes a type, with or without an importance, as ggml or better; "" where there is none."""
    name, best = ggml_type.name, best and ggml_type in FORMS
    if name not in KERNEL_TYPES or (name in ALWAYS_WEIGHTED and not weighted):
        return ""
    return f"encode.{name}{'.weighted' * (weighted and (best or name not in UNWEIGHTED))}{'.best' * best}"


class Encoders:
    """Encodes one array at a time. Threads are its own, and end when it is closed.

    `prepare` compiles what is needed beforehand, with a count; otherwise the first use does.
    """

    def __init__(self, threads: int) -> None:
        self.prepare((), threads)  # the team's own functions
        self._team = Team(threads)
        self._scratch = np.zeros(ENCODE_SCRATCH_BYTES * self._team.n + 64, np.uint8)
        self._step, self._never = np.zeros((), STEP), CancelFlag()
        self._step["scratch"] = self._scratch.ctypes.data + -self._scratch.ctypes.data % 64
        self._step["scratch_bytes"] = ENCODE_SCRATCH_BYTES
        self._step["cancel"] = self._never.word.ctypes.data

    @staticmethod
    def prepare(
        kinds: Iterable[tuple[GGMLType, GGMLType, bool, bool]], threads: int, report: Report | None = None
    ) -> int:
        """Compile the kernels of (type before, type after, with an importance, best); returns how many were missing."""
        names: set[str] = set()
        for before, after, weighted, best in kinds:
            name = kernel_of(after, weighted=weighted, best=best)
            names |= {name, f"embed.{before.name}"} if name and before in WIDENED else {name}
        return ensure_compiled({*FUNCTIONS, *names} - {""}, workers=threads, report=report)

    def transcode(
        self,
        data: NDArray[np.uint8],
        before: GGMLType,
        after: GGMLType,
        importance: NDArray[np.float32] | None = None,
        *,
        best: bool = False,
    ) -> NDArray[np.uint8]:
        """Rows of one type to rows of another: uint8 [rows, bytes] -> uint8 [rows, bytes]."""
        widened = decode(data, before) if before not in WIDENED or not data.size else self._widened(data, before)
        return self.encode(widened, after, importance, best=best)

    def _widened(self, data: NDArray[np.uint8], ggml_type: GGMLType) -> NDArray[np.float32]:
        """Rows of 16-bit floats as float32."""
        data = np.ascontiguousarray(data)
        rows, cols = codec_for(ggml_type).weight_shape(data.shape)
        out, ids = np.empty((rows, cols), np.float32), np.arange(rows, dtype=np.int32)
        args = {"w": data, "row_bytes": data.shape[1], "n": rows, "out": out, "factor": 1.0, "cols": cols}
        self._step["tokens"], self._step["n_tokens"] = ids.ctypes.data, rows
        self._run(f"embed.{ggml_type.name}", args)
        return out

    def encode(
        self,
        weights: NDArray[np.float32],
        ggml_type: GGMLType,
        importance: NDArray[np.float32] | None = None,
        *,
        best: bool = False,
    ) -> NDArray[np.uint8]:
        """float32 [rows, cols] -> uint8 [rows, row_bytes], see `BlockCodec.encode`; importance float32 [cols].

        `best`: as `encode_best` does it.
        """
        codec, name = codec_for(ggml_type), kernel_of(ggml_type, weighted=importance is not None, best=best)
        by_numpy = partial(encode_best, ggml_type) if best else codec.encode
        is_plain = weights.dtype == np.float32 and weights.ndim == 2 and weights.size > 0
        if not name or not is_plain or (importance is not None and importance.ndim != 1):
            return by_numpy(weights, importance)
        rows, row_bytes = codec.byte_shape(weights.shape)
        blocks, at_once = rows * row_bytes // codec.block_bytes, KERNEL_TYPES[ggml_type.name]
        batches = -(-blocks // at_once)
        x = _padded(weights, batches * at_once * codec.block_size)
        out = np.empty(batches * at_once * codec.block_bytes, np.uint8)
        given: dict[str, Any] = {}
        if importance is not None:
            check_importance(codec, weights, importance)
            given["columns"] = np.ascontiguousarray(importance)
            if codec.needs_row_power or best:
                given["power"] = np.append(row_powers(weights), np.zeros(GROUPS, np.float32))
        if ggml_type.name in LATTICE_TYPES:
            given["points"] = table_of(ggml_type.name)
        bad = np.zeros(1, np.int64)
        self._run(name, {"x": x, "out": out, "n": batches, "cols": weights.shape[1], "bad": bad, **given})
        if bad[0]:
            return by_numpy(weights, importance)  # which names the weight that cannot be encoded, or stores NaN
        return out[: rows * row_bytes].reshape(rows, row_bytes)

    def _run(self, name: str, arguments: dict[str, Any]) -> None:
        ensure_compiled([name], workers=1)
        args = np.zeros((), args_of(name.partition(".")[0]))
        for field, value in arguments.items():
            args[field] = value.ctypes.data if isinstance(value, np.ndarray) else value
        table = np.array([[objects.load(name), args.ctypes.data, 0]], np.int64)
        self._team.run(table, self._step, self._never.word)

    def close(self) -> None:
        """End the threads."""
        self._team.close()

    def __enter__(self) -> Encoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _padded(weights: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The weights one after the other, with zeros up to `size`: a view where none are needed."""
    flat = np.ascontiguousarray(weights).reshape(-1)
    return flat if flat.size == size else np.append(flat, np.zeros(size - flat.size, np.float32))
