"""What the CUDA backend has to reach, and what came of it: a goal that could not be measured is one that is not met."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field

from halfbyte.runtime.backends.cuda.package import SIMULATED

from tests.tolerances import INT8_LOGITS

from .report import Goal, Report

TYPES = ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "NF4")


@dataclass(frozen=True)
class Target:
    """A number with a limit, or a question that wants a yes. `of_time`: what the simulator says of it means nothing."""

    part: str
    what: str
    at_least: float | None = None
    at_most: float | None = None
    of_time: bool = True

    @property
    def wanted(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:.2f}"
        return "yes" if self.at_most is None else f"at most {self.at_most:.2f}"

    def is_met(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


def of_copies(name: str) -> str:
    """What the goal of a type of weight is called."""
    return f"one row with {name}: of the bandwidth of copies"


DECODE, PROMPT = "decode of the model: of the bandwidth floor", "prompt of the model: of torch's bf16 products"
LOGITS, TEXT = "logits beside the CPU backend", "the same greedy text with 0, 1, half and all layers"
FALLS, MEMCHECK = "time per token falls with layers on the GPU", "the checks under compute-sanitizer"
TARGETS = (
    *(Target("kernels", of_copies(name), at_least=0.70) for name in TYPES),
    Target("model", DECODE, at_least=0.60),
    Target("model", PROMPT, at_least=0.40),
    Target("offload", LOGITS, at_most=INT8_LOGITS, of_time=False),
    Target("offload", TEXT, of_time=False),
    Target("offload", FALLS),
    Target("checks", MEMCHECK),
)


def chosen(parts: Iterable[str], types: Iterable[str]) -> tuple[Target, ...]:
    """The goals of these parts; of kernels those of these types of weights."""
    left_out = {of_copies(name) for name in set(TYPES) - set(types)}
    return tuple(target for target in TARGETS if target.part in set(parts) and target.what not in left_out)


@dataclass
class Board(Report):
    """A report whose goals are there from the beginning, as not met, until they are measured."""

    targets: tuple[Target, ...] = ()
    failed: list[str] = field(default_factory=list)  # parts
    _open: dict[str, Target] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._open = {target.what: target for target in self.targets}
        for target in self.targets:
            self.goals.append(Goal(target.what, _missing("its part has not run"), target.wanted, False))

    def number(self, what: str, value: float) -> None:
        """What was measured for a goal with a limit, if it is one of this report's."""
        if target := self._open.get(what):
            self._settle(target, f"{value:.2g}" if value < 0.1 else f"{value:.2f}", target.is_met(value))

    def answer(self, what: str, measured: str, met: bool) -> None:
        """The same for a question."""
        if target := self._open.get(what):
            self._settle(target, measured, met)

    def missing(self, what: str, why: str) -> None:
        """A goal that cannot be measured."""
        if what in self._open:
            self._put(what, _missing(why), False)

    def fail(self, part: str, error: BaseException) -> None:
        """A part ended early: what it did not measure says why."""
        self.failed.append(part)
        self.data.setdefault("errors", {})[part] = "".join(traceback.format_exception(error))
        self.note(f"**The part `{part}` failed**: {told(error)}")
        self.leave_out(part, told(error))

    def leave_out(self, part: str, why: str) -> None:
        """What a part has not measured so far, it does not."""
        for target in list(self._open.values()):
            if target.part == part:
                self.missing(target.what, why)

    def _settle(self, target: Target, measured: str, met: bool) -> None:
        if SIMULATED and target.of_time:
            self.missing(target.what, "the simulator's times mean nothing")
        else:
            self._put(target.what, measured, met)

    def _put(self, what: str, measured: str, met: bool) -> None:
        target = self._open.pop(what)
        at = next(i for i, goal in enumerate(self.goals) if goal.what == what)
        self.goals[at] = Goal(what, measured, target.wanted, met)


def told(error: BaseException) -> str:
    """An error in a line. A program that gave up was told why before it did."""
    cause = error.__context__ if isinstance(error, SystemExit) and error.__context__ else error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


def _missing(why: str) -> str:
    return f"not measured: {why}"
