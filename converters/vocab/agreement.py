"""Does the written tokenizer give the ids of the library whose file the checkpoint has?

`tokenizers` reads tokenizer.json, `sentencepiece` tokenizer.model. Nobody but us reads the other forms here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...formats.errors import HalfbyteError
from ...runtime.tokenize import Tokenizer
from ..checkpoint import CheckpointError
from .sentence import NAMES
from .tokenizer_json import NAME

_ADDED = 500  # added tokens that are tried: some files have thousands of numbered ones
TEXTS = (
    "The quick brown fox jumps over the lazy dog.", "it's WE'LL I'D they've",
    " two  spaces   three\ttab\n\nline\r\n  indented",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F x2 2x", "if (a[i] != b->c) { return *p++; }  // ==> ~`^|\\",
    "Größe, Ærø, naïve façade, ÉCOLE, straße, İstanbul ﬁ Å e\u0301a\u0300", "Ελληνικά ΑΛΦΑ привет Мир ещё",
    "東京は晴れ。你好，世界！ 안녕하세요 カタカナ", "العربية مرحبا עברית नमस्ते สวัสดี ١٢٣ ½ Ⅷ",
    "👍🏽 🇩🇪 👩‍👩‍👧 \u00a0nbsp\u3000 \u200bzero “quoted” — €5 \u2581 <unk> [MASK] <|x|>", "", " ", "a",
)  # fmt: skip


def has_reference(paths: Iterable[Path]) -> bool:
    """Whether one of the files of a checkpoint is read by a library."""
    return any(path.name in (NAME, *NAMES) for path in paths)


def disagreements(paths: Iterable[Path], ours: Tokenizer) -> tuple[int, list[str]]:
    """(number of texts, those that get other ids, with the tokens around a text or without them).

    CheckpointError for a file that its library refuses.
    """
    by_name = {path.name: path for path in paths}
    compare = _by_tokenizers if NAME in by_name else _by_sentencepiece
    path = by_name[next(name for name in (NAME, *NAMES) if name in by_name)]
    try:
        pairs = list(compare(path, ours))
    except (HalfbyteError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the libraries raise what they like, and panics are no Exceptions
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(
            f"the library that it is made for does not take it: {said}", path=path,
            hint="Download the folder again, or leave the check out (--no-verify)",
        ) from None  # fmt: skip
    return len(pairs), [text for text, is_same in pairs if not is_same]


def _by_tokenizers(path: Path, ours: Tokenizer) -> Iterator[tuple[str, bool]]:
    import tokenizers

    engine: Any = tokenizers.Tokenizer.from_buffer(path.read_bytes())  # names need not be UTF-8
    engine.no_truncation()
    engine.no_padding()
    if getattr(engine.model, "dropout", None):
        engine.model.dropout = None  # is for training: texts would get other tokens every time
    decoder = engine.get_added_tokens_decoder()  # those beyond the rows are not converted
    added = [token.content for i, token in decoder.items() if i < ours.vocab_size][:_ADDED]
    # A file that frames nothing leaves that to tokenizer_config.json, which the library does not read.
    ways = (False, True) if _frames(json.loads(engine.to_str())["post_processor"]) else (False,)
    for text in (*TEXTS, *(f"a {token}b{token} c" for token in added)):
        yield text, all(
            ours.encode(text, add_special=framed, parse_special=True)
            == list(engine.encode(text, add_special_tokens=framed).ids)
            for framed in ways
        )


def _frames(post_processor: Any) -> bool:
    """Whether a file puts tokens around texts."""
    written = json.dumps(post_processor)
    return any(f'"{word}"' in written for word in ("SpecialToken", "BertProcessing", "RobertaProcessing"))


def _by_sentencepiece(path: Path, ours: Tokenizer) -> Iterator[tuple[str, bool]]:
    import sentencepiece

    engine: Any = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    pieces = engine.get_piece_size()
    # Where tokenizer_config.json takes away the space that the model puts before texts, it is put there here.
    config = path.with_name("tokenizer_config.json")
    said = json.loads(config.read_bytes()) if config.is_file() else {}
    before = " " if said.get("add_prefix_space") is False else ""
    for text in TEXTS:
        ids = ours.encode(before + text if text else text, add_special=False)
        if all(i < pieces for i in ids):  # others were added beside the model, which knows nothing of them
            yield text, ids == list(engine.encode(text))
