"""What this CPU has, and which instruction-set level the kernels are made for.

The level gates on the features Numba compiles for, not on what the silicon might do: an instruction the target lacks
makes LLVM abort the process. `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` force another target, as they do for Numba
itself; but where Numba keeps this machine's features when only a name is given, here the name says what it has.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass, replace

from ...settings import forced_cpu
from .permission import tiles_permitted


@dataclass(frozen=True)
class Isa:
    """An instruction-set level: what the int8 dot product compiles to, and how wide a register is.

    lanes      float32 values in one register
    dot        "vpdpbusd" (u8 x s8, exact), "vpmaddubsw" (u8 x s8, saturates above 7-bit codes), "sdot", or "widen"
    gemm_tile  (row registers, tokens) of one GEMM microkernel: what the register file holds without spilling
    f16c       half <-> float conversion is one instruction
    tiles      prompts are multiplied in tile registers of bfloat16 (AMX)
    pairs      prompts are multiplied with half-precision weights as pairs of bfloat16
    picks_bytes  one instruction picks any bytes out of two registers of 64 (AVX-512 VBMI)
    """

    name: str
    lanes: int
    dot: str
    gemm_tile: tuple[int, int]
    f16c: bool
    needs: frozenset[str]
    tiles: bool = False
    pairs: bool = False
    picks_bytes: bool = False


_AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "f16c", "fma"})

# Best first; the first level whose needs are met is taken. "generic" always fits.
LEVELS: tuple[Isa, ...] = (
    Isa("amx_bf16", 16, "vpdpbusd", (2, 6), True, _AVX512 | {"avx512bf16", "amx-tile", "amx-bf16"}, tiles=True),
    Isa("avx512_bf16", 16, "vpdpbusd", (2, 6), True, _AVX512 | {"avx512bf16"}, pairs=True),
    Isa("avx512_vnni", 16, "vpdpbusd", (2, 6), True, _AVX512),
    Isa("avx_vnni", 8, "vpdpbusd", (2, 3), True, frozenset({"avx2", "fma", "f16c", "avxvnni"})),
    Isa("avx2", 8, "vpmaddubsw", (2, 2), True, frozenset({"avx2", "fma", "f16c"})),
    Isa("neon_dotprod", 4, "sdot", (2, 4), True, frozenset({"neon", "dotprod"})),
    Isa("generic", 4, "widen", (2, 2), False, frozenset()),
)  # fmt: skip


_SSE4 = frozenset({"sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16"})
_HASWELL = _SSE4 | {"avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"}
_SKYLAKE_512 = _HASWELL | {"adx", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_ICELAKE = _SKYLAKE_512 | {"avx512vnni", "avx512vbmi", "avx512vbmi2", "avx512ifma", "avx512bitalg", "avx512vpopcntdq"}

# What processors have by their names for LLVM, as far as kernels are concerned.
NAMED: dict[str, frozenset[str]] = {
    "generic": frozenset(),
    "x86-64": frozenset({"sse", "sse2"}),
    "x86-64-v2": _SSE4,
    **dict.fromkeys(("x86-64-v3", "haswell", "broadwell", "skylake", "znver1", "znver2", "znver3"), _HASWELL),
    **dict.fromkeys(("x86-64-v4", "skylake-avx512"), _SKYLAKE_512),
    "cascadelake": _SKYLAKE_512 | {"avx512vnni"},
    "alderlake": _HASWELL | {"avxvnni"},
    **dict.fromkeys(("icelake-client", "icelake-server", "tigerlake"), _ICELAKE),
    "znver4": _ICELAKE | {"avx512bf16"},
    "sapphirerapids": _ICELAKE | {"avx512bf16", "avxvnni", "amx-tile", "amx-int8", "amx-bf16"},
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """The machine the kernels are compiled for."""

    cpu: str
    features: frozenset[str]
    isa: Isa

    @property
    def feature_string(self) -> str:
        return ",".join(f"+{f}" for f in sorted(self.features))


def choose_level(features: frozenset[str]) -> Isa:
    """The best level whose needed features are all present."""
    return next(level for level in LEVELS if level.needs <= features)


def rejected_levels(features: frozenset[str]) -> dict[str, list[str]]:
    """Levels better than the chosen one, with the features each of them lacks (for `halfbyte doctor`)."""
    chosen = choose_level(features)
    better = LEVELS[: LEVELS.index(chosen)]
    return {level.name: sorted(level.needs - features) for level in better}


@functools.cache
def target() -> Target:
    """The forced target if the environment names one, otherwise this machine. Imports llvmlite, not numba.

    A name that is not in NAMED leaves this machine's features.
    """
    import llvmlite.binding as llvm

    name, forced = forced_cpu()
    if forced is not None:
        features = frozenset(f[1:] for f in forced.split(",") if f.startswith("+"))
    else:
        features = frozenset(f for f, present in llvm.get_host_cpu_features().items() if present)
        if name in NAMED:
            features &= NAMED[name]  # and no more: kernels are to run here
    if platform.machine().lower() in ("arm64", "aarch64"):
        features |= {"neon"}  # architectural on AArch64, and not always listed
    if "amx-tile" in features and not tiles_permitted():
        features = frozenset(f for f in features if not f.startswith("amx-"))
    isa = choose_level(features)
    isa = replace(isa, picks_bytes=isa.lanes == 16 and "avx512vbmi" in features)
    return Target(name or llvm.get_host_cpu_name(), features, isa)
