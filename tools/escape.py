"""Make untrusted text safe to print: control characters become visible escapes.

File names, metadata and model output can hold sequences that rewrite the screen, fill the clipboard or reorder what is
read. Every string that reaches a terminal or a log goes through `visible` or `one_line`.
"""

from __future__ import annotations

import re

# C0 except tab and newline, DEL and C1 (ESC, CSI, OSC among them), Unicode line separators, bidirectional controls
# and invisible marks, byte order mark, annotation controls, lone surrogates, tag characters.
# The zero-width joiner (U+200D) stays: emoji need it.
_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff"
)
_CONTROL = re.compile(f"[{_UNSAFE}]")
_CONTROL_OR_BREAK = re.compile(f"[{_UNSAFE}\t\n]")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def visible(text: str) -> str:
    """`text` with every control character but newline and tab written as an escape. Works piece by piece."""
    return _CONTROL.sub(_escape, text)


def one_line(text: str, limit: int | None = None) -> str:
    """`visible` for a cell or a message: newlines and tabs are escaped too, and `limit` characters are kept."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return _CONTROL_OR_BREAK.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
