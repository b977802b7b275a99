"""Special tokens known by their text, for files that do not name them.

Each list is in order of preference (llama.cpp takes whichever its hash table yields first).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CONTROL = 3

_BY_TEXT: dict[str, tuple[str, ...]] = {
    "eot": (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}

# Texts that end generation wherever they occur as a token.
_ENDINGS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)


def complete_special_ids(special: dict[str, int], ids: dict[str, int]) -> None:
    """Fill in the roles that the file does not name from well known texts."""
    for role, texts in _BY_TEXT.items():
        if role not in special:
            found = next((ids[text] for text in texts if text in ids), None)
            if found is not None:
                special[role] = found


def end_of_generation(special: dict[str, int], ids: dict[str, int], types: NDArray[np.uint8]) -> frozenset[int]:
    """The ids that end generation: eos, eot, eom, the fill-in-the-middle padding, and well known texts.

    `</s>` counts only where it is a control token: in Gemma's vocabularies it is the HTML tag of struck-out text.
    """
    roles = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
    eog = {special[role] for role in roles if role in special}
    eog |= {ids[text] for text in _ENDINGS if text in ids and (text != "</s>" or types[ids[text]] == _CONTROL)}
    # In the Harmony format of gpt-oss (and in Solar Open) <|end|> closes one message, not the turn.
    closes_turn = {"<|call|>", "<|calls|>"} & ids.keys() and {"<|return|>", "<|flush|>"} & ids.keys()
    if closes_turn and "<|end|>" in ids:
        eog.discard(ids["<|end|>"])
    if ("<|tool_response>" in ids or "<|plamo:eos|>" in ids) and "</s>" in ids:
        eog.discard(ids["</s>"])
    return frozenset(eog)


def mark_control(ids: dict[str, int], types: NDArray[np.uint8]) -> None:
    """Make control tokens of special texts that a converter left as plain text, so that no prompt can forge them."""
    known = {text for texts in _BY_TEXT.values() for text in texts} | set(_ENDINGS) - {"</s>"}
    for text in known & ids.keys():
        types[ids[text]] = _CONTROL
