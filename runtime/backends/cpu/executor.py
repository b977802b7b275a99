"""Running steps: arguments are laid out once, a step only fills in one record and lets the team walk the table."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.errors import Cancelled
from ...cache.kv import KVPool
from ...graph.plan import Arena, Buffer, barriers, place
from ...step import Step
from ..base import CancelFlag, Values, rows_in
from . import objects
from .args import STEP, args_of
from .crowding import Crowding
from .lower import Call, Lowering
from .team import Team
from .team_layout import QUEUE_BYTES


@dataclass(frozen=True)
class Plan:
    """Calls ready to be walked: the table (kernel, arguments, barrier before), and what keeps their memory alive."""

    calls: tuple[Call, ...]
    arguments: tuple[NDArray[Any], ...]  # the argument struct of each
    table: NDArray[np.int64]
    queues: NDArray[np.uint8]  # where threads take work from each other, zero at the start of a step
    kept: tuple[Any, ...]


Recorder = Callable[[Plan, Step, float], None]  # the step's plan, the step, when it began by time.perf_counter


class CPUExecutor:
    """See base.Executor. Two plans over one arena: one for tokens just generated, one for prompts."""

    def __init__(
        self, decode: Lowering, prompt: Lowering, kv: KVPool, team: Team, leave: Callable[[], None]
    ) -> None:
        """leave: called once, when the team is not needed any more."""
        self.kv, self.max_tokens, self._graph = kv, prompt.max_tokens, prompt.graph
        self._team = team
        self._crowding = Crowding(team.n)
        self.recorder: Recorder | None = None  # is told of every step that was run
        # Untouched memory costs nothing, so logits have room for every token of a step.
        self._outside = {
            value.id: np.empty((self.max_tokens * value.repeat, value.cols), value.element)
            for value in prompt.graph.outside
        }
        arenas = [place([c.access for c in low.calls], outside=list(low.outside)) for low in (decode, prompt)]
        self._arena = _aligned(max(arena.n_bytes for arena in arenas))
        self._decode, self._prompt = (
            self._plan(low, arena) for low, arena in zip((decode, prompt), arenas, strict=True)
        )
        scratch = -(-max(decode.scratch_bytes, prompt.scratch_bytes) // 4096) * 4096
        self._scratch = _aligned(scratch * team.n)
        self._step = np.zeros((), STEP)
        self._step["scratch"], self._step["scratch_bytes"] = self._scratch.ctypes.data, scratch
        self._never = CancelFlag()
        self._close = weakref.finalize(self, leave)
        self._close.atexit = False  # an engine that still runs closes it later; without one, nobody need wait

    @property
    def team(self) -> Team:
        """The threads, for tools that run something else on them between two steps."""
        return self._team

    @property
    def plans(self) -> tuple[Plan, Plan]:
        """For steps of generated tokens, and for steps of prompts."""
        return self._decode, self._prompt

    @property
    def arena_bytes(self) -> int:
        """Memory of activations, without the logits."""
        return self._arena.nbytes + self._scratch.nbytes

    def run(self, step: Step, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """See base.Executor.run."""
        self._run(step, cancel)
        return self._outside[self._graph.logits.id][: len(step.outputs)]

    def run_part(self, step: Step, given: Values, cancel: CancelFlag | None = None) -> Values:
        """See base.Executor.run_part. Valid until the next call."""
        for value in self._graph.given:
            array = given[value.id]
            self._outside[value.id][: len(array)] = array
        self._run(step, cancel)
        return {v.id: self._outside[v.id][: rows_in(v, step.n_tokens, len(step.outputs))] for v in self._graph.results}

    def _run(self, step: Step, cancel: CancelFlag | None) -> None:
        if not 0 < step.n_tokens <= self.max_tokens:
            raise ValueError(f"a step of {step.n_tokens} tokens; this executor takes 1 to {self.max_tokens}")
        flag = self._never if cancel is None else cancel  # a flag that is not set yet is false
        started = time.perf_counter()
        kept = self._fill(step, flag)
        plan = self._prompt if step.is_prompt else self._decode
        plan.queues.fill(0)
        failed = self._walk(plan, step, flag)
        del kept
        if failed:
            call = plan.calls[failed - 1]
            raise objects.KernelError(f"kernel {call.kernel} of {call.node.name} indexed outside an array")
        if flag:
            raise Cancelled("cancelled while a step was running")
        if self.recorder is not None:
            self.recorder(plan, step, started)

    def watch(self, step: Step, before: Callable[[Call, NDArray[Any]], None], cancel: CancelFlag | None = None) -> None:
        """Run a prompt's step call by call, and tell of each call, with its argument struct, before it is made.

        What a call reads lies in memory then. Slower than `run` by a fraction of a millisecond a call.
        """
        flag = self._never if cancel is None else cancel
        kept, plan = self._fill(step, flag), self._prompt
        plan.queues.fill(0)
        for i, (call, arguments) in enumerate(zip(plan.calls, plan.arguments, strict=True)):
            before(call, arguments)
            if self._team.run(plan.table[i : i + 1], self._step, flag.word) and not flag:
                raise objects.KernelError(f"kernel {call.kernel} of {call.node.name} indexed outside an array")
            if flag:
                raise Cancelled("cancelled while a step was running")
        del kept

    def close(self) -> None:
        """End the threads. The executor cannot be used afterwards."""
        self._close()

    def _walk(self, plan: Plan, step: Step, flag: CancelFlag) -> int:
        """1 + the number of a call that failed, or 0. Prompts learn from decode, whose steps are many and alike."""
        if self._team.n == 1 or self.recorder is not None:
            return self._team.run(plan.table, self._step, flag.word)
        if step.is_prompt:
            return self._team.run(plan.table, self._step, flag.word, self._crowding.settled)
        late, begin = self._team.late, time.perf_counter()
        failed = self._team.run(plan.table, self._step, flag.word, self._crowding.threads)
        if not flag:
            self._crowding.note((time.perf_counter() - begin) / step.n_tokens, self._team.late - late)
        return failed

    def _fill(self, step: Step, flag: CancelFlag) -> list[NDArray[Any]]:
        record = self._step
        arrays = {
            name: np.ascontiguousarray(getattr(step, name), np.int32)
            for name in ("tokens", "positions", "sequence", "pages", "outputs")
        }
        for name, array in arrays.items():
            record[name] = array.ctypes.data
        record["n_tokens"], record["n_outputs"] = step.n_tokens, len(step.outputs)
        record["n_sequences"], record["pages_per_sequence"] = step.pages.shape
        record["cancel"] = flag.word.ctypes.data
        return list(arrays.values())

    def _plan(self, low: Lowering, arena: Arena) -> Plan:
        accesses = [call.access for call in low.calls]
        table = np.zeros((len(low.calls), 3), np.int64)
        kept: list[Any] = []
        arguments: list[NDArray[Any]] = []
        shared: list[NDArray[Any]] = []  # arguments of the calls whose work is taken chunk by chunk
        outside = low.outside
        for row, call, barrier in zip(table, low.calls, barriers(accesses, arena), strict=True):
            args = np.zeros((), args_of(call.kernel.partition(".")[0]))
            for name, value in call.args.items():
                if isinstance(value, Buffer) and value in outside:
                    args[name] = self._outside[outside[value].id].ctypes.data
                elif isinstance(value, Buffer):
                    args[name] = self._arena.ctypes.data + arena.offsets[value]
                elif isinstance(value, np.ndarray):
                    args[name] = value.ctypes.data
                    kept.append(value)
                else:
                    args[name] = value
            arguments.append(args)
            if "queue" in (args.dtype.names or ()):
                shared.append(args)
            row[:] = objects.load(call.kernel), args.ctypes.data, barrier
        return Plan(tuple(low.calls), tuple(arguments), table, self._queues(shared), tuple(kept))

    def _queues(self, shared: list[NDArray[Any]]) -> NDArray[np.uint8]:
        """A line of memory for each thread in each of these calls, see kernels/share.py; one thread needs none."""
        size = QUEUE_BYTES * self._team.n if self._team.n > 1 else 0
        queues = _aligned(size * len(shared))
        for i, args in enumerate(shared):
            args["queue"] = queues.ctypes.data + i * size if size else 0
        return queues


def _aligned(n_bytes: int) -> NDArray[np.uint8]:
    """Memory that starts on a cache line."""
    raw = np.empty(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes]
