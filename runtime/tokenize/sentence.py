"""SentencePiece vocabularies (LLaMA's score-driven BPE, and Unigram), on the `sentencepiece` package.

GGUF stores what a SentencePiece model file stores, so the model is put together again: the ids are those of the library
the vocabulary was trained with.
"""

from __future__ import annotations

import struct

import numpy as np

from ...formats.errors import TokenizerError
from .charsmap import check_charsmap
from .keys import byte_value
from .vocabulary import BYTE, CONTROL, UNKNOWN, Vocabulary

_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_SHORT = 100  # bytes; a piece whose record has a length of one byte
_LONGEST = 4096  # bytes; the library refuses pieces of 8,000, and no real token has a tenth of that


class SentenceEncoder:
    """Encodes one fragment of text. `after_special`: it begins the text or follows a special token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        from sentencepiece import SentencePieceProcessor

        self._is_bpe = vocabulary.kind.name == "llama"
        # Where the library drops spaces at the start, it has to put the one back itself.
        self._prefix = vocabulary.add_space_prefix and self._is_bpe and not vocabulary.remove_extra_whitespaces
        self._count = len(vocabulary.tokens)
        try:  # sentencepiece 0.2.3 gives Python's lock back while it loads a model
            self._processor = SentencePieceProcessor(model_proto=model_proto(vocabulary, bpe=self._is_bpe))
        except (RuntimeError, ValueError) as error:
            raise TokenizerError(f"the vocabulary is no valid SentencePiece model: {error}") from error

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a piece of text without special tokens."""
        if self._prefix and after_special:
            text = " " + text
        ids: list[int] = self._processor.encode(text)
        # The id past the end is the unknown piece that model_proto adds to vocabularies without one.
        return [i for i in ids if i != self._count] if self._count in ids else ids


def model_proto(vocabulary: Vocabulary, *, bpe: bool) -> bytes:
    """A serialized sentencepiece.ModelProto. Piece i is token i."""
    types, byte_fallback = _piece_types(vocabulary)
    pieces = _pieces(vocabulary, types)
    if not (types == UNKNOWN).any():
        pieces += _piece(b"\xee\x80\x80unknown", b"\0\0\0\0", UNKNOWN)
    trainer = _number(3, _BPE if bpe else _UNIGRAM) + _number(35, byte_fallback)
    check_charsmap(vocabulary.charsmap)
    normalizer = (
        _bytes(1, b"gguf")
        + (_bytes(2, vocabulary.charsmap) if vocabulary.charsmap else b"")
        # Score-driven BPE gets its prefix from SentenceEncoder, which knows what came before the fragment.
        + _number(3, vocabulary.add_space_prefix and (vocabulary.remove_extra_whitespaces or not bpe))
        + _number(4, vocabulary.remove_extra_whitespaces)
        + _number(5, True)  # spaces become U+2581
    )
    pieces += _bytes(2, trainer) + _bytes(3, normalizer)
    return bytes(pieces)


def _piece_types(vocabulary: Vocabulary) -> tuple[np.ndarray, bool]:
    """Types that the library accepts: one unknown piece, byte pieces only as a full set of 256."""
    types = vocabulary.types.copy()
    unknown = vocabulary.special.get("unk")
    types[types == UNKNOWN] = CONTROL
    if unknown is not None:
        types[unknown] = UNKNOWN
    byte_ids = np.flatnonzero(types == BYTE)
    values = {byte_value(vocabulary.tokens[int(i)]) for i in byte_ids}
    byte_fallback = len(byte_ids) == 256 == len(values - {None})
    if not byte_fallback:
        types[byte_ids] = CONTROL
    return types, byte_fallback


def _pieces(vocabulary: Vocabulary, types: np.ndarray) -> bytearray:
    """Hot loop: 262,144 pieces in 0.15 s, with records put together from prepared parts.

    One growing buffer, not a list of records to be joined: that would be 40 MB more while the model loads.
    """
    # Field 1 of the model, its size, field 1 of the piece, its size; then the score (field 2) and the type (field 3).
    heads = [bytes((10, size + 9, 10, size)) for size in range(_SHORT)]
    ends = [bytes((0x18, kind)) for kind in range(7)]
    scores = vocabulary.scores.astype("<f4").tobytes()
    pieces = bytearray()
    for i, (token, kind) in enumerate(zip(vocabulary.tokens, types.tolist(), strict=True)):
        score = scores[4 * i : 4 * i + 4]
        text = token.encode()
        size = len(text)
        if 0 < size < _SHORT and "\0" not in token:
            pieces += heads[size] + text + b"\x15" + score + ends[kind]
        else:
            pieces += _piece(*_presentable(text, i, kind, score))
    return pieces


def _presentable(text: bytes, i: int, kind: int, score: bytes) -> tuple[bytes, bytes, int]:
    """The library reads pieces as C strings: one that is empty, holds NUL or is huge becomes a control piece."""
    if text and len(text) <= _LONGEST and b"\0" not in text:
        return text, score, kind
    return b"\xee\x80\x80" + str(i).encode(), score, CONTROL if kind != UNKNOWN else kind


def _piece(text: bytes, score: bytes, kind: int) -> bytes:
    return _bytes(1, _bytes(1, text) + b"\x15" + score + struct.pack("BB", 0x18, kind))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    value = int(value)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
