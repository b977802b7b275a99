"""What other weights cost a model: their errors, tensor by tensor, and what becomes of its predictions for a text.

Definitions are those of llama-perplexity: of every window the second half is scored, and a divergence is that of the
changed model from the first one, D(first || changed), in nats a token. It differs in one thing: it keeps what the first
model says in a file, in 16 bits and not below e**-16 of the likeliest token; here both models run side by side, and
every token of the vocabulary counts with the probability that it has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..formats.errors import InvalidRequest, UnsupportedError
from ..formats.gguf import GGUFFile, GGUFTensor
from ..formats.quants import CODECS, decode
from ..formats.quants.accuracy import Errors
from .perplexity import ROWS, Estimate

PIECE = 1 << 18  # weights compared at once: 2 MB as float64


@dataclass(frozen=True)
class TensorCost:
    """One tensor: its types before and after, its bytes afterwards."""

    name: str
    before: str
    after: str
    n_bytes: int
    errors: Errors

    @property
    def kind(self) -> str:
        """Its name without the layer."""
        return re.sub(r"^blk\.\d+\.", "", self.name).removesuffix(".weight")


def tensor_costs(first: GGUFFile, changed: GGUFFile) -> Iterator[TensorCost]:
    """Of every tensor that both have. InvalidRequest where they are not the same model."""
    missing = first.tensors.keys() ^ changed.tensors.keys()
    if missing:
        raise InvalidRequest(f"{changed.path} is not {first.path} with other weights: only one has {min(missing)!r}")
    for name, x in first.tensors.items():
        y = changed.tensors[name]
        if x.ne != y.ne:
            raise InvalidRequest(f"tensor {name!r} is {x.shape} in {first.path} and {y.shape} in {changed.path}")
        if x.type in CODECS and y.type in CODECS:
            yield TensorCost(name, x.type.name, y.type.name, y.n_bytes, _errors(x, y))
        elif x.type is not y.type or not np.array_equal(x.data, y.data):
            raise UnsupportedError(f"tensor {name!r} became {y.type.name} from {x.type.name}: these cannot be compared")


def _errors(x: GGUFTensor, y: GGUFTensor) -> Errors:
    found, cols = Errors(), x.ne[0]
    if not x.n_elements:
        return found
    before, after = (tensor.data.reshape(-1, tensor.row_bytes) for tensor in (x, y))
    step = max(1, PIECE // cols)
    for lo in range(0, len(before), step):
        rows = slice(lo, lo + step)
        found.add(decode(before[rows], x.type), decode(after[rows], y.type), y.type.block_size)
    x.forget()
    y.forget()
    return found


def by_kind(costs: Iterable[TensorCost]) -> dict[str, tuple[Errors, set[str], int]]:
    """Errors, types and bytes of all tensors of a kind together, and of all tensors under ""."""
    found: dict[str, tuple[Errors, set[str], int]] = {}
    for cost in costs:
        for key in (cost.kind, ""):
            errors, types, n_bytes = found.get(key, (Errors(), set(), 0))
            errors.include(cost.errors)
            found[key] = (errors, types | {cost.after}, n_bytes + cost.n_bytes)
    return found


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Mean:
        n = len(values)
        return cls(float(values.mean()), float(values.std() / math.sqrt(n - 1)) if n > 1 else math.nan)


@dataclass
class TextCost:
    """Predictions of two models for the same tokens, window by window."""

    _nll: list[NDArray[np.float64]] = field(default_factory=list)  # of the first model
    _changed_nll: list[NDArray[np.float64]] = field(default_factory=list)
    _kl: list[NDArray[np.float64]] = field(default_factory=list)
    _same: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, first: NDArray[np.float32], changed: NDArray[np.float32], window: Sequence[int]) -> None:
        """Count the second half of a window; logits float32 [len(window), vocabulary]."""
        if first.shape != changed.shape:
            raise InvalidRequest(f"the models have vocabularies of {first.shape[1]:,} and {changed.shape[1]:,} tokens")
        start = len(window) // 2
        targets = np.asarray(window[start + 1 :])
        for lo in range(0, len(targets), ROWS):
            rows = slice(start + lo, min(start + lo + ROWS, len(window) - 1))
            p, q = log_softmax(first[rows]), log_softmax(changed[rows])
            own = targets[lo : lo + ROWS]
            chosen = np.arange(len(own)), own
            self._nll.append(-p[chosen])
            self._changed_nll.append(-q[chosen])
            self._kl.append(kl_divergence(p, q))
            self._same.append(p.argmax(axis=1) == q.argmax(axis=1))

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self._nll))

    def summary(self) -> dict[str, float | int]:
        """All of it as numbers, means and perplexities with their standard errors."""
        with np.errstate(invalid="ignore"):  # infinite divergences have no spread
            return self._summary()

    def _summary(self) -> dict[str, float | int]:
        nll, changed, kl = (np.concatenate(v) for v in (self._nll, self._changed_nll, self._kl))
        same = Mean.of(np.concatenate(self._same).astype(np.float64))
        log_ratio, divergence = Mean.of(changed - nll), Mean.of(kl)
        dp = np.exp(-changed) - np.exp(-nll)  # of the probability of the token that comes
        shift, squares = Mean.of(dp), Mean.of(dp**2)
        rms = math.sqrt(squares.value)
        return {
            "tokens": self.n_tokens,
            **_perplexity("first", nll),
            **_perplexity("changed", changed),
            "log_ppl_ratio": log_ratio.value,
            "log_ppl_ratio_error": log_ratio.error,
            "kl_mean": divergence.value,
            "kl_error": divergence.error,
            "kl_median": float(np.median(kl)),
            "kl_95": float(np.quantile(kl, 0.95)),
            "kl_99": float(np.quantile(kl, 0.99)),
            "kl_999": float(np.quantile(kl, 0.999)),
            "kl_max": float(kl.max()),
            "same_top": same.value,
            "same_top_error": same.error,
            "mean_dp": shift.value,
            "mean_dp_error": shift.error,
            "rms_dp": rms,
            "rms_dp_error": squares.error / (2 * rms) if rms > 0 else 0.0,
        }


def _perplexity(name: str, nll: NDArray[np.float64]) -> dict[str, float]:
    found = Estimate()
    found.add(nll)
    return {f"ppl_{name}": found.ppl, f"ppl_{name}_error": found.error}


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural logarithms of the probabilities, float64 [n, vocabulary]."""
    rows = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an infinite logit makes its row NaN, which is what the tables then say
        rows -= rows.max(axis=1, keepdims=True)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


def kl_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """D(p || q) of each row in nats, float64 [n], of logarithms of probabilities as `log_softmax` makes them."""
    with np.errstate(invalid="ignore"):
        terms = np.exp(p) * (p - q)
    divergence: NDArray[np.float64] = np.where(np.isneginf(p), 0.0, terms).sum(axis=1)  # what cannot come costs nothing
    return divergence
