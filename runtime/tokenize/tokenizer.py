"""Text to token ids and back, for every kind of vocabulary a GGUF file can hold."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from ...formats.errors import InvalidRequest
from . import bytelevel
from .cleanup import clean_spaces as _clean_spaces
from .hybriddna import KMER_MARK
from .keys import byte_value
from .matching import TokenMatcher
from .rwkv import unescape
from .stream import StreamDecoder
from .texts import Texts
from .vocabulary import BYTE, CONTROL, UNKNOWN, USER_DEFINED, Vocabulary

_SURROGATES = re.compile("[\ud800-\udfff]")


def whole_numbers(ids: Iterable[int]) -> list[int]:
    """Token ids as plain ints, in a vocabulary or not. TypeError says what is none."""
    if isinstance(ids, str | bytes | bytearray):  # bytes would pass for token ids
        raise TypeError(f"a sequence of token ids is needed, not {type(ids).__name__}: {ids!r:.40}")
    return [_whole_number(i) for i in ids]


def _whole_number(value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"a token id is a whole number, not {type(value).__name__}: {value!r:.40}") from None


class TextEncoder(Protocol):
    """What a kind of tokenizer brings: ids of a piece of text that holds no special token."""

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """`after_special`: the piece begins the text or follows a special token."""
        ...


@runtime_checkable
class WholeTextEncoder(Protocol):
    """A kind that finds special tokens itself."""

    def encode_whole(self, text: str, *, parse_special: bool) -> list[int]: ...


class Tokenizer:
    """The tokenizer of one model. Immutable, usable from any number of threads.

    Ids that the vocabulary lacks are None. `eog_ids` are the ids after which generation ends. `special_ids` maps roles
    (bos, eos, eot, eom, unk, sep, pad, mask, fim_pre, fim_suf, fim_mid, fim_pad, fim_rep, fim_sep) to ids.
    """

    def __init__(self, vocabulary: Vocabulary, encoder: TextEncoder) -> None:
        # No more of the vocabulary than is needed: it has tens of MB.
        self._encoder, self._pre, self._templates = encoder, vocabulary.pre, vocabulary.templates
        self._tokens, self._types = Texts(vocabulary.tokens), vocabulary.types.tobytes()
        self._bytes: dict[int, bytes] = {}
        self.special_ids: Mapping[str, int] = MappingProxyType(vocabulary.special)
        self.eog_ids = vocabulary.eog
        self.add_bos, self.add_eos = vocabulary.add_bos, vocabulary.add_eos
        self.kind = vocabulary.kind.name
        # Decoded text begins with the space that encoding put there.
        self.adds_space = self.kind == "bert" or vocabulary.add_space_prefix
        self._plain_matcher = _matcher(vocabulary, USER_DEFINED)
        self._special_matcher = _matcher(vocabulary, USER_DEFINED, CONTROL, UNKNOWN)

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind!r}, {self.vocab_size:,} tokens)"

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @property
    def bos_id(self) -> int | None:
        return self.special_ids.get("bos")

    @property
    def eos_id(self) -> int | None:
        return self.special_ids.get("eos")

    @property
    def eot_id(self) -> int | None:
        return self.special_ids.get("eot")

    @property
    def unk_id(self) -> int | None:
        return self.special_ids.get("unk")

    @property
    def pad_id(self) -> int | None:
        return self.special_ids.get("pad")

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of `text`.

        add_special: put BOS before and EOS (or SEP) behind where the model wants them.
        parse_special: let texts like "<|im_end|>" become control tokens. Leave it off for text from users: with it,
        they can forge the turns of a chat. User-defined tokens are found either way.
        A lone surrogate counts as U+FFFD. Raises TokenizerError, and TypeError for what is no str.
        """
        if not isinstance(text, str):
            raise TypeError(f"a str is needed, not {type(text).__name__}: {text!r:.40}")
        text = _SURROGATES.sub("\ufffd", text)
        ids = self._leading_ids() if add_special else []
        if isinstance(self._encoder, WholeTextEncoder):
            ids += self._encoder.encode_whole(text, parse_special=parse_special)
        else:
            ids += self._encode_parts(text, self._special_matcher if parse_special else self._plain_matcher)
        return ids + self._trailing_ids() if add_special else ids

    def _encode_parts(self, text: str, matcher: TokenMatcher) -> list[int]:
        """Ids of the special tokens that the matcher finds, and of what lies between them."""
        ids: list[int] = []
        after_special = True
        for part in matcher.split(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encoder.encode(part, after_special=after_special)
            after_special = isinstance(part, int)
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, clean_spaces: bool | None = None) -> str:
        """The text of `ids` taken as a whole text: the space that `encode` puts before it is removed.

        For text that continues another use `stream()`. skip_special leaves control tokens out. clean_spaces removes
        spaces before punctuation; None does so for WordPiece, which cannot say where there were none.
        Invalid UTF-8 becomes U+FFFD. Raises InvalidRequest for ids outside the vocabulary, and TypeError for what are
        no whole numbers.
        """
        ids = whole_numbers(ids)
        shown = [i for i in ids if not (skip_special and self.is_special(i))]
        data = b"".join([self.token_bytes(i) for i in shown])
        if self.adds_space:
            data = data.removeprefix(b" ")
        text = data.decode("utf-8", "replace")
        if clean_spaces is None:
            clean_spaces = self.kind == "bert"
        return _clean_spaces(text) if clean_spaces else text

    def stream(self, *, skip_special: bool = True, start: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one by one.

        start: the ids begin a text, as in `decode`. The default suits generated ids, which continue the prompt: a space
        that a vocabulary with space prefix (LLaMA's) holds in the first token then belongs to the text.
        """
        return StreamDecoder(self, skip_special=skip_special, start=start)

    def is_special(self, token: int) -> bool:
        """Whether the id is a control token or the unknown token."""
        return self._types[self._checked(token)] in (CONTROL, UNKNOWN)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that the id adds to a text; for special tokens the text of the token."""
        token = self._checked(token)
        data = self._bytes.get(token)
        if data is None:
            data = self._bytes[token] = self._render(token)
        return data

    def token_text(self, token: int) -> str:
        """The id for display: one line, without control characters; bytes that are no text as \\xNN."""
        text = self.token_bytes(token).decode("utf-8", "backslashreplace")
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

    def token_id(self, text: str) -> int | None:
        """The id of the token stored as `text`, in the spelling of the vocabulary."""
        return self._tokens.find(text) if text else None

    def chat_template(self, name: str | None = None) -> str | None:
        """The chat template of the file, or its template `name` ("tool_use", "rag", ...)."""
        return self._templates.get(name or "")

    def _leading_ids(self) -> list[int]:
        wanted = self.kind == "bert" or (self.add_bos and self.kind not in ("rwkv", "plamo2"))
        return [self.bos_id] if wanted and self.bos_id is not None else []

    def _trailing_ids(self) -> list[int]:
        if self.kind in ("rwkv", "plamo2"):  # llama.cpp adds nothing to these
            return []
        wanted = "sep" if self.kind == "bert" else "eos" if self.add_eos else ""
        return [self.special_ids[wanted]] if wanted in self.special_ids else []

    def _checked(self, token: int) -> int:
        if type(token) is not int:  # once a generated token: the call is spared
            token = _whole_number(token)
        if not 0 <= token < len(self._tokens):
            raise InvalidRequest(f"token id {token} is outside the vocabulary of {len(self._tokens):,} tokens")
        return token

    def _render(self, token: int) -> bytes:
        text, type_ = self._tokens[token], self._types[token]
        if type_ in (CONTROL, UNKNOWN, USER_DEFINED):
            return text.encode()
        if type_ == BYTE and (value := byte_value(text)) is not None:
            return bytes([value])
        pre = self._pre
        if self.kind == "rwkv":
            return unescape(text)
        if self.kind == "hybriddna" and text.endswith(KMER_MARK):
            return text.removesuffix(KMER_MARK).encode()
        if pre is not None and pre.alphabet == "bytes":
            return bytelevel.decode(text)
        if self.kind == "plamo2" or (pre is not None and pre.alphabet == "words"):
            return text.encode()
        return text.replace("\u2581", " ").encode()


def _matcher(vocabulary: Vocabulary, *types: int) -> TokenMatcher:
    tokens = {text: i for i in vocabulary.ids_of_type(*types) if (text := vocabulary.tokens[i])}
    return TokenMatcher(tokens, vocabulary.strip_left, vocabulary.strip_right)
