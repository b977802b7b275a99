"""WordPiece (BERT), on the Rust engine of `tokenizers`."""

from __future__ import annotations

import re

from ...formats.errors import TokenizerError
from .engine import Check, ChunkCache, run
from .vocabulary import CONTROL, UNKNOWN, Vocabulary

_WORD_START = "\u2581"  # GGUF marks tokens that begin a word; BERT's own files mark the others with "##"
# Places where BERT always cuts, whatever stands beside them: spaces, ASCII punctuation, ideographs.
_CUTS = re.compile(r"([ \t\n\r]+|[!-/:-@\[-`{-~]|[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_CONTINUATION = "\0"  # our mark of the others: the normalizer removes NUL, so no text can hold it


class WordPieceEncoder:
    """BERT's normalizer and words, then the longest pieces. A word over 100 characters is unknown, as in BERT."""

    def __init__(self, vocabulary: Vocabulary, check: Check) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        if "unk" not in vocabulary.special:
            raise TokenizerError("a WordPiece vocabulary needs 'tokenizer.ggml.unknown_token_id'")
        unknown = _CONTINUATION + "unknown"
        pieces = _pieces(vocabulary) | {unknown: vocabulary.special["unk"]}
        check()
        model = models.WordPiece(
            vocab=pieces, unk_token=unknown, max_input_chars_per_word=100, continuing_subword_prefix=_CONTINUATION
        )
        self._engine = Tokenizer(model)
        self._engine.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=vocabulary.strip_accents,
            lowercase=vocabulary.lowercase,
        )
        self._engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

        self._cache = ChunkCache(lambda chunk: run(self._engine, chunk))

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a piece of text without special tokens."""
        return self._cache.encode(filter(None, _CUTS.split(text)))


def _pieces(vocabulary: Vocabulary) -> dict[str, int]:
    skipped = set(vocabulary.ids_of_type(CONTROL, UNKNOWN))
    pieces = {}
    for token, i in vocabulary.ids.items():
        if i in skipped:
            continue
        begins_word = token.startswith(_WORD_START) and len(token) > 1
        pieces[token[1:] if begins_word else _CONTINUATION + token] = i
    return pieces
