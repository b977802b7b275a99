"""Every kernel to PTX for some compute capabilities, without a GPU: `python -m tests.cuda.kernels_to_ptx 7.5 8.6 9.0`.

Prints a line for each: its name, the length of its PTX, and whether it uses local memory. With --ptxas, and NVIDIA's
assembler on the PATH, that says how many registers and bytes of stack and shared memory the kernel takes; the exit
code is 1 where some spill. Numba asks the driver which GPU there is even where it only compiles; here it is told.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from halfbyte.runtime.backends.cuda.kernels import (
    attention,
    dequantize,
    elementwise,
    fragments,
    linear,
    moe,
    norm,
    quantize,
    rope,
    rows,
    tensor_floats,
    tensor_tiles,
    tiles,
)
from halfbyte.runtime.backends.cuda.package import cuda
from halfbyte.runtime.backends.cuda.weights import UNPACK

numba_cuda: Any = sys.modules[cuda.__name__]
types = numba_cuda.types
U1, I1, I4, F2, F4 = (t[::1] for t in (types.uint8, types.int8, types.int32, types.float16, types.float32))
N, FLAG, REAL = types.int64, types.boolean, types.float32


def kernels(capability: tuple[int, int]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, kernel, and the types of its arguments."""
    for name in [*UNPACK, *linear.FLOATS]:
        x = F4 if name in linear.FLOATS else I4
        product = (U1, N, I4, N, N, x, F4, F4)
        for tokens in (1, 8):
            yield f"rows.{name}.{tokens}", linear.rows(name, tokens), (*product, N, F4, FLAG, F4, FLAG, F4)
        yield f"tiles.{name}", tiles.tiles(name), (*product, N, F4, FLAG, F4, FLAG, F4)
        if name in UNPACK and capability >= fragments.CAPABILITY:
            yield f"tensor_tiles.{name}", tensor_tiles.tensor_tiles(name), (*product, N, F4, FLAG, F4, FLAG, F4)
        if name in tensor_floats.TYPES and capability >= fragments.CAPABILITY:
            yield f"tensor_floats.{name}", tensor_floats.tensor_floats(name), (*product, N, F4, FLAG, F4, FLAG, F4)
        if name in UNPACK and capability >= fragments.CAPABILITY:
            yield f"dequantize.{name}", dequantize.dequantize(name), (U1, N, I4, N, N, N, U1)
        part = (U1, N, F4, FLAG, F4)
        yield f"together.{name}", linear.together(name, 1), (*part, *part, *part, N, I4, N, x, F4, F4, N)
        glu = (U1, *product, N, F4, FLAG, F4, FLAG, F4)
        yield f"gated.{name}", linear.gated(name, 1, "silu"), glu
        yield f"experts.{name}", linear.experts(name), (*product, I4, N, FLAG, F4, FLAG, F4)
        yield f"embed.{name}", rows.embed(name), (U1, N, I4, N, N, I4, N, REAL, F4)
    if capability >= fragments.CAPABILITY:
        yield "to_brain", dequantize.to_brain, (F4, N, I4)
        yield "halves_to_brain", dequantize.halves_to_brain, (U1, N, N, I4)
    yield "begin", dequantize.begin, (F4, FLAG, F4, FLAG, N, N, F4)
    yield "quantize", quantize.quantize, (F4, I1, F4, F4, N, N)
    yield "take_rows", rows.take_rows, (F4, N, I4, N, F4)
    for name in ("rms_norm", "layer_norm"):
        start = (F4, F4, FLAG, F4, FLAG, REAL, N, N, F4)
        yield name, getattr(norm, name), start
        yield f"{name}_quantized", getattr(norm, f"{name}_quantized"), (*start, FLAG, I1, F4, F4)
    yield "add", elementwise.add, (F4, F4, N, F4)
    yield "scale", elementwise.scale, (F4, REAL, N, F4)
    yield "softcap", elementwise.softcap, (F4, REAL, N, F4)
    for act in ("sigmoid", "silu", "gelu", "gelu_tanh"):
        yield f"activation.{act}", elementwise.activation(act), (F4, N, F4)
        yield f"glu.{act}", elementwise.glu(act), (F4, F4, N, F4)
    yield "rope", rope.rope, (F4, F4, REAL, N, N, N, FLAG, I4, N, F4)
    yield "kv_store", attention.kv_store, (F4, F4, F2, F2, N, N, N, I4, I4, I4, N, N)
    yield "rotate_and_store", attention.rotate_and_store, (
        F4, F4, F4, F4, F2, F2, N, N, N, N, F4, REAL, N, FLAG, I4, I4, I4, N, N,
    )  # fmt: skip
    for most, dim in ((1, 128), (4, 64), (8, 128)):
        yield f"attention.{most}.{dim}", attention.attention(most, dim, dim), (
            F4, F2, F2, F4, I4, N, N, N, N, N, N, REAL, REAL, N, I4, I4, I4, N, N,
        )  # fmt: skip
    yield "merge", attention.merge, (F4, N, N, N, N, F4)
    yield "merge_quantized", attention.merge_quantized, (F4, N, N, N, N, N, I1, F4, F4)
    yield "moe_route", moe.moe_route, (F4, N, N, FLAG, REAL, N, I4, F4)
    yield "expert_combine", moe.expert_combine, (F4, F4, N, N, N, F4)


def to_ptx(kernel: Any, arguments: tuple[Any, ...], capability: tuple[int, int]) -> str:
    dispatcher = sys.modules[f"{cuda.__name__}.dispatcher"]
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)  # type: ignore[attr-defined]
    ptx, _ = cuda.compile_ptx(kernel.py_func, arguments, cc=capability)
    return str(ptx)


def assembled(ptx: str, capability: tuple[int, int]) -> tuple[str, bytes]:
    """What the assembler says of a kernel, and what it makes of it. SystemExit where it refuses it."""
    ptx = re.sub(r"\.version \d+\.\d+", ".version 9.0", ptx)  # nothing newer is used: assemblers of CUDA 13.0 take it
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        target = f"-arch=sm_{capability[0]}{capability[1]}"
        command = ["ptxas", target, "-v", "-o", str(made), str(source)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode:
            raise SystemExit(told.stderr)
        cubin = made.read_bytes()
    words = re.findall(r"\d+ bytes (?:stack|spill stores|smem)|\d+ registers", told.stderr)
    return ", ".join(word for word in words if not word.startswith("0 ")), cubin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capabilities", nargs="+", metavar="MAJOR.MINOR")
    parser.add_argument("--only", default="", metavar="PATTERN", help="kernels whose names it is found in")
    parser.add_argument("--ptxas", action="store_true")
    args = parser.parse_args()
    is_spilling = False
    for text in args.capabilities:
        major, _, minor = text.partition(".")
        capability = int(major), int(minor)
        for name, kernel, arguments in kernels(capability):
            if not re.search(args.only, name):
                continue
            ptx = to_ptx(kernel, arguments, capability)
            local = "local" if ".local " in ptx else ""
            told = assembled(ptx, capability)[0] if args.ptxas else ""
            is_spilling |= "spill" in told
            print(text, name, len(ptx), local, told, flush=True)
    return int(is_spilling)


if __name__ == "__main__":
    raise SystemExit(main())
