"""Does the written file predict what was to be written? Both run on the reference backend, in float32, over one text.

One side is the checkpoint's weights, unquantized, as the family's converter hands them on; the other is the file as its
reader sees it. What quantizing, encoding, splitting or writing do wrong shows before the file gets its name. What it
cannot show is a family that reads a checkpoint wrongly, for both sides follow it: tests hold each family against
transformers for that. Tokens are compared with those of the library that the checkpoint's tokenizer was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..formats.errors import HalfbyteError
from ..formats.gguf import GGUFFile
from ..runtime.backends.base import Progress
from ..runtime.backends.reference import ReferenceBackend
from ..runtime.models import build_model
from ..runtime.step import PAGE, Step
from ..runtime.tokenize import tokenizer_from_metadata
from .source import SourceModel
from .vocab.agreement import disagreements, has_reference

KEYS = ("halfbyte.check.kl_mean", "halfbyte.check.kl_max", "halfbyte.check.same_top")
TOKENS_KEY = "halfbyte.check.same_tokens"
SMALL = 100_000_000  # weights that NumPy multiplies with in seconds
TOKENS = 64
# Nats a token. A file of random numbers is as far from its source as the vocabulary is large: ln(32,000) is 10. Trained
# models in the coarsest types stay below one.
GARBAGE = 2.0
TEXT = (
    "The quick brown fox jumps over the lazy dog. In 1905, a clerk at the patent office wrote: E = mc^2!\n\n"
    "def area(width, height):\n    return width * height  # in square metres\n\n"
    "Était-ce vrai? Ja, natürlich: 東京は晴れ。"
)


class ConversionError(HalfbyteError):
    """The written file does not predict, or not tokenize, as what it was made of."""

    exit_code = 3


@dataclass(frozen=True)
class Check:
    """D(source || file) over `n_tokens` positions in nats, and the share of them with the same likeliest token.

    same_tokens  the share of `n_texts` texts with the same tokens; None where no library reads the source's tokenizer
    """

    n_tokens: int
    kl_mean: float
    kl_max: float
    same_top: float
    n_texts: int = 0
    same_tokens: float | None = None

    def keys(self) -> Mapping[str, float]:
        """As metadata."""
        found = dict(zip(KEYS, (self.kl_mean, self.kl_max, self.same_top), strict=True))
        return found if self.same_tokens is None else {**found, TOKENS_KEY: self.same_tokens}


def keys_for(model: SourceModel) -> tuple[str, ...]:
    """The keys that a check of the model will have numbers for."""
    return (*KEYS, TOKENS_KEY) if has_reference(model.paths) else KEYS


def can_be_checked(model: GGUFFile) -> bool:
    """Whether the model predicts tokens (encoders do not), and a check takes seconds."""
    architecture = model.metadata.require("general.architecture", str)
    predicts = model.metadata.optional(f"{architecture}.attention.causal", bool, True)
    return predicts and sum(tensor.n_elements for tensor in model.tensors.values()) <= SMALL


def check(source: SourceModel, written: Path, *, progress: Progress | None = None) -> Check:
    """Compare. ConversionError where the file predicts something else altogether."""
    if progress:
        progress("check", 0, 2)
    tokens = sample(source)
    wanted = logits(source, tokens)
    if progress:
        progress("check", 1, 2)
    with GGUFFile.open(written, use_mmap=False) as file:
        found, counts = logits(file, tokens), compare_tokens(source, file)
    if progress:
        progress("check", 2, 2)
    result = compared(wanted, found)
    if not result.kl_mean <= GARBAGE:  # NaN is not
        raise ConversionError(
            f"{source.path}: the written model predicts something else than its source: KL {result.kl_mean:.2f} nats a "
            f"token, the same likeliest token for {100 * result.same_top:.0f} % of {result.n_tokens}. Nothing was "
            "written; choose a type with more bits, or report the checkpoint"
        )
    return replace(result, n_texts=counts[0], same_tokens=counts[1])


def compare_tokens(source: SourceModel, file: GGUFFile) -> tuple[int, float | None]:
    """(texts, the share of them with the same tokens). ConversionError where that is not all of them."""
    if not has_reference(source.paths):
        return 0, None
    n, other = disagreements(source.paths, tokenizer_from_metadata(file.metadata))
    if other:
        raise ConversionError(
            f"{source.path}: {len(other)} of {n} texts get other tokens by the written file than by the checkpoint's "
            f"tokenizer, {other[0]!a} first. Nothing was written; report the checkpoint, or leave the check out"
        )
    return n, 1.0


def sample(source: GGUFFile) -> NDArray[np.int32]:
    """Up to TOKENS tokens of a text of several kinds, by the model's own tokenizer; no more than its context holds."""
    architecture = source.metadata.require("general.architecture", str)
    room = min(TOKENS, source.metadata.optional(f"{architecture}.context_length", int, TOKENS))
    ids = tokenizer_from_metadata(source.metadata).encode(TEXT)[:room]
    return np.asarray(ids, np.int32)


def logits(model: GGUFFile, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Of every position, float32 [n, vocabulary]."""
    spec = build_model(model)
    n, n_pages = len(tokens), -(-len(tokens) // PAGE)
    step = Step(
        tokens=tokens, positions=np.arange(n, dtype=np.int32), sequence=np.zeros(n, np.int32),
        pages=np.arange(n_pages, dtype=np.int32)[None], outputs=np.arange(n, dtype=np.int32),
    )  # fmt: skip
    return ReferenceBackend().compile(spec.graph, n_pages=n_pages, max_tokens=n).run(step)


def compared(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> Check:
    """Of logits float32 [n, vocabulary] each."""
    p, q = (_log_softmax(values) for values in (wanted, found))
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    same = wanted.argmax(axis=1) == found.argmax(axis=1)
    return Check(len(kl), float(kl.mean()), float(kl.max()), float(same.mean()))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows
