"""Chunks of blocks through every encoder and decoder of a type, and what was found in all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS, CodecError

from . import reasons
from .inputs import COLS, IMPORTANCES, KINDS, importance, weights

CHUNK_BLOCKS = 4096  # of 32 weights; of longer blocks as many as have the same number of weights, in each chunk

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Encode = Callable[[GGMLType, Floats, Floats | None], Bytes]
Decode = Callable[[GGMLType, Bytes], Floats]

BEYOND = "refused: a float16 scale cannot hold it"
RANDOM = "random bytes"
NUMPY, KERNEL, DECODING = "NumPy", "kernel", "decoding"
NOT_DECODED = ("F32", "Q8_1")  # of which ggml has no decoder


@dataclass(frozen=True)
class Sides:
    """Encoders by name, and what they are held against: ggml, or where it is not there one of them."""

    encoders: Mapping[str, Encode]
    theirs: Encode
    their_decoder: Decode | None = None


@dataclass
class Found:
    """Of one type, with an importance or without: (what differs, kind of weights, reason) -> blocks."""

    blocks: Counter[str] = field(default_factory=Counter)  # by encoder, and DECODING
    differing: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    # Sums of squares of errors and of weights, of the kind "normal", with no importance but such as is measured.
    squares: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def differ(self, what: str) -> int:
        """Blocks of an encoder, or of the decoder, that differ, for whatever reason."""
        return sum(n for (one, _, _), n in self.differing.items() if one == what)

    @property
    def unexplained(self) -> int:
        return sum(n for (_, _, why), n in self.differing.items() if why == reasons.UNEXPLAINED)

    @property
    def relative_rmse(self) -> float:
        return float(np.sqrt(self.squares[0] / self.squares[1])) if self.squares[1] else float("nan")


def chunks(blocks: int, block_size: int) -> Iterator[tuple[int, str, int]]:
    """(number, kind, rows): about as many blocks of every kind, `blocks` or somewhat more in all."""
    size = min(block_size, COLS)
    each = -(-blocks // len(KINDS))  # of a kind
    rows_each = -(-each * size // COLS)
    most = max(1, CHUNK_BLOCKS * 32 // COLS)
    number = 0
    for kind in KINDS:
        for first in range(0, rows_each, most):
            yield number, kind, min(most, rows_each - first)
            number += 1


def check(
    ggml_type: GGMLType, sides: Sides, *, blocks: int, seed: int, weighted: bool, every: Mapping[str, int] | None = None
) -> Found:
    """Run about so many blocks, the same ones for the same seed. every: encoder -> it takes one chunk of so many."""
    found, codec, every = Found(), CODECS[ggml_type], every or {}
    has_half_scale = "FP4" not in ggml_type.name and codec.block_size > 1
    for number, kind, rows in chunks(blocks, max(codec.block_size, 32)):
        rng = np.random.default_rng([seed, int(ggml_type), weighted, number])
        x = weights(kind, rng, rows, has_half_scale=has_half_scale)
        given = importance(rng, number) if weighted else None
        some = {name: encode for name, encode in sides.encoders.items() if number % every.get(name, 1) == 0}
        encoded = _encoders(found, ggml_type, replace(sides, encoders=some), kind, x, given)
        if kind == "normal" and number % IMPORTANCES == 0:
            found.squares += [np.square(v, dtype=np.float64).sum() for v in (codec.decode(encoded) - x, x)]
        _decoders(found, ggml_type, sides, kind, encoded)
        _decoders(found, ggml_type, sides, RANDOM, rng.integers(0, 256, codec.byte_shape(x.shape), np.uint8))
    return found


def _encoders(found: Found, ggml_type: GGMLType, sides: Sides, kind: str, x: Floats, given: Floats | None) -> Bytes:
    """Compare what they make with what ggml made, which is returned."""
    theirs = sides.theirs(ggml_type, x, given)
    for name, encode in sides.encoders.items():
        found.blocks[name] += x.size // max(ggml_type.block_size, 32)
        try:
            blocks = _differing(ggml_type, x, encode(ggml_type, x, given), theirs)
            found.differing.update((name, kind, reason) for reason in reasons.reasons(blocks))
        except CodecError:
            for row, their_row in zip(x, theirs, strict=True):
                _row(found, ggml_type, encode, (name, kind), row, given, their_row)
    return theirs


def _row(
    found: Found,
    ggml_type: GGMLType,
    encode: Encode,
    where: tuple[str, str],
    x: Floats,
    given: Floats | None,
    theirs: Bytes,
) -> None:
    """A row that may hold what cannot be encoded: ggml stores a scale that is infinite for it."""
    try:
        blocks = _differing(ggml_type, x, encode(ggml_type, x[None], given), theirs)
        found.differing.update((*where, reason) for reason in reasons.reasons(blocks))
    except CodecError:
        with np.errstate(all="ignore"):
            is_held = np.isfinite(CODECS[ggml_type].decode(theirs)).all()
        found.differing[(*where, reasons.UNEXPLAINED if is_held else BEYOND)] += x.size // ggml_type.block_size


def _differing(ggml_type: GGMLType, x: Floats, ours: Bytes, theirs: Bytes) -> reasons.Blocks:
    size, n_bytes = ggml_type.block_size, ggml_type.block_bytes
    a, b = (side.reshape(-1, n_bytes) for side in (ours, theirs))
    where = (a != b).any(axis=1)
    return reasons.Blocks(ggml_type, x.reshape(-1, size)[where], a[where], b[where])


def _decoders(found: Found, ggml_type: GGMLType, sides: Sides, kind: str, data: Bytes) -> None:
    """Compare NumPy's with ggml's."""
    if sides.their_decoder is None or ggml_type.name in NOT_DECODED:
        return
    ours, theirs = CODECS[ggml_type].decode(data), sides.their_decoder(ggml_type, data)
    size = max(ggml_type.block_size, 32)
    found.blocks[DECODING] += ours.size // size
    same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
    wrong = ~same.reshape(-1, size).all(axis=1)
    found.differing += Counter({(DECODING, kind, reasons.UNEXPLAINED): int(wrong.sum())})
