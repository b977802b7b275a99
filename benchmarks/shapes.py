"""Dimensions of the synthetic models: by name, or any."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_TOKENS = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))


@dataclass(frozen=True)
class Shape:
    """Dimensions of a Llama model."""

    d_model: int
    d_ff: int
    n_layer: int
    n_head: int
    n_head_kv: int
    vocab_size: int
    context: int = 2048
    rms_eps: float = 1e-5
    tied: bool = False  # the embedding is the output head too
    n_expert: int = 0  # of each layer; 0: no mixture

    @property
    def d_kv(self) -> int:
        return self.d_model // self.n_head * self.n_head_kv


SHAPES = {
    "tiny": Shape(256, 768, 2, 8, 2, 320, context=256),  # to try the scripts
    "51m": Shape(512, 1536, 12, 8, 4, 13056),
    "135m": Shape(576, 1536, 30, 9, 3, 49152, tied=True),
    "360m": Shape(960, 2560, 32, 15, 5, 49152, tied=True),
    "1.1b": Shape(2048, 5632, 22, 32, 4, 32000),
    "moe": Shape(1024, 512, 12, 16, 4, 32000, n_expert=16),
    "3b": Shape(3072, 8192, 28, 24, 8, 128256, tied=True),
    "7b": Shape(4096, 11008, 32, 32, 32, 32000),
}
DEFAULT_SHAPE = "1.1b"


def shape_of(text: str) -> Shape:
    """A shape by name, or six numbers with x between them: width, feed-forward, layers, heads, KV heads, vocabulary.

    Raises ValueError for anything else.
    """
    if text in SHAPES:
        return SHAPES[text]
    numbers = [int(part) if part.isascii() and part.isdigit() else 0 for part in text.split("x")]
    if len(numbers) != 6 or min(numbers) < 1:
        raise ValueError(f"no shape {text!r}: one of {', '.join(SHAPES)}, or six numbers such as 256x768x2x8x2x320")
    d_model, d_ff, n_layer, n_head, n_head_kv, vocab_size = numbers
    if d_model % (32 * n_head) or d_ff % 32 or n_head % n_head_kv or vocab_size < len(FIRST_TOKENS):
        raise ValueError(
            f"no shape {text!r}: heads must be multiples of 32 wide, the feed-forward width too, KV heads must divide "
            f"heads, and the vocabulary needs {len(FIRST_TOKENS)} tokens"
        )
    return Shape(d_model, d_ff, n_layer, n_head, n_head_kv, vocab_size)
