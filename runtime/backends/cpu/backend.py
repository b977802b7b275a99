"""The CPU backend: lower the graph, compile what is missing, lay out memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ...cache.kv import KVPool
from ...graph.ir import Graph
from ...graph.rewrites import rewrite
from ..base import Progress
from ..repack import repacked
from .compile import ensure_compiled
from .executor import CPUExecutor
from .features import LEVELS, rejected_levels, target
from .lower import Lowering
from .matrices import KERNEL_TYPES
from .objects import kernel_dir
from .team import FUNCTIONS, Team


class CPUBackend:
    """Executes graphs with compiled kernels on a team of threads. `kv_dtype` is how keys and values are stored:
    float16, or float32, which keeps every bit in twice the memory.
    """

    name = "cpu"

    def __init__(self, kv_dtype: DTypeLike = np.float16, *, share_team: bool = False) -> None:
        """share_team: one team of threads for all executors, which run one after the other: parts of a model."""
        self.kv_dtype = kv_dtype
        self._shared: SharedTeam | None = None
        self._shares = share_team

    def compile(
        self, graph: Graph, *, n_pages: int, max_tokens: int, threads: int, progress: Progress | None = None
    ) -> CPUExecutor:
        """See base.Backend.compile. Reports progress as the stage "compile" with a count of kernels."""
        graph, kv = repacked(rewrite(graph)), KVPool(graph.state, n_pages, self.kv_dtype)
        prompt = Lowering(graph, kv, max_tokens, prompt=True).run()
        # Where texts come whole, no token is ever generated.
        decode = Lowering(graph, kv, max_tokens, prompt=False).run() if graph.is_causal else prompt
        report = (lambda done, total: progress("compile", done, total)) if progress else None
        ensure_compiled(kernel_names(decode, prompt), workers=threads, report=report)
        if not self._shares:
            team = Team(threads)
            return CPUExecutor(decode, prompt, kv, team, team.close)
        if self._shared is None or self._shared.is_closed:
            self._shared = SharedTeam(threads)
        return CPUExecutor(decode, prompt, kv, self._shared.join(), self._shared.leave)


class SharedTeam:
    """A team that ends with the last one that uses it."""

    def __init__(self, threads: int) -> None:
        self._team, self._users, self.is_closed = Team(threads), 0, False

    def join(self) -> Team:
        self._users += 1
        return self._team

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            self.is_closed = True
            self._team.close()


def kernel_names(*lowerings: Lowering) -> Iterable[str]:
    """Every kernel that the plans call, and the functions of the team itself."""
    return {*FUNCTIONS, *(call.kernel for low in lowerings for call in low.calls)}


def describe() -> dict[str, Any]:
    """What `halfbyte doctor` shows: the target, the level chosen, why not a better one, and the types with kernels."""
    machine = target()
    return {
        "cpu": machine.cpu,
        "features": sorted(machine.features),
        "level": machine.isa.name,
        "levels": [level.name for level in LEVELS],
        "rejected": rejected_levels(machine.features),
        "dot": machine.isa.dot,
        "gemm_tile": machine.isa.gemm_tile,
        "types": sorted(KERNEL_TYPES),
        "kernel_dir": str(kernel_dir()),
    }
