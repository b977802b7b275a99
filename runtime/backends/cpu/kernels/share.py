"""How threads divide work, and how kernels know their number of rows."""

from __future__ import annotations

from ..jit import device


@device
def rows_of(a, step):  # type: ignore[no-untyped-def]
    """Rows of this operation in this step."""
    if a.on_outputs != 0:
        return step.n_outputs * a.repeat
    return step.n_tokens * a.repeat


@device
def is_few(rows, a, step):  # type: ignore[no-untyped-def]
    """Whether this product goes row by row (linear_rows) or by panels (linear_gemm): exactly one of them works."""
    return rows <= (step.n_sequences if a.limit < 0 else a.limit)


@device
def share(n, grain, tid, nth):  # type: ignore[no-untyped-def]
    """The part [start, stop) of n items that thread `tid` of `nth` does: whole grains, as even as they come."""
    grains = (n + grain - 1) // grain
    start = min(n, grains * tid // nth * grain)
    stop = min(n, grains * (tid + 1) // nth * grain)
    return start, stop
