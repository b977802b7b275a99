"""Running steps on a GPU: programs of launches are made once, a step writes its inputs and launches one of them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.errors import Cancelled
from ...graph.ir import Graph, Value
from ...graph.plan import Arena, Buffer, place
from ...step import Step
from ..base import CancelFlag, Progress, Values, rows_in
from .allocate import LEGACY, Array, DeviceMemory, return_memory
from .kernels.fragments import CAPABILITY
from .lower import Lowering, Run
from .memory import Inputs, Pages, Weights
from .now import Now
from .package import SIMULATED, cuda
from .recorded import Recorder
from .shared import Shared
from .warm_up import warm_up_steps


class Plan:
    """Weights, pages and programs of a graph in the memory of the current device; or what they would take (dry)."""

    def __init__(
        self,
        graph: Graph,
        n_pages: int,
        max_tokens: int,
        memory: DeviceMemory,
        *,
        has_tensor_cores: bool = False,
        shared: Shared | None = None,
        device: AbstractContextManager[Any] | None = None,
    ) -> None:
        stream = shared.stream if shared is not None and shared.stream is not None else 0
        self.pages = Pages(memory, graph.state, n_pages, stream, device)
        self.inputs = Inputs(memory, max_tokens, n_pages)
        self.weights = Weights(memory)
        lowered = [
            Lowering(
                graph, self.pages, self.weights, self.inputs, max_tokens, prompt, has_tensor_cores,
                shared.blas if prompt and shared is not None else None,
            ).run()
            for prompt in (False, True)
        ]  # fmt: skip
        outside = graph.outside
        arenas = [
            place([call.access for call in low.calls], outside=[low.buffer(value) for value in outside])
            for low in lowered
        ]
        self.arena = memory.empty(max(arena.n_bytes for arena in arenas), np.uint8)
        between = {} if shared is None else shared.values
        self.outside = {
            value.id: between[value.id]
            if value.id in between
            else memory.empty(max_tokens * value.repeat * value.cols, value.element)
            for value in outside
        }
        self.crossing = {
            value.id: memory.crossing(max_tokens * value.repeat * value.cols, value.element)
            for value in (*graph.given, *graph.results)
        }
        memory.finish()
        if not memory.dry:
            self.decode, self.prompt = (
                self._bind(low, arena, outside) for low, arena in zip(lowered, arenas, strict=True)
            )
        for low in lowered:
            low.calls.clear()  # they and what they were made of hold each other, and device memory as long

    def _bind(self, low: Lowering, arena: Arena, outside: tuple[Value, ...]) -> list[Run]:
        own = {low.buffer(value): self.outside[value.id] for value in outside}

        def array(buffer: Buffer, dtype: Any) -> Array:
            if buffer in own:
                return own[buffer]
            start = arena.offsets[buffer]
            return self.arena[start : start + buffer.n_bytes].view(dtype)

        return [call.bind(array) for call in low.calls]

    def close(self) -> None:
        """Give up what others may still hold."""
        self.pages.close()
        self.decode, self.prompt = [], []


class CUDAExecutor:
    """See base.Executor. Two programs over one arena: one for tokens just generated, one for prompts."""

    def __init__(
        self, graph: Graph, n_pages: int, max_tokens: int, device: int = 0, shared: Shared | None = None
    ) -> None:
        """shared: with other executors of this device, of other parts of the model."""
        self.max_tokens = max_tokens
        self._graph, self._device, self._memory = graph, cuda.gpus[device], DeviceMemory()
        with self._device, self._memory.asking():
            self.shared = shared or Shared(DeviceMemory(), max_tokens)
            self._leave = weakref.finalize(self, _leave, self._device, self.shared.join())
            self._leave.atexit = False  # the driver may have ended before
            try:
                self._stream = self.shared.stream
                self.shared.prepare(graph)
                self._plan = Plan(
                    graph, n_pages, max_tokens, self._memory, has_tensor_cores=has_tensor_cores(self._device),
                    shared=self.shared, device=self._device,
                )  # fmt: skip
            except BaseException:
                self._leave()
                raise
        self.recorder = Recorder(self._stream, nullcontext if SIMULATED else alone)
        self.kv = self._plan.pages

    def run(self, step: Step, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """See base.Executor.run."""
        logits: NDArray[np.float32] = self.run_part(step, {}, cancel)[self._graph.logits.id]
        return logits

    def run_part(self, step: Step, given: Values, cancel: CancelFlag | None = None) -> Values:
        """See base.Executor.run_part. The flag is looked at before and after: launches cannot be taken back."""
        if not 0 < step.n_tokens <= self.max_tokens:
            raise ValueError(f"a step of {step.n_tokens} tokens; this executor takes 1 to {self.max_tokens}")
        if cancel:
            raise Cancelled("cancelled before a step began")
        with self._device:
            try:
                self._launch(step, given)
                found = {value.id: self._download(value, step) for value in self._graph.results}
            finally:  # what is on its way must be there before the next step writes to where it comes from
                self._stream.synchronize()
        if cancel:
            raise Cancelled("cancelled while a step was running")
        return found

    @property
    def n_bytes(self) -> int:
        """Device memory that was taken, but for what is shared."""
        return self._memory.n_bytes

    def close(self) -> None:
        """Give the device memory back, to the driver as well."""
        if self._plan is None:
            return
        with self._device:
            try:
                self._stream.synchronize()
                self.recorder.close()
            finally:
                self._plan.close()
                self._plan = self.kv = self.recorder = None  # type: ignore[assignment]
                self._leave()
            return_memory()

    def warm_up(self, progress: Progress | None = None) -> None:
        """Launch what steps launch, so that no token waits for a kernel to be compiled: all but those of several
        generated tokens at once. Reports the stage "compile" with a count of launches.
        """
        steps = warm_up_steps(self.max_tokens)
        total, done = sum(len(self._program(step)) for step in steps), 0
        with self._device, self._memory.asking():
            for step in steps:
                now = self._send(step, {value.id: _zeros(value, step) for value in self._graph.given})
                for launch in self._program(step):
                    launch(now)
                    done += 1
                    if progress is not None:
                        progress("compile", done, total)
                self._stream.synchronize()

    def _program(self, step: Step) -> list[Run]:
        return self._plan.prompt if step.is_prompt else self._plan.decode

    def _launch(self, step: Step, given: Values) -> None:
        now, program = self._send(step, given), self._program(step)
        if step.is_prompt:
            _launch_all(program, now)
        else:
            self.recorder.run(now, lambda: _launch_all(program, now))

    def _send(self, step: Step, given: Values) -> Now:
        """What a step is given goes over to the device."""
        stream, plan = self._stream, self._plan
        tiles = plan.inputs.write(step, stream)
        for value in self._graph.given:
            flat = np.ascontiguousarray(given[value.id]).reshape(-1)
            if flat.size:
                over = plan.crossing[value.id][: flat.size]
                if over.size == flat.size:  # it is pinned: the copy runs beside the host
                    over[:] = flat
                    flat = over
                plan.outside[value.id][: flat.size].copy_to_device(flat, stream=stream)
        return Now(step.n_tokens, len(step.outputs), len(step.pages), tiles, stream)

    def _download(self, value: Value, step: Step) -> NDArray[Any]:
        """The rows that a value has in a step; they are there when the stream has come so far, until the next step."""
        rows = rows_in(value, step.n_tokens, len(step.outputs))
        flat = self._plan.crossing[value.id][: rows * value.cols]
        if flat.size < rows * value.cols:
            flat = np.empty(rows * value.cols, value.element)
        if rows:
            self._plan.outside[value.id][: flat.size].copy_to_host(flat, stream=self._stream)
        return flat.reshape(rows, value.cols)


def has_tensor_cores(device: Any) -> bool:
    """Whether a GPU has those that kernels use; the simulator's are slower than what they stand for."""
    return not SIMULATED and tuple(device.compute_capability) >= CAPABILITY


@contextmanager
def alone() -> Iterator[None]:
    """While launches are recorded no memory is given back, and nobody uses the legacy stream."""
    with LEGACY, cuda.defer_cleanup():
        yield


def _zeros(value: Value, step: Step) -> NDArray[Any]:
    return np.zeros((rows_in(value, step.n_tokens, len(step.outputs)), value.cols), value.element)


def _leave(device: Any, shared: Shared) -> None:
    with device:
        shared.leave()


def _launch_all(program: list[Run], now: Now) -> None:
    for launch in program:
        launch(now)
