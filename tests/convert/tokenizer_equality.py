"""Do our tokenizers give the ids of Hugging Face's `tokenizers`?

    python -m tests.convert.tokenizer_equality [FOLDER ...] [--texts 10000] [--seed 1]

Each folder, and each made-up tokenizer of vocabularies.py, is converted and asked for random texts, all assigned code
points and every added token, with and without the tokens around a text. A folder with tokenizer.model alone is compared
with the `sentencepiece` package. The exit status is 1 when any ids differ.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from halfbyte.formats.safetensors import SafetensorsFile
from halfbyte.runtime.tokenize import Tokenizer

from . import vocabularies

_PIECES = [
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "'s",
    "'LL",
    "'\u017f",
    "1",
    "123456",
    ".",
    "...",
    "-",
    "\u2581",
    "<",
    "|>",
    "\u0301",
]
Ids = Callable[[str, bool], list[int]]  # text, with the tokens around it


@cache
def code_points() -> tuple[str, ...]:
    """All that have a meaning by themselves: assigned, no surrogates, not for private use."""
    return tuple(chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) not in ("Cn", "Cs", "Co"))


def random_text(rng: random.Random, added: list[str]) -> str:
    """Words, numbers, spaces, rare characters and added tokens."""
    parts: list[str] = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(_words()))
        elif kind < 0.55:
            parts.append(rng.choice(_PIECES))
        elif kind < 0.65 and added:
            parts.append(rng.choice(added))
        elif kind < 0.8:
            parts.append("".join(rng.choice(code_points()) for _ in range(rng.randint(1, 4))))
        else:
            parts.append(" " + rng.choice(_words()).swapcase())
    return "".join(parts)


def texts(rng: random.Random, added: list[str], count: int, *, step: int = 1) -> Iterator[str]:
    """Random texts; every step-th assigned code point, some to a text; each added token alone and among others."""
    for _ in range(count):
        yield random_text(rng, added)
    for token in added:
        yield from (token, f"a{token}b", f" {token} ", f"{token}{token}", f"x {token}\n{token} y")
    chars = list(code_points()[::step])
    rng.shuffle(chars)
    yield from vocabularies.batched(chars, 48)
    yield from vocabularies.batched([f"a{char}b" for char in chars], 48)


def differences(ours: Tokenizer, theirs: Ids, given: Iterator[str], *, parse: bool = True) -> list[str]:
    """The texts that get other ids."""
    found = []
    for text in given:
        for framed in (False, True):
            if ours.encode(text, add_special=framed, parse_special=parse) != theirs(text, framed):
                found.append(text)
                break
    return found


def reference(text: str) -> Any:
    """`tokenizers` on a tokenizer.json, whole texts as they are."""
    engine = vocabularies.Made.from_str(text)
    engine.no_truncation()
    engine.no_padding()
    return engine


def check_json(folder: Path, count: int, rng: random.Random, *, step: int = 1) -> list[str]:
    """The texts on which a folder with tokenizer.json differs."""
    engine = reference((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = [token.content for token in engine.get_added_tokens_decoder().values()]
    ours = vocabularies.converted(folder, engine.get_vocab_size(with_added_tokens=True) + 3)
    given = texts(rng, added, count, step=step)
    return differences(ours, lambda text, framed: list(engine.encode(text, add_special_tokens=framed).ids), given)


def check_pieces(folder: Path, count: int, rng: random.Random, *, step: int = 1) -> list[str]:
    """The texts on which a folder with tokenizer.model alone differs from the library that trained it."""
    from sentencepiece import SentencePieceProcessor

    engine = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = vocabularies.converted(folder, _rows(folder) or engine.vocab_size())
    begin = [engine.bos_id()] if ours.add_bos else []
    end = [engine.eos_id()] if ours.add_eos else []

    def ids(text: str, framed: bool) -> list[int]:
        pieces: list[int] = engine.encode(text)
        return begin + pieces + end if framed else pieces

    return differences(ours, ids, texts(rng, [], count, step=step), parse=False)


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("folders", nargs="*", type=Path)
    options.add_argument("--texts", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as temp:
        made = [vocabularies.write_made(Path(temp) / name, name) for name in vocabularies.MAKERS]
        for kind in ("bpe", "unigram"):
            files = {"tokenizer.model": vocabularies.pieces(kind)}
            made.append(vocabularies.write_tokenizer(Path(temp) / f"pieces of {kind}", files))
        for folder in [*given.folders, *made]:
            check = check_json if (folder / "tokenizer.json").is_file() else check_pieces
            wrong = check(folder, given.texts, random.Random(given.seed))
            failed |= bool(wrong)
            print(f"{folder.name}: {len(wrong)} texts differ {[ascii(text)[:80] for text in wrong[:4]]}", flush=True)
    return int(failed)


def _rows(folder: Path) -> int:
    path = folder / "model.safetensors"
    if not path.is_file():
        return 0
    with SafetensorsFile.open(path) as file:
        return next((t.shape[0] for name, t in file.tensors.items() if name.endswith("embed_tokens.weight")), 0)


@cache
def _words() -> list[str]:
    return (vocabularies.CORPUS.read_text(encoding="utf-8") + vocabularies.FOREIGN).split()


if __name__ == "__main__":
    sys.exit(main())
