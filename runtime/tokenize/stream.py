"""Token by token to text: only whole characters come out."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tokenizer import Tokenizer


class StreamDecoder:
    """Feed ids, take text. A character whose bytes span tokens is held back until it is whole.

    The texts together, `flush()` included, equal `decode` of the ids together.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool, start: bool) -> None:
        self._tokenizer, self._skip_special = tokenizer, skip_special
        self._drop_space = start and tokenizer.adds_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The characters that are complete with this token; often one word, sometimes nothing."""
        if self._skip_special and self._tokenizer.is_special(token):
            return ""
        data = self._tokenizer.token_bytes(token)
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self) -> str:
        """U+FFFD if the stream ended within a character, else nothing. The decoder is new afterwards."""
        return self._decoder.decode(b"", final=True)
