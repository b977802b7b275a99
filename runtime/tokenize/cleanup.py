"""Undoing the spaces that WordPiece decoding leaves around English punctuation, as BERT's own decoder does."""

from __future__ import annotations

_REPLACEMENTS = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def clean_spaces(text: str) -> str:
    """Remove the spaces before punctuation and clitics."""
    for spaced, joined in _REPLACEMENTS:
        text = text.replace(spaced, joined)
    return text
