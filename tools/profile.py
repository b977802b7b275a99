"""Where the time of a prompt and of a generated token goes: from stamped calls to rows by op and by tensor.

One run is shown, the median one, so that everything adds up: the rows, the start of steps and Python around them make
the wall time that `halfbyte bench` reports. Printing is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..formats.errors import UnsupportedError
from .bench import Speeds, runs

if TYPE_CHECKING:
    from ..runtime.backends.cpu.floors import Floors
    from ..runtime.backends.cpu.lower import Call
    from ..runtime.backends.cpu.profile import StepTimes
    from ..runtime.backends.cpu.work import Work
    from ..runtime.cache.kv import KVPool
    from ..runtime.engine.generation import Usage
    from ..runtime.model import Model

NO_TENSOR = "(no tensor)"


@dataclass(frozen=True)
class Timing:
    """One call of one step, in seconds (means over the threads), and what the machine would need at least."""

    call: Call
    op: str
    tensor: str
    types: frozenset[str]
    busy: float
    wait: float
    work: Work
    floor: float
    bound: str


@dataclass
class Row:
    """Calls that belong together, summed. `seconds` are those in the calls and those at the barriers behind them."""

    name: str
    calls: float = 0
    seconds: float = 0.0
    wait: float = 0.0
    macs: float = 0
    n_bytes: float = 0
    floor: float = 0.0
    types: set[str] = field(default_factory=set)
    bounds: dict[str, float] = field(default_factory=dict)

    def add(self, timing: Timing, weight: float) -> None:
        """Count a call `weight` times: a mean over n steps counts each 1 / n."""
        self.calls += weight
        self.seconds += weight * (timing.busy + timing.wait)
        self.wait += weight * timing.wait
        self.macs += weight * timing.work.macs
        self.n_bytes += weight * timing.work.n_bytes
        self.floor += weight * timing.floor
        self.types |= timing.types
        if timing.bound:
            self.bounds[timing.bound] = self.bounds.get(timing.bound, 0.0) + timing.floor

    @classmethod
    def total(cls, name: str, rows: Iterable[Row]) -> Row:
        """The sum of rows. It has no types and no bound: they are not the same for all."""
        rows = list(rows)
        sums = (sum(getattr(row, f) for row in rows) for f in ("calls", "seconds", "wait", "macs", "n_bytes", "floor"))
        return cls(name, *sums)

    @property
    def bound(self) -> str:
        """What most of the floor is made of."""
        return max(self.bounds, key=self.bounds.__getitem__, default="")

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "types": sorted(self.types),
            "calls": self.calls,
            "seconds": self.seconds,
            "wait_seconds": self.wait,
            "macs": self.macs,
            "bytes": self.n_bytes,
            "floor_seconds": self.floor,
            "floor": self.bound,
        }


@dataclass(frozen=True)
class Phase:
    """A whole prompt, or the mean generated token. `wall` is start, python, and the seconds of ops or of tensors."""

    name: str
    tokens: int
    steps: int
    wall: float
    start: float
    python: float
    ops: list[Row]
    tensors: list[Row]
    calls: list[Row]

    @property
    def wait(self) -> float:
        return sum(row.wait for row in self.ops)

    @property
    def inside(self) -> float:
        """Seconds in calls, not waiting."""
        return sum(row.seconds for row in self.ops) - self.wait

    @property
    def floor(self) -> float:
        return sum(row.floor for row in self.ops)

    def as_dict(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "steps": self.steps,
            "wall_seconds": self.wall,
            "call_seconds": self.inside,
            "wait_seconds": self.wait,
            "start_seconds": self.start,
            "python_seconds": self.python,
            "floor_seconds": self.floor,
            "ops": [row.as_dict() for row in self.ops],
            "tensors": [row.as_dict() for row in self.tensors],
            "calls": [row.as_dict() for row in self.calls],
        }


@dataclass(frozen=True)
class Report:
    """All that was measured. The speeds are those of profiled runs: stamps cost some 30 ns a call."""

    speeds: Speeds
    floors: Floors
    prompt: Phase
    decode: Phase

    def as_dict(self) -> dict[str, Any]:
        limits = {
            "read_bytes_per_second": self.floors.read,
            "int8_macs_per_second": self.floors.int8,
            "float_macs_per_second": self.floors.float32,
            "tiles_macs_per_second": self.floors.tiles,
            "pairs_macs_per_second": self.floors.pairs,
        }
        return {
            "limits": {name: limit for name, limit in limits.items() if limit},  # of what the processor has
            "prompt": self.prompt.as_dict(),
            "decode": self.decode.as_dict(),
        }


def profile(
    model: Model, *, prompt_tokens: int, gen_tokens: int, repeat: int, on_run: Callable[[int], None] = lambda _: None
) -> Report:
    """Run as `bench.measure` does, and note the time of every call. Raises UnsupportedError on another backend."""
    if model.backend != "cpu":
        raise UnsupportedError(f"a profile is made of the CPU backend's calls; {model.backend!r} has none")
    from ..runtime.backends.cpu.executor import CPUExecutor
    from ..runtime.backends.cpu.floors import measure
    from ..runtime.backends.cpu.profile import Profiler

    executor, speeds = model.executor, Speeds()
    assert isinstance(executor, CPUExecutor)
    done: list[tuple[Usage, list[StepTimes]]] = []
    with Profiler(executor) as profiler:
        for number, usage in runs(model, prompt_tokens=prompt_tokens, gen_tokens=gen_tokens, repeat=repeat):
            times = profiler.take()
            if number:
                speeds.add(usage)
                done.append((usage, times))
            on_run(number)
    floors = measure(executor)
    usage, times = _median(done, lambda usage: usage.prompt_seconds)
    prompt = phase("prompt", [t for t in times if t.step.is_prompt], usage.prompt_seconds, floors, executor.kv)
    usage, times = _median(done, lambda usage: usage.decode_seconds)
    decode = phase("decode", [t for t in times if not t.step.is_prompt], usage.decode_seconds, floors, executor.kv)
    return Report(speeds, floors, prompt, decode)


def _median(
    done: list[tuple[Usage, list[StepTimes]]], seconds: Callable[[Usage], float]
) -> tuple[Usage, list[StepTimes]]:
    return sorted(done, key=lambda run: seconds(run[0]))[(len(done) - 1) // 2]


def phase(name: str, times: list[StepTimes], wall: float, floors: Floors, kv: KVPool) -> Phase:
    """Sum up steps that took `wall` seconds, Python around them included. Decode steps are averaged."""
    share = 1 / len(times) if name == "decode" else 1.0
    timings = [timing for step in times for timing in timings_of(step, floors, kv)]
    return Phase(
        name=name,
        tokens=sum(step.step.n_tokens for step in times),
        steps=len(times),
        wall=wall * share,
        start=sum(step.start for step in times) * share,
        python=(wall - sum(step.wall for step in times)) * share,
        ops=_grouped(timings, lambda t: t.op, share),
        tensors=_grouped(timings, lambda t: t.tensor, share),
        calls=_grouped(timings, lambda t: f"{t.call.node.name}: {t.call.kernel}", share, in_order=True),
    )


def _grouped(
    timings: Iterable[Timing], key: Callable[[Timing], str], weight: float, *, in_order: bool = False
) -> list[Row]:
    """Rows by key, those that take longest first; what has no tensor comes last."""
    rows: dict[str, Row] = {}
    for timing in timings:
        rows.setdefault(key(timing), Row(key(timing))).add(timing, weight)
    if in_order:
        return list(rows.values())
    return sorted(rows.values(), key=lambda row: (row.name == NO_TENSOR, -row.seconds))


def timings_of(times: StepTimes, floors: Floors, kv: KVPool) -> list[Timing]:
    """Each call of a step with its names and its work."""
    from ..runtime.backends.cpu import work as works

    idle = _idle(times)
    result = []
    for i, (call, busy, wait) in enumerate(zip(times.calls, times.busy, times.wait, strict=True)):
        work = works.Work() if i in idle else works.work_of(call, times.step, kv)
        tensor = works.tensor_of(call) or NO_TENSOR
        names = (works.op_of(call), tensor, frozenset(works.types_of(call)))
        result.append(Timing(call, *names, float(busy), float(wait), work, floors.seconds(work), floors.bound(work)))
    return result


def _idle(times: StepTimes) -> set[int]:
    """Calls that had nothing to do: of two kernels for one product the step decides for one, which takes longer."""
    from ..runtime.backends.cpu.work import weights_of

    alike: dict[tuple[int, ...], list[int]] = {}
    for i, call in enumerate(times.calls):
        if weights := weights_of(call):
            alike.setdefault((id(call.node), *map(id, weights)), []).append(i)
    return {i for calls in alike.values() for i in calls if i != max(calls, key=times.busy.__getitem__)}
