"""Which pre-tokenizer of the runtime's table is the one of a tokenizer.json: their structures are compared.

A structure is the regular expressions that cut a text, in order, in one spelling. Names of models and the ids of a test
sentence play no part: a model that nobody has seen before is recognized by what its file says.
"""

from __future__ import annotations

from typing import Any

from ...runtime.tokenize.pretokenizers import PATTERNS, PRE_TOKENIZERS

# Spellings of the same words, in published files and in the table -> one of them.
_CLITICS = r"(?:'[sS" + "\u017f" + r"]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPELLINGS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)": _CLITICS,
    r"'(?i:[sdmt]|ll|ve|re)": _CLITICS,
    r"[^\r\n\p{L}\p{N}]?+": r"[^\r\n\p{L}\p{N}]?",  # possessive, where nothing could be given back
    r"[^\s\p{L}\p{N}]++": r"[^\s\p{L}\p{N}]+",
    r"\"": '"',
    r"\p{N}{1}|": r"\p{N}|",
    r"|\s*[\r\n]|": r"|\s*[\r\n]+|",  # the spaces before the last line break take the others
    r"(?<![^\S\r\n])": "",  # these two keep long runs of spaces from being searched again and again
    r"(?<!\s)\s+$": r"\s+$",
    "[^(\\s|[.,!?…。，、।۔،])]": "[^(\\s|.,!?…。，、।۔،)]",
}
# Rules whose first pattern matches every character, so that dropping what lies between matches drops nothing.
_COVERING = frozenset({"gpt-2", "llama3", "qwen2", "qwen35", "gpt-4o", "tekken"})
# The usual name of rules that have several.
_USUAL = ("gpt-2", "llama-bpe", "qwen2", "smollm", "gpt-4o", "tekken", "deepseek-v3")

Steps = tuple[str, ...]


def canonical(pattern: str) -> str:
    """A regular expression in the spelling of the table."""
    for spelling, usual in _SPELLINGS.items():
        pattern = pattern.replace(spelling, usual)
    return pattern


def pre_name(pre_tokenizer: Any, *, ignore_merges: bool) -> str | None:
    """The name in the runtime's table that a "pre_tokenizer" of a byte-level tokenizer.json has, None for none."""
    steps = _steps(pre_tokenizer)
    if steps is None:
        return None
    patterns, drops = steps
    names = [
        name
        for name, row in PRE_TOKENIZERS.items()
        if row.alphabet == "bytes" and row.ignore_merges == ignore_merges and _table(row.rule) == patterns
    ]
    if drops and not any(PRE_TOKENIZERS[name].rule in _COVERING for name in names):
        return None
    return next((name for name in _USUAL if name in names), names[0] if names else None)


def is_byte_level(pre_tokenizer: Any) -> bool:
    """Whether words become the stand-ins of their bytes."""
    return any(step.get("type") == "ByteLevel" for step in flat(pre_tokenizer))


def normal_form(normalizer: Any) -> str | None:
    """The one Unicode normalization that a normalizer is; "" for none at all, None for anything else."""
    steps = flat(normalizer, inner="normalizers")
    if not steps:
        return ""
    name = steps[0].get("type")
    return name if len(steps) == 1 and name in ("NFC", "NFD", "NFKC", "NFKD") else None


def flat(step: Any, *, inner: str = "pretokenizers", depth: int = 8) -> list[dict[str, Any]]:
    """Steps without the sequences around them. What is no step becomes one that nothing equals."""
    if step is None:
        return []
    if not isinstance(step, dict) or depth == 0:
        return [{}]
    if step.get("type") != "Sequence":
        return [step]
    parts = step.get(inner)
    if not isinstance(parts, list):
        return [{}]
    return [found for part in parts for found in flat(part, inner=inner, depth=depth - 1)]


def _table(rule: str) -> Steps:
    return tuple(canonical(pattern) for pattern in PATTERNS[rule])


def _steps(pre_tokenizer: Any) -> tuple[Steps, bool] | None:
    """(patterns, whether the text between matches is dropped); None for steps that are not cuts by a pattern."""
    patterns: list[str] = []
    drops = False
    for step in flat(pre_tokenizer):
        match step:
            case {"type": "ByteLevel", "add_prefix_space": False, **rest}:
                found = PATTERNS["gpt-2"][0] if rest.get("use_regex", True) else ""
            case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
                found = regex
            case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Removed", "invert": True}:
                found, drops = regex, True
            case {"type": "Digits", "individual_digits": bool(single)}:
                found = r"\p{N}" if single else r"\p{N}+"
            case {"type": "Punctuation", "behavior": "Contiguous"}:
                found = r"[\p{P}\$\+<=>\^~\|`]+"
            case _:
                return None
        patterns += [canonical(found)] if found else []
    return tuple(patterns), drops
