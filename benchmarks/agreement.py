"""Greedy texts of two programs: equal, or where and how closely they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import halfbyte
import numpy as np
from numpy.typing import NDArray

from .engines import Engine, Greedy, Ours, greedy
from .peers import LlamaCpp

NEAR_TIE = 0.1  # logits
EQUAL, NEAR, PEER_OFF, OURS_OFF = "equal", "near tie", "llama.cpp off", "Halfbyte off"


@dataclass(frozen=True)
class Parting:
    """Where two greedy texts part: each program's lead of its own token over the other's, in logits.

    `true_gap` is the lead of our token in the float32 reference; negative when it would choose theirs.
    """

    position: int
    our_token: str
    their_token: str
    our_gap: float
    their_gap: float
    true_gap: float

    @property
    def closest(self) -> float:
        """How nearly tied the two tokens are for one of the three."""
        return min(abs(gap) for gap in (self.our_gap, self.their_gap, self.true_gap))

    @property
    def verdict(self) -> str:
        """Who is to blame: nobody when the reference itself hardly tells the two tokens apart."""
        if abs(self.true_gap) < NEAR_TIE:
            return NEAR
        return PEER_OFF if self.true_gap > 0 else OURS_OFF


@dataclass(frozen=True)
class Agreement:
    """One prompt. `same_api` says that `Model.generate` gave the tokens that the executor gives by itself."""

    prompt: str
    text: str
    n_tokens: int
    parting: Parting | None
    same_prompt_ids: bool
    same_api: bool

    @property
    def verdict(self) -> str:
        if not (self.same_prompt_ids and self.same_api):
            return OURS_OFF
        return self.parting.verdict if self.parting else EQUAL

    @property
    def is_close(self) -> bool:
        """Whether the texts are equal, or part where a program or the reference has a near tie."""
        if not (self.same_prompt_ids and self.same_api):
            return False
        return self.parting is None or self.parting.closest < NEAR_TIE


def compare(model: halfbyte.Model, ours: Engine, theirs: LlamaCpp, prompt: str, count: int) -> Agreement:
    """Continue a prompt by `count` tokens with both programs. `model` and `ours` are the same file."""
    ids = model.tokenize(prompt, parse_special=False)
    ends = frozenset(model.tokenizer.eog_ids)
    found, expected = greedy(ours, ids, count, ends), greedy(theirs, ids, count, ends)
    generation = model.generate(ids, max_tokens=count, temperature=0)
    text = generation.read()
    return Agreement(
        prompt=prompt,
        text=text,
        n_tokens=len(found.ids),
        parting=_parting(model, ids, found, expected),
        same_prompt_ids=ids == theirs.tokenize(prompt),
        same_api=generation.ids == [token for token in found.ids if token not in ends],
    )


def _parting(model: halfbyte.Model, prompt: Sequence[int], found: Greedy, expected: Greedy) -> Parting | None:
    for position, (our, their) in enumerate(zip(found.ids, expected.ids, strict=False)):
        if our != their:
            return Parting(
                position=position,
                our_token=_shown(model, our),
                their_token=_shown(model, their),
                our_gap=_gap(found.rows[position], our, their),
                their_gap=_gap(expected.rows[position], their, our),
                true_gap=_gap(_reference_row(model, [*prompt, *found.ids[:position]]), our, their),
            )
    return None


def _reference_row(model: halfbyte.Model, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits after `ids` by the reference backend, float32 [vocabulary]."""
    engine = Ours(model.path, context=len(ids), threads=1, backend="reference")
    row: NDArray[np.float32] = np.array(engine.run(ids))
    engine.close()
    return row


def _gap(row: NDArray[np.float32], first: int, second: int) -> float:
    return float(row[first]) - float(row[second])


def _shown(model: halfbyte.Model, token: int) -> str:
    return repr(model.detokenize([token]))
