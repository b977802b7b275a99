"""GPT-2's alphabet: every byte has a printable stand-in, so that tokens of arbitrary bytes are valid text."""

from __future__ import annotations


def _alphabet() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(0x100 + i): byte for i, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | shifted


BYTE_OF = _alphabet()
_CHAR_OF = {byte: char for char, byte in BYTE_OF.items()}


def decode(token: str) -> bytes:
    """The bytes a token stands for; a token with a character outside the alphabet is plain text."""
    try:
        return bytes([BYTE_OF[char] for char in token])
    except KeyError:
        return token.encode()


def encode(text: str) -> str:
    """The stand-ins of the UTF-8 bytes of `text`."""
    return text.encode().decode("latin-1").translate(_CHAR_OF)
