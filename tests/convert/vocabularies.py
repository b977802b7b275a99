"""Small tokenizers of every structure, trained on the spot, and the folders that hold them."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from halfbyte.converters.checkpoint import Checkpoint
from halfbyte.converters.source import SourceModel
from halfbyte.converters.vocab import vocabulary
from halfbyte.runtime.tokenize import Tokenizer, tokenizer_from_metadata
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = Path(__file__).parents[2] / "docs" / "layout.md"
FOREIGN = (
    "Grüße aus Köln, straße ÉCOLE naïve café. Ελληνικά και ΑΛΦΑ. Привет, мир! Съешь ещё. नमस्ते दुनिया สวัสดี"
    " 你好世界，再见。"
    " こんにちは カタカナ 한국어 안녕하세요 العربية مرحبا 1234567 ١٢٣ ½ Ⅷ"
    " e\u0301a\u0300 \u2126 👍🏽 🇩🇪 “quoted” — €5 \u00a0 \u3000 "
) * 8
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
Made = tokenizers.Tokenizer


def _corpus() -> list[str]:
    return [*CORPUS.read_text(encoding="utf-8").split("\n"), FOREIGN]


def _crossing() -> list[str]:
    """Short texts in which words, numbers, marks and spaces meet."""
    text = CORPUS.read_text(encoding="utf-8") + FOREIGN
    edges = [
        "1234",
        "12",
        "123",
        "a1",
        "1a",
        "x's",
        "x'S ",
        "'ll",
        "'\u017f",
        " 1",
        "!!",
        "!\n",
        "\n\n",
        "  a",
        " \n",
        "?!a",
        "/",
    ]
    return [text[i : i + 14] for i in range(0, len(text), 14)] + edges * 40


def _split(pattern: str, behavior: str = "isolated", *, invert: bool = False) -> Any:
    return pre_tokenizers.Split(Regex(pattern), behavior=behavior, invert=invert)


def _bytes(*steps: Any, regex: bool = False, **options: Any) -> Made:
    """Byte-level BPE that cuts by these steps. It was trained without any, so that each cut that is missing shows."""
    made = Made(models.BPE(**options))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(_crossing(), trainer)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, level]) if steps else level
    made.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("user defined", normalized=False)])
    made.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return made


def _gpt2() -> Made:
    return _bytes(regex=True)


def _llama3() -> Made:
    return _bytes(_split(LLAMA3), ignore_merges=True)


def _cl100k() -> Made:
    return _bytes(
        _split(LLAMA3.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)"), "removed", invert=True)
    )


def _qwen2() -> Made:
    made = _bytes(_split(QWEN2))
    made.normalizer = normalizers.NFC()
    return made


def _smollm() -> Made:
    return _bytes(pre_tokenizers.Digits(individual_digits=True), regex=True)


def _unknown() -> Made:
    """Cuts as nobody does, lowers case, and has added tokens that take spaces or must stand alone."""
    made = _bytes(_split(r"\p{L}{1,4}|\d|\s+|."))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.add_tokens([AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True, normalized=False)])
    made.add_tokens([AddedToken("alone", single_word=True)])
    made.enable_truncation(5)
    made.enable_padding(length=9)
    return made


def _characters(normalizer: Any) -> Made:
    made = Made(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizer
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    made.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")  # words, while it is trained
    made.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    state = json.loads(made.to_str())
    state["pre_tokenizer"] = None
    state["added_tokens"] = state["added_tokens"][:3]
    return Made.from_str(json.dumps(state))


def _fallback() -> Made:
    """Llama's way, by `tokenizers` alone: merges that scores cannot tell."""
    return _characters(normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]))


def _first() -> Made:
    """Llama's way as transformers 5 writes it: a space before a text, and none after special tokens."""
    made = _fallback()
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return made


def _scored() -> Made:
    """The same with the merges of a SentencePiece model: every way to make each token, token by token."""
    state = json.loads(_characters(normalizers.Replace(" ", "\u2581")).to_str())
    vocab, made = state["model"]["vocab"], dict.fromkeys("".join(pair) for pair in state["model"]["merges"])
    kept = {token: i for token, i in vocab.items() if len(token) == 1 or token.startswith("<") or token in made}
    ways = ([(token[:i], token[i:]) for i in range(1, len(token))] for token in made)
    pairs = [pair for way in ways for pair in sorted(way, key=lambda pair: -len(pair[0])) if kept.keys() >= set(pair)]
    state["model"] |= {"merges": pairs}
    return Made.from_str(json.dumps(state))


def _unigram() -> Made:
    made = Made(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(_corpus(), trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


def _word_piece() -> Made:
    made = Made(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        _corpus(), trainers.WordPieceTrainer(vocab_size=1200, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


# Name -> what makes it.
MAKERS: Mapping[str, Callable[[], Made]] = {
    "gpt2": _gpt2, "llama3": _llama3, "cl100k": _cl100k, "qwen2": _qwen2, "smollm": _smollm, "unknown": _unknown,
    "fallback": _fallback, "first": _first, "scored": _scored, "unigram": _unigram, "wordpiece": _word_piece,
}  # fmt: skip
NAMED = {
    "wordpiece": {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
    "unigram": {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"},
    "fallback": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": {"content": "</s>"}},
}
BYTES = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}


@cache
def made(name: str) -> str:
    """The tokenizer.json of a name of `MAKERS`."""
    return MAKERS[name]().to_str()


def rows_for(name: str) -> int:
    """How many rows a model with the tokenizer of a name of `MAKERS` may have: its tokens, and some to spare."""
    return Made.from_str(made(name)).get_vocab_size() + 64


@cache
def pieces(kind: str) -> bytes:
    """A tokenizer.model that the `sentencepiece` package trained: "bpe" or "unigram", with its own normalization."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()), model_writer=written, vocab_size=700, model_type=kind,
        byte_fallback=kind == "bpe", user_defined_symbols=["<tool>"], minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def write_tokenizer(folder: Path, files: Mapping[str, Any]) -> Path:
    """A folder with these files, and weights that mean nothing."""
    from .checkpoints import safetensors

    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ({"config.json": {}, "model.safetensors": safetensors({})} | dict(files)).items():
        (folder / name).parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_made(folder: Path, name: str) -> Path:
    """A folder with the tokenizer of a name of `MAKERS`."""
    named = NAMED.get(name, NAMED["fallback"] if name in ("first", "scored") else BYTES)
    return write_tokenizer(folder, {"tokenizer.json": made(name), "tokenizer_config.json": named})


def metadata_of(folder: Path, n_vocab: int) -> Mapping[str, Any]:
    """The keys of a folder, as a file would have them."""
    with Checkpoint.open(folder) as checkpoint:
        model = SourceModel(folder, (), vocabulary(checkpoint, n_vocab), {}, checkpoint.close)
        metadata: Mapping[str, Any] = model.metadata
        return metadata


def converted(folder: Path, n_vocab: int) -> Tokenizer:
    """Our tokenizer of a folder."""
    return tokenizer_from_metadata(metadata_of(folder, n_vocab))


def batched(items: list[str], size: int) -> list[str]:
    """The items, so many to a text."""
    return [" ".join(items[i : i + size]) for i in itertools.islice(itertools.count(0, size), -(-len(items) // size))]
