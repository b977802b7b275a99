"""Every kernel to PTX for some compute capabilities, without a GPU: `python -m tests.cuda.kernels_to_ptx 7.5 8.6 9.0`.

Prints a line for each: its name and the registers, bytes of local and of shared memory that its code asks for. Numba
asks the driver which GPU there is even where it only compiles; here it is told.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from halfbyte.runtime.backends.cuda.kernels import (
    attention,
    elementwise,
    linear,
    moe,
    norm,
    quantize,
    rope,
    rows,
    tiles,
)
from halfbyte.runtime.backends.cuda.package import cuda
from halfbyte.runtime.backends.cuda.weights import UNPACK

numba_cuda: Any = sys.modules[cuda.__name__]
types = numba_cuda.types
U1, I1, I4, F2, F4 = (t[::1] for t in (types.uint8, types.int8, types.int32, types.float16, types.float32))
N, FLAG, REAL = types.int64, types.boolean, types.float32


def kernels() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, kernel, and the types of its arguments."""
    for name in [*UNPACK, *linear.FLOATS]:
        x = F4 if name in linear.FLOATS else I4
        product = (U1, N, I4, N, N, x, F4, F4)
        for tokens in (1, 8):
            yield f"rows.{name}.{tokens}", linear.rows(name, tokens), (*product, N, F4, FLAG, F4, FLAG, F4)
        yield f"tiles.{name}", tiles.tiles(name), (*product, N, F4, FLAG, F4, FLAG, F4)
        glu = (U1, *product, N, F4, FLAG, F4, FLAG, F4)
        yield f"gated.{name}", linear.gated(name, 1, "silu"), glu
        yield f"experts.{name}", linear.experts(name), (*product, I4, N, FLAG, F4, FLAG, F4)
        yield f"embed.{name}", rows.embed(name), (U1, N, I4, N, N, I4, N, REAL, F4)
    yield "quantize", quantize.quantize, (F4, I1, F4, F4, N)
    yield "take_rows", rows.take_rows, (F4, N, I4, N, F4)
    yield "rms_norm", norm.rms_norm, (F4, F4, FLAG, REAL, N, N, F4)
    yield "layer_norm", norm.layer_norm, (F4, F4, F4, REAL, N, N, F4)
    yield "add", elementwise.add, (F4, F4, N, F4)
    yield "scale", elementwise.scale, (F4, REAL, N, F4)
    yield "softcap", elementwise.softcap, (F4, REAL, N, F4)
    for act in ("sigmoid", "silu", "gelu", "gelu_tanh"):
        yield f"activation.{act}", elementwise.activation(act), (F4, N, F4)
        yield f"glu.{act}", elementwise.glu(act), (F4, F4, N, F4)
    yield "rope", rope.rope, (F4, F4, REAL, N, N, N, FLAG, I4, N, F4)
    yield "kv_store", attention.kv_store, (F4, F4, F2, F2, N, N, N, I4, I4, I4, N, N)
    for most, dim in ((1, 128), (4, 64), (8, 128)):
        yield f"attention.{most}.{dim}", attention.attention(most, dim, dim), (
            F4, F2, F2, F4, I4, N, N, N, N, N, N, REAL, REAL, N, I4, I4, I4, N, N,
        )  # fmt: skip
    yield "merge", attention.merge, (F4, N, N, N, N, F4)
    yield "moe_route", moe.moe_route, (F4, N, N, FLAG, REAL, N, I4, F4)
    yield "expert_combine", moe.expert_combine, (F4, F4, N, N, N, F4)


def to_ptx(kernel: Any, arguments: tuple[Any, ...], capability: tuple[int, int]) -> str:
    dispatcher = sys.modules[f"{cuda.__name__}.dispatcher"]
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)  # type: ignore[attr-defined]
    ptx, _ = cuda.compile_ptx(kernel.py_func, arguments, cc=capability)
    return str(ptx)


def main() -> int:
    for text in sys.argv[1:]:
        major, _, minor = text.partition(".")
        for name, kernel, arguments in kernels():
            ptx = to_ptx(kernel, arguments, (int(major), int(minor)))
            local = "local" if ".local " in ptx else ""
            print(text, name, len(ptx), local, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
