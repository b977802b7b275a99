"""Rotary frequencies with the context-extension methods folded in; `read_rope` applies the keys of a file.

Every method ends as one table of frequencies (radians per position, for each rotated pair) and one magnitude:

    none       base^(-2i/n_rot)
    factors    divided by a stored factor per pair: llama3 (rope_freqs), longrope (rope_factors_long, _short)
    linear     divided by one factor
    yarn       a blend per pair of the linear table (slow pairs) and the plain one (fast pairs), and a larger magnitude
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import ModelFileError, UnsupportedError
from ...formats.quants import decode
from ..graph.builder import GraphBuilder
from .config import MAX_CONTEXT, Config

F64 = NDArray[np.float64]
MIN_FACTOR, MAX_FACTOR = 1e-6, 1e12  # of stored factors; frequencies stay far from the limits of float32
SCALINGS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotation of the first `n_rot` dims of each head; attributes of the op, see ops/rope.py."""

    n_rot: int
    style: str
    inv_freq: NDArray[np.float32]
    mscale: float = 1.0


def frequencies(n_rot: int, base: float) -> F64:
    """float64 [n_rot/2]: base^(-2i/n_rot)."""
    return base ** -(np.arange(0, n_rot, 2, dtype=np.float64) / n_rot)


def yarn_frequencies(
    plain: F64,
    *,
    factor: float,
    base: float,
    original_context: int,
    extrapolation: float = 1.0,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
) -> F64:
    """Pairs that turn more than `beta_fast` times within the original context keep their frequency, those that turn
    less than `beta_slow` times are divided by `factor`, a ramp lies between. `extrapolation` weighs the kept part.
    """
    n_rot = 2 * len(plain)
    low = max(0, math.floor(_pair_turning(beta_fast, n_rot, base, original_context)))
    high = min(n_rot - 1, math.ceil(_pair_turning(beta_slow, n_rot, base, original_context)))
    ramp = np.clip((np.arange(len(plain)) - low) / max(0.001, high - low), 0, 1)
    kept = (1 - ramp) * extrapolation
    return plain / factor * (1 - kept) + plain * kept


def yarn_magnitude(factor: float) -> float:
    """How much larger queries and keys get when the context grows by `factor`."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def _pair_turning(turns: float, n_rot: int, base: float, context: int) -> float:
    """The (fractional) pair that turns `turns` times within the context."""
    return n_rot * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))


def read_rope(g: GraphBuilder, c: Config, style: str, key_dim: int, context_length: int) -> Rope:
    """The rotation a file asks for: its base, its scaling and its stored factors."""
    n_rot = c.count("rope.dimension_count", key_dim, minimum=2, default=key_dim)
    if n_rot % 2:
        raise c.refuse("rope.dimension_count", n_rot, "an even number")
    base = c.number("rope.freq_base", 10_000.0, low=1.0, high=1e12)
    original = c.count("rope.scaling.original_context_length", MAX_CONTEXT, default=context_length)
    kind = c.scope.optional("rope.scaling.type", str, "linear")
    if kind not in SCALINGS:
        raise UnsupportedError(f"{c.path}: rope scaling {kind!r} is not supported, only {', '.join(SCALINGS)}")
    factor = _scaling_factor(c, kind)
    mscale = c.number("rope.scaling.attn_factor", 1.0)
    table = frequencies(n_rot, base) / _stored_factors(g, c, n_rot, long=(c.context or context_length) > original)
    if kind == "yarn":
        table, magnitude = _read_yarn(c, table, factor, base, original)
        mscale *= magnitude
    else:
        table = table / factor
    return Rope(n_rot, style, table.astype(np.float32), mscale)


def _scaling_factor(c: Config, kind: str) -> float:
    """1 where nothing is scaled. Files write 0 for "not scaled", and older ones use another key."""
    key = "rope.scaling.factor" if "rope.scaling.factor" in c.scope else "rope.scale_linear"
    if c.scope.optional(key, float, 0.0) == 0.0:
        return 1.0
    factor = c.number(key)
    return 1.0 if kind == "none" else factor


def _read_yarn(c: Config, plain: F64, factor: float, base: float, original: int) -> tuple[F64, float]:
    if base <= 1:
        raise c.refuse("rope.freq_base", base, "above 1, for yarn")
    extrapolation = c.number("rope.scaling.yarn_ext_factor", 1.0, low=0.0, high=1.0)
    table = yarn_frequencies(
        plain,
        factor=factor,
        base=base,
        original_context=original,
        extrapolation=extrapolation,
        beta_fast=c.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=c.number("rope.scaling.yarn_beta_slow", 1.0),
    )
    # Converters store what transformers calls attention_factor here: the whole magnitude, not a correction to it.
    return table, c.number("rope.scaling.yarn_attn_factor", yarn_magnitude(factor))


def _stored_factors(g: GraphBuilder, c: Config, n_rot: int, *, long: bool) -> NDArray[np.float64]:
    """Divisors of the frequencies, ones where the file stores none. Long ones are for contexts beyond the original."""
    names = {name for name in ("rope_freqs", "rope_factors_long", "rope_factors_short") if g.has(f"{name}.weight")}
    weights = {name: g.weight(f"{name}.weight", n_rot // 2) for name in sorted(names)}
    wanted = "rope_freqs" if "rope_freqs" in names else f"rope_factors_{'long' if long else 'short'}"
    if not names:
        return np.ones(n_rot // 2)
    if wanted not in names:
        raise ModelFileError("tensor is missing", path=c.path, field=f"{wanted}.weight")
    factors = decode(weights[wanted].data, weights[wanted].type).astype(np.float64)
    if not ((factors >= MIN_FACTOR) & (factors <= MAX_FACTOR)).all():  # NaN is neither
        allowed = f"{MIN_FACTOR:g} to {MAX_FACTOR:g}"
        raise ModelFileError("a rope factor is out of range", path=c.path, field=f"{wanted}.weight", allowed=allowed)
    return factors
