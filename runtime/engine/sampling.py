"""From logits to the next token.

    params = SamplingParams(temperature=0.7, seed=1)
    sampler = Sampler(params, vocab_size)
    token = sampler.sample(logits, history).id

A Sampler belongs to one sequence: it owns a random generator and one scratch buffer. samplers/ holds the steps and says
in which order they run.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .errors import LogitsError
from .samplers import SUM_BLOCK, Candidates, block_sums, edits_for, largest, narrowing_for
from .samplers.edits import LogitsProcessor
from .sampling_errors import SamplingError

__all__ = ["LogitsProcessor", "SampledToken", "Sampler", "SamplingError", "SamplingParams"]

_SEED_BITS = 64
_COLDEST = 1e30  # 1 / temperature; more would be infinite in float32


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Every field is checked; wrong ones raise SamplingError.

    temperature        0: always the likeliest token (of equal ones the lowest id); 1: as the model says; more: wilder
    top_k              keep the k likeliest tokens; 0: all
    top_p              keep the likeliest tokens that hold this share of the probability; 1: all
    min_p              drop tokens less likely than this share of the likeliest; 0: none
    repeat_penalty     divides positive and multiplies negative logits of recent tokens; 1: off
    presence_penalty   subtracted from the logits of recent tokens
    frequency_penalty  subtracted for each time a recent token occurred
    penalty_last_n     how many tokens are recent; 0: none, -1: all, the prompt included
    logit_bias         {token id: added to its logit}; -inf forbids the token
    seed               the same seed gives the same random numbers on every platform; None: a new one each time
    logprobs           None: none; n: the chosen token's log probability and the n likeliest, before any of the above
    processors         functions (history, logits) -> logits, called in order after the penalties

    temperature=0 ignores top_k, top_p and min_p: they never drop the likeliest token.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    logprobs: int | None = None
    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        self._check_number("temperature", 0, math.inf)
        self._check_int("top_k", 0)
        self._check_number("top_p", 0, 1)
        self._check_number("min_p", 0, 1)
        self._check_number("repeat_penalty", 1e-3, 1e3)  # it divides: nearer to 0, logits would overflow
        self._check_number("presence_penalty", -1e6, 1e6)
        self._check_number("frequency_penalty", -1e6, 1e6)
        self._check_int("penalty_last_n", -1)
        if self.seed is not None:
            self._check_int("seed", -(1 << (_SEED_BITS - 1)), (1 << _SEED_BITS) - 1)
        if self.logprobs is not None:
            self._check_int("logprobs", 0)
        object.__setattr__(self, "logit_bias", self._checked_bias())
        if isinstance(self.processors, (str, bytes)) or not isinstance(self.processors, Sequence):
            raise SamplingError(f"processors must be a tuple of functions, not a {type(self.processors).__name__}")
        for processor in self.processors:
            if not callable(processor):
                raise SamplingError(f"processors holds a {type(processor).__name__}, which cannot be called")
        object.__setattr__(self, "processors", tuple(self.processors))

    def __reduce__(self) -> tuple[partial[SamplingParams], tuple[()]]:
        """Pickles and deep copies: a view of a mapping has neither."""
        bias = None if self.logit_bias is None else dict(self.logit_bias)
        return partial(SamplingParams, **{**vars(self), "logit_bias": bias}), ()

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise SamplingError(f"{name}={value!r:.60}: a number is needed")
        try:
            number = float(value)
        except OverflowError:  # an int may be larger than any
            number = math.inf
        if not math.isfinite(number) or not low <= number <= high:
            raise SamplingError(f"{name}={value!r:.60}: {_range_text(low, high)} is needed")

    def _check_int(self, name: str, low: int, high: int | None = None) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise SamplingError(f"{name}={value!r:.60}: a whole number is needed")
        if value < low or (high is not None and value > high):
            raise SamplingError(f"{name}={value}: {_range_text(low, math.inf if high is None else high)} is needed")

    def _checked_bias(self) -> Mapping[int, float] | None:
        if self.logit_bias is None:
            return None
        if not isinstance(self.logit_bias, Mapping):
            raise SamplingError(f"logit_bias must map token ids to numbers, not be a {type(self.logit_bias).__name__}")
        checked: dict[int, float] = {}
        for token, bias in self.logit_bias.items():
            if isinstance(token, bool) or not isinstance(token, (int, np.integer)) or token < 0:
                raise SamplingError(f"logit_bias has the key {token!r:.60}: token ids are whole numbers from 0")
            if isinstance(bias, bool) or not isinstance(bias, (int, float, np.integer, np.floating)):
                raise SamplingError(f"logit_bias[{token}]={bias!r:.60}: a number is needed")
            if not (abs(bias) <= 1e30 or bias == -math.inf):
                raise SamplingError(f"logit_bias[{token}]={bias}: a number up to 1e30, or -inf, is needed")
            checked[int(token)] = float(bias)
        return MappingProxyType(checked)


@dataclass(frozen=True)
class SampledToken:
    """A chosen token.

    logprob       natural logarithm of its probability before sampling changed anything; None unless asked for
    top_logprobs  (id, logarithm) of the likeliest tokens, best first; None unless asked for
    """

    id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] | None = None


class Sampler:
    """Chooses tokens for one sequence. Not for use by two threads at once."""

    def __init__(self, params: SamplingParams, vocab_size: int) -> None:
        """Raises SamplingError if `params` names tokens that a vocabulary of `vocab_size` does not have."""
        if vocab_size < 1:
            raise SamplingError(f"a vocabulary of {vocab_size} tokens cannot be sampled from")
        worst = max(params.logit_bias or (), default=-1)
        if worst >= vocab_size:
            raise SamplingError(f"logit_bias names token {worst}, but the model has only {vocab_size:,} tokens")
        self.params = params
        self.vocab_size = vocab_size
        self._edits = edits_for(params)
        self._narrowing = narrowing_for(params) if params.temperature > 0 else ()
        self._scratch = np.empty((2, vocab_size), np.float32)
        self.reset()

    def reset(self) -> None:
        """Start the random numbers over: with a seed the same ones come again."""
        seed = self.params.seed
        self.seed = secrets.randbits(_SEED_BITS) if seed is None else int(seed) % (1 << _SEED_BITS)
        self._random = np.random.Generator(np.random.PCG64(self.seed))

    def sample(self, logits: NDArray[np.float32], history: Sequence[int]) -> SampledToken:
        """The next token after `history` (all token ids so far), from `logits`: float32[vocab_size], left unchanged.

        -inf makes a token impossible. Raises LogitsError for NaN, +inf, no possible token at all, or a wrong shape.
        """
        logits = self._checked(logits)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by _check_values, or becomes -inf
            token = self._choose(Candidates(logits, self._scratch), history)
        if self.params.logprobs is None:
            return SampledToken(token)
        return _with_logprobs(token, logits, self.params.logprobs)

    def _choose(self, candidates: Candidates, history: Sequence[int]) -> int:
        for step in self._edits:
            step.apply(candidates, history)
        self._check_values(candidates)
        for step in self._narrowing:
            step.apply(candidates, history)
        return self._draw(candidates) if self.params.temperature > 0 else int(candidates.logits.argmax())

    def _checked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        array = np.asarray(logits)
        if array.shape != (self.vocab_size,) or array.dtype.kind != "f":
            raise LogitsError(f"logits are {array.dtype.name}{list(array.shape)}, not float32[{self.vocab_size}]")
        return array.astype(np.float32, copy=False)

    def _check_values(self, candidates: Candidates) -> None:
        top = candidates.maximum()
        if math.isfinite(top):
            return
        if math.isnan(top):
            raise LogitsError(
                "the logits hold NaN: the model file is damaged, a kernel is broken, or a logits processor is"
            )
        if top > 0:
            raise LogitsError("the logits hold +inf, so no probabilities can be computed; use -inf on the others")
        raise LogitsError("every token is forbidden: logit_bias or a logits processor left nothing to choose from")

    def _draw(self, candidates: Candidates) -> int:
        """One token with probability softmax(logits / temperature), from one uniform random number.

        The number picks a block of tokens by its mass, then the token: a running sum over all would take 0.6 ms.
        """
        mass, kept = candidates.powers(min(1 / self.params.temperature, _COLDEST)), candidates.kept
        block, rest = _position(block_sums(mass, kept).cumsum(), self._random.random())
        first = block * SUM_BLOCK
        inside = mass[first : first + SUM_BLOCK]
        if kept is not None:
            inside *= kept[first : first + SUM_BLOCK]
        position = first + _position(inside.cumsum(dtype=np.float64), rest)[0]
        return position if candidates.ids is None else int(candidates.ids[position])


def _position(reach: NDArray[np.float64], share: float) -> tuple[int, float]:
    """Where `share` (in [0, 1)) of the mass lies in its running sum, and the share it has within that position."""
    total = float(reach[-1])
    target = min(share * total, math.nextafter(total, 0.0))  # the product may be rounded to the total itself
    position = int(reach.searchsorted(target, side="right"))
    before = float(reach[position - 1]) if position else 0.0
    return position, min(max((target - before) / (float(reach[position]) - before), 0.0), 1.0)


def _with_logprobs(token: int, logits: NDArray[np.float32], count: int) -> SampledToken:
    top = logits.max()  # finite, unless a step made an impossible distribution possible
    if not np.isfinite(top):
        raise LogitsError("the model's logits hold no finite value, so there are no log probabilities")
    log_total = float(top) + math.log(float(np.exp(logits - top).sum(dtype=np.float64)))
    best = largest(logits, count) if count else ()
    return SampledToken(
        token,
        float(logits[token]) - log_total,
        tuple((int(i), float(logits[i]) - log_total) for i in best),
    )


def _range_text(low: float, high: float) -> str:
    return f"a finite number from {low}" if high == math.inf else f"a number from {low} to {high}"
