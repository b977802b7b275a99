"""The tokenizer keys of a GGUF file, read once, checked, and completed with the defaults llama.cpp applies.

Everything below works on plain mappings too, so that tests need no file. Nothing here tokenizes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import TokenizerError, UnsupportedError
from ...formats.gguf.kinds import TOKENIZER
from . import keys
from .kinds import KINDS, Kind
from .known_tokens import complete_special_ids, end_of_generation, mark_control
from .pretokenizers import PRE_TOKENIZERS, PreTokenizer

# Values of tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# Metadata key (after "tokenizer.ggml.") of each special id. The spelling of "seperator" is the format's.
_ID_KEYS = {
    "bos": ("bos_token_id", "cls_token_id"),
    "eos": ("eos_token_id",),
    "eot": ("eot_token_id",),
    "eom": ("eom_token_id",),
    "unk": ("unknown_token_id",),
    "sep": ("seperator_token_id",),
    "pad": ("padding_token_id",),
    "mask": ("mask_token_id",),
    "fim_pre": ("fim_pre_token_id", "prefix_token_id"),
    "fim_suf": ("fim_suf_token_id", "suffix_token_id"),
    "fim_mid": ("fim_mid_token_id", "middle_token_id"),
    "fim_pad": ("fim_pad_token_id",),
    "fim_rep": ("fim_rep_token_id",),
    "fim_sep": ("fim_sep_token_id",),
}
_PART = 16_384  # tokens: one call for Gemma 3's 262,144 holds Python's lock for 75 ms, and windows stand still
HUGGINGFACE_KEY = "tokenizer.huggingface.json"
NORMAL_FORM_KEY = f"{TOKENIZER}normal_form"  # GGUF has no key for it, and llama.cpp does without
NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
_NO_TOKEN = {-1, 0xFFFF_FFFF}  # converters write "none" as -1, stored in a UINT32


@dataclass
class Vocabulary:
    """tokens: text per id. types: token_type per id (uint8). scores: float32 per id. ids: text -> id.

    special: "bos", "eos", ... -> id, only those that exist. eog: ids that end generation.
    strip_left, strip_right: ids that swallow white space before or after them when found in a text.
    normal_form: the Unicode normalization that texts go through first, if any ("NFC", ...).
    huggingface: a whole tokenizer.json that was embedded, which then decides the ids of texts.
    """

    kind: Kind
    pre: PreTokenizer | None
    tokens: list[str]
    ids: dict[str, int]
    types: NDArray[np.uint8]
    scores: NDArray[np.float32]
    merges: list[str]
    charsmap: bytes
    special: dict[str, int]
    eog: frozenset[int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    lowercase: bool
    strip_accents: bool
    templates: dict[str, str] = field(default_factory=dict)
    strip_left: frozenset[int] = frozenset()
    strip_right: frozenset[int] = frozenset()
    normal_form: NormalForm | None = None
    huggingface: str = ""

    def ids_of_type(self, *types: int) -> list[int]:
        return [int(i) for i in np.flatnonzero(np.isin(self.types, types))]


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Read and check. Raises TokenizerError (broken data) and UnsupportedError (unknown kind or pre-tokenizer)."""
    kind = _read_kind(metadata)
    pre = _read_pre(metadata, kind)
    tokens = _read_tokens(metadata)
    ids = _index(tokens)
    special = _read_special_ids(metadata, kind, len(tokens))
    types = _read_types(metadata, kind, tokens, special)
    complete_special_ids(special, ids)
    eog = end_of_generation(special, ids, types)
    mark_control(ids, types)
    lowercase = keys.flag(metadata, "normalizer.lowercase", kind.name == "bert")
    strip_left, strip_right = _stripping(metadata, ids, types)
    forced_bos = pre is not None and pre.rule == "newlines" and pre.add_bos
    return Vocabulary(
        kind=kind,
        pre=pre,
        tokens=tokens,
        ids=ids,
        types=types,
        scores=_read_scores(metadata, len(tokens)),
        merges=keys.texts(metadata, "merges", required=kind.has_merges and (pre is None or pre.rule != "kimi-k2")),
        charsmap=keys.blob(metadata, "precompiled_charsmap"),
        special=special,
        eog=eog,
        add_bos=forced_bos or keys.flag(metadata, "add_bos_token", kind.add_bos or (pre is not None and pre.add_bos)),
        add_eos=keys.flag(metadata, "add_eos_token", kind.add_eos),
        add_space_prefix=keys.flag(metadata, "add_space_prefix", kind.add_space_prefix),
        remove_extra_whitespaces=keys.flag(metadata, "remove_extra_whitespaces", False),
        lowercase=lowercase,
        strip_accents=keys.flag(metadata, "normalizer.strip_accents", lowercase),
        templates=_read_templates(metadata),
        strip_left=strip_left,
        strip_right=strip_right,
        normal_form=_read_normal_form(metadata),
        huggingface=_read_huggingface(metadata),
    )


def _read_kind(metadata: Mapping[str, Any]) -> Kind:
    name = keys.text(metadata, "model")
    if name is None:
        raise TokenizerError("this file has no tokenizer: 'tokenizer.ggml.model' is missing; convert the model again")
    if name not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise UnsupportedError(f"tokenizer kind {name!r} is not supported by this version (known: {known})")
    return KINDS[name]


def _read_pre(metadata: Mapping[str, Any], kind: Kind) -> PreTokenizer | None:
    if not kind.has_merges:
        return None
    name = kind.pre or keys.text(metadata, "pre") or "default"
    if name not in PRE_TOKENIZERS:
        near = difflib.get_close_matches(name, PRE_TOKENIZERS, n=3, cutoff=0.3) or sorted(PRE_TOKENIZERS)[:3]
        raise UnsupportedError(
            f"pre-tokenizer {name!r} ('tokenizer.ggml.pre') is not known to this version; "
            f"nearest known: {', '.join(near)}. Update Halfbyte, or convert the model again"
        )
    return PRE_TOKENIZERS[name]


def _read_tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = keys.texts(metadata, "tokens", required=True)
    if not tokens:
        raise TokenizerError("'tokenizer.ggml.tokens' is empty: a vocabulary needs at least one token")
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:
        bad = next(i for i, token in enumerate(tokens) if not keys.is_valid(token))
        raise TokenizerError(f"'tokenizer.ggml.tokens'[{bad}] is not valid UTF-8: {ascii(tokens[bad])[:80]}") from None
    return tokens


def _index(tokens: list[str]) -> dict[str, int]:
    """Text -> id. Empty tokens (llama.cpp tolerates them) match nothing and are left out."""
    ids: dict[str, int] = {}
    for begin in range(0, len(tokens), _PART):
        ids.update(zip(tokens[begin : begin + _PART], range(begin, len(tokens)), strict=False))
    empty = ids.pop("", None)
    if len(ids) + (tokens.count("") if empty is not None else 0) != len(tokens):
        first: dict[str, int] = {}
        for i, token in enumerate(tokens):
            if token and first.setdefault(token, i) != i:
                twice = f"{ascii(token)[:80]} twice: ids {first[token]} and {i}"
                raise TokenizerError(f"'tokenizer.ggml.tokens' holds {twice}")
    return ids


def _read_special_ids(metadata: Mapping[str, Any], kind: Kind, count: int) -> dict[str, int]:
    """Ids that the file names, then the defaults of its kind that fit the vocabulary."""
    special = {name: i for name, i in kind.special.items() if i < count}
    for name, spellings in _ID_KEYS.items():
        for key in reversed(spellings):
            value = keys.integer(metadata, key)
            if value is None:
                continue
            if value in _NO_TOKEN:
                special.pop(name, None)
            elif not 0 <= value < count:
                raise TokenizerError(
                    f"'tokenizer.ggml.{key}' is {value}, outside the vocabulary of {count:,} tokens; convert again"
                )
            else:
                special[name] = value
    return special


def _read_types(
    metadata: Mapping[str, Any], kind: Kind, tokens: list[str], special: dict[str, int]
) -> NDArray[np.uint8]:
    stored = keys.numbers(metadata, "token_type", len(tokens), integer=True)
    if stored is not None:
        known = (stored >= NORMAL) & (stored <= BYTE)
        return np.where(known, stored, NORMAL).astype(np.uint8)
    types = np.full(len(tokens), NORMAL, np.uint8)
    if kind.byte_tokens:
        types[[i for i, token in enumerate(tokens) if keys.byte_value(token) is not None]] = BYTE
    types[[i for name, i in special.items() if name != "unk"]] = CONTROL
    if "unk" in special:
        types[special["unk"]] = UNKNOWN
    return types


def _read_scores(metadata: Mapping[str, Any], count: int) -> NDArray[np.float32]:
    scores = keys.numbers(metadata, "scores", count)
    if scores is None:
        return np.zeros(count, np.float32)
    if not np.isfinite(scores).all():
        raise TokenizerError(f"'tokenizer.ggml.scores'[{int(np.argmin(np.isfinite(scores)))}] is not a finite number")
    return scores.astype(np.float32)


def _read_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Name -> chat template; the unnamed one under ""."""
    prefix = "tokenizer.chat_template"
    names = [key for key in metadata if key == prefix or key.startswith(prefix + ".")]
    found = {key[len(prefix) + 1 :]: metadata[key] for key in names}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _read_normal_form(metadata: Mapping[str, Any]) -> NormalForm | None:
    value = metadata.get(NORMAL_FORM_KEY)
    known: dict[str, NormalForm] = {name: name for name in get_args(NormalForm)}
    if value is not None and (not isinstance(value, str) or value not in known):
        raise TokenizerError(f"'{NORMAL_FORM_KEY}' must be one of {', '.join(known)}, not {ascii(value)[:60]}")
    return None if value is None else known[value]


def _read_huggingface(metadata: Mapping[str, Any]) -> str:
    value = metadata.get(HUGGINGFACE_KEY, "")
    if not isinstance(value, str) or not keys.is_valid(value):
        raise TokenizerError(f"'{HUGGINGFACE_KEY}' must be a text in UTF-8")
    return value


def _stripping(
    metadata: Mapping[str, Any], ids: dict[str, int], types: NDArray[np.uint8]
) -> tuple[frozenset[int], frozenset[int]]:
    """GGUF stores no per-token white-space flags; these are the models known to have them."""
    pre = keys.text(metadata, "pre") or ""
    arch, name = (metadata.get(key) for key in ("general.architecture", "general.name"))
    name = name.lower() if isinstance(name, str) else ""
    if pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or arch in ("nomic-bert-moe", "jina-bert-v3"):
        return frozenset({ids["<mask>"]} if "<mask>" in ids else ()), frozenset()
    if "phi-3" in name or "phi3" in name:
        keep = {ids.get(text) for text in ("<unk>", "<s>", "<|endoftext|>")}
        special = np.flatnonzero(np.isin(types, (UNKNOWN, CONTROL, USER_DEFINED)))
        return frozenset(), frozenset(int(i) for i in special if int(i) not in keep)
    if "modern-bert" in name:
        return frozenset({ids["[MASK]"]} if "[MASK]" in ids else ()), frozenset()
    return frozenset(), frozenset()
