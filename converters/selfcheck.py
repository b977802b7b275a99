"""Does the written file predict what was to be written? Both are run by the reference, in float32, over one text, and
neither is ever in memory: weights are read in parts, multiplied with, and forgotten.

One side is the source's weights, of a checkpoint unquantized as the family's converter hands them on; the other is the
file as its reader sees it. What quantizing, encoding, splitting or writing do wrong shows before the file gets its
name. What it cannot show is a family that reads a checkpoint wrongly, for both sides follow it: tests hold each family
against transformers for that. Tokens are compared with those of the library that the checkpoint's tokenizer was made
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..formats.errors import HalfbyteError
from ..formats.gguf import GGUFFile, hollow
from ..runtime.backends.base import Progress
from ..runtime.backends.streamed import StreamedExecutor
from ..runtime.models import build_model
from ..runtime.step import PAGE, Step
from ..runtime.tokenize import tokenizer_from_metadata
from .vocab.agreement import disagreements, has_reference

PREFIX = "halfbyte.check."
OF_LOGITS, OF_VECTORS, OF_TOKENS = ("kl_mean", "kl_max", "same_top"), ("cosine",), ("same_tokens",)
SMALL = 500_000_000  # weights: a check takes seconds, 9 for each billion (benchmarks/results/convert.md)
TOKENS = 64
# Nats a token. A file of random numbers is as far from its source as the vocabulary is large: ln(32,000) is 10. A model
# of 8 million weights loses 0.3 in IQ1_S, and 3 in the types of two values that it was not trained for, which is
# garbage (benchmarks/results/trained.md).
GARBAGE = 2.0
STRANGE = 0.5  # mean cosine of an encoder's vectors: unrelated ones have none (benchmarks/results/embeddings.md)
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
    """What the file has in common with its source, over `n_tokens` positions of a text.

    kl_mean, kl_max  D(source || file) in nats, and same_top, the share with the same likeliest token; None of encoders
    cosine           of encoders: the mean cosine of their vectors
    same_tokens      the share of `n_texts` texts with the same tokens; None where no library reads the tokenizer
    """

    n_tokens: int
    kl_mean: float | None = None
    kl_max: float | None = None
    same_top: float | None = None
    cosine: float | None = None
    n_texts: int = 0
    same_tokens: float | None = None

    def keys(self) -> Mapping[str, float]:
        """As metadata."""
        named = {name: getattr(self, name) for name in (*OF_LOGITS, *OF_VECTORS, *OF_TOKENS)}
        return {PREFIX + name: value for name, value in named.items() if value is not None}


def keys_for(model: GGUFFile) -> tuple[str, ...]:
    """The keys that a check of the model will have numbers for."""
    names = (*(OF_VECTORS if is_encoder(model) else OF_LOGITS), *(OF_TOKENS if has_reference(model.paths) else ()))
    return tuple(PREFIX + name for name in names)


def is_encoder(model: GGUFFile) -> bool:
    """Whether the model makes vectors of a text, and predicts no tokens."""
    architecture = model.metadata.require("general.architecture", str)
    return not model.metadata.optional(f"{architecture}.attention.causal", bool, True)


def is_small(model: GGUFFile) -> bool:
    """Whether a check takes seconds."""
    return sum(tensor.n_elements for tensor in model.tensors.values()) <= SMALL


def require_checkable(model: GGUFFile) -> None:
    """Raise what running the model would raise, and what its tokens would, before any of it is written."""
    build_model(hollow(model))
    compare_tokens(model, model)


def can_be_checked(model: GGUFFile) -> bool:
    """Whether this version runs it."""
    try:
        require_checkable(model)
    except HalfbyteError:
        return False
    return True


def check(source: GGUFFile, written: Path, *, progress: Progress | None = None) -> Check:
    """Compare. ConversionError where the file predicts something else altogether."""
    if progress:
        progress("check", 0, 2)
    tokens = sample(source)
    wanted = logits(source, tokens)
    if nothing := _nothing_said(wanted):
        raise ConversionError(
            f"{source.path}: the source's own predictions are {nothing}, so that there is nothing to compare a file "
            "with. Nothing was written; leave the check out (--no-verify)"
        )
    if progress:
        progress("check", 1, 2)
    with GGUFFile.open(written) as file:
        found, counts = logits(file, tokens), compare_tokens(source, file)
    if progress:
        progress("check", 2, 2)
    result = vectors_compared(wanted, found) if is_encoder(source) else compared(wanted, found)
    if problem := _problem(result):
        raise ConversionError(
            f"{source.path}: the written model predicts something else than its source: {problem}. Nothing was "
            "written; choose a type with more bits, or report the checkpoint"
        )
    return replace(result, n_texts=counts[0], same_tokens=counts[1])


def _nothing_said(wanted: NDArray[np.float32]) -> str | None:
    """What is wrong with what a source predicts, [n, vocabulary or n_embd]. Weights that are all zero say nothing."""
    if not np.isfinite(wanted).all():
        return "NaN or infinite"
    return "the same for every token" if not np.ptp(wanted, axis=1).any() else None


def _problem(found: Check) -> str | None:
    """What is wrong with a file. NaN is, too."""
    if found.cosine is not None:
        return None if found.cosine >= STRANGE else f"vectors with a mean cosine of {found.cosine:.2f}"
    assert found.kl_mean is not None and found.same_top is not None
    if found.kl_mean <= GARBAGE:
        return None
    same = f"the same likeliest token for {100 * found.same_top:.0f} % of {found.n_tokens}"
    return f"KL {found.kl_mean:.2f} nats a token, {same}"


def compare_tokens(source: GGUFFile, made: GGUFFile) -> tuple[int, float | None]:
    """(texts, the share of them with the same tokens). ConversionError where that is not all of them."""
    tokenizer = tokenizer_from_metadata(made.metadata)
    if not has_reference(source.paths):
        return 0, None
    n, other = disagreements(source.paths, tokenizer)
    if other:
        raise ConversionError(
            f"{source.path}: {len(other)} of {n} texts get other tokens by the keys of the new file than by the "
            f"checkpoint's tokenizer, {other[0]!a} first. Nothing was written; report the checkpoint, or leave the "
            "check out (--no-verify)"
        )
    return n, 1.0


def sample(source: GGUFFile) -> NDArray[np.int32]:
    """Up to TOKENS tokens of a text of several kinds, by the model's own tokenizer; no more than its context holds."""
    architecture = source.metadata.require("general.architecture", str)
    room = min(TOKENS, source.metadata.optional(f"{architecture}.context_length", int, TOKENS))
    tokenizer = tokenizer_from_metadata(source.metadata)
    ids = tokenizer.encode(TEXT)[:room] or range(min(room, tokenizer.vocab_size))  # its alphabet may be another
    return np.asarray(ids, np.int32)


def logits(model: GGUFFile, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Of every position, float32 [n, vocabulary]; an encoder's vectors, float32 [n, n_embd]."""
    graph = build_model(hollow(model)).graph
    n, n_pages = len(tokens), -(-len(tokens) // PAGE)
    step = Step(
        tokens=tokens, positions=np.arange(n, dtype=np.int32), sequence=np.zeros(n, np.int32),
        pages=np.arange(n_pages, dtype=np.int32)[None], outputs=np.arange(n, dtype=np.int32),
    )  # fmt: skip
    with np.errstate(all="ignore"):  # whoever asks looks for NaN
        return StreamedExecutor(graph, model.tensors, n_pages=n_pages, max_tokens=n).run(step)


def compared(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> Check:
    """Of logits float32 [n, vocabulary] each."""
    kl = np.array([_divergence(*rows) for rows in zip(wanted, found, strict=True)])
    same = wanted.argmax(axis=1) == found.argmax(axis=1)
    return Check(len(kl), float(kl.mean()), float(kl.max()), float(same.mean()))


def vectors_compared(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> Check:
    """Of an encoder's vectors float32 [n, n_embd] each."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return Check(len(a), cosine=float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).mean()))


def _divergence(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """D(wanted || found) of logits [vocabulary], in nats."""
    p, q = _log_softmax(wanted), _log_softmax(found)
    return float((np.exp(p) * (p - q)).sum())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted: NDArray[np.float64] = logits.astype(np.float64) - logits.max()
    shifted -= np.log(np.exp(shifted).sum())
    return shifted
