"""Kernels by themselves: products with every type of weight, and attention, on one thread and on all.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --type Q4_K --type Q8_0

Where the other benchmarks say how fast a model is, this one says which kernel keeps it from being faster, and what
rounding costs: the error of a product is its distance from float64 arithmetic on the same weights and activations, by
the length of the result, for normal activations.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType
from halfbyte.formats.quants import decode
from halfbyte.runtime.backends.cpu import args as records
from halfbyte.runtime.backends.cpu import objects
from halfbyte.runtime.backends.cpu.backend import kernel_names
from halfbyte.runtime.backends.cpu.compile import ensure_compiled
from halfbyte.runtime.backends.cpu.features import target
from halfbyte.runtime.backends.cpu.matrices import KERNEL_TYPES
from halfbyte.runtime.backends.cpu.team import Team
from numpy.typing import NDArray

from tests.builders_quants import random_blocks

from . import common
from .report import Report

COLS = 2048
CACHED_ROWS, PROMPT_ROWS, PROMPT_TOKENS = 512, 2048, 512
FAR_BYTES = 256 << 20  # of weights that no cache holds
TOKENS = (1, 2, 4, 8)
HALVES = ("F16", "BF16")
REPEATS, ENOUGH = 5, 0.02  # the best of so many measurements, of so many seconds at least
SCRATCH = 4 << 20
HEADS, KV_HEADS, DIM, PAGE = 32, 4, 64, 32
DEPTHS = (0, 3584)


class Bench:
    """Calls single kernels with a team of threads."""

    def __init__(self, threads: int) -> None:
        self.team = Team(threads)
        self._scratch = np.zeros(SCRATCH * threads, np.uint8)
        self._never = np.zeros(1, np.int64)

    def seconds(self, kernel: str, step: dict[str, Any], arguments: dict[str, Any]) -> float:
        """The best time of one call."""
        table, record, *_kept = self._call(objects.load(kernel), kernel, step, arguments)
        times = 1
        while (best := self._best(np.tile(table, (times, 1)), record)) < ENOUGH and times < 1 << 14:
            times *= 2
        return best / times

    def seconds_once(self, entry: int, kernel: str, step: dict[str, Any], arguments: dict[str, Any]) -> float:
        """The time of one call of machine code at `entry`, which takes what `kernel` takes."""
        table, record, *_kept = self._call(entry, kernel, step, arguments)
        return self._time(table, record)

    def _call(self, entry: int, kernel: str, step: dict[str, Any], arguments: dict[str, Any]) -> tuple[Any, ...]:
        """The table of one call, the step record, and what they have the addresses of."""
        kept: list[Any] = []
        step = {"scratch": self._scratch, "scratch_bytes": SCRATCH, "cancel": self._never, **step}
        args, record = (
            _record(dtype, values, kept)
            for dtype, values in ((records.args_of(kernel.partition(".")[0]), arguments), (records.STEP, step))
        )
        return np.array([[entry, args.ctypes.data, 0]], np.int64), record, args, kept

    def _best(self, table: NDArray[np.int64], record: NDArray[Any]) -> float:
        return min(self._time(table, record) for _ in range(REPEATS))

    def _time(self, table: NDArray[np.int64], record: NDArray[Any]) -> float:
        begin = time.perf_counter()
        self.team.run(table, record, self._never)
        return time.perf_counter() - begin


def _record(dtype: np.dtype[Any], values: dict[str, Any], kept: list[Any]) -> NDArray[Any]:
    record = np.zeros((), dtype)
    for name, value in values.items():
        kept.append(value)
        record[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
    return record


@dataclass(frozen=True)
class Product:
    """One type: bytes per second of rows by tokens, cached and from memory, multiply-adds of prompts, and errors."""

    rows: list[float]
    far: list[float]
    prompt: list[float]
    row_error: float
    prompt_error: float


def _operand(bench: Bench, kernel: str, arrays: dict[str, int], x: NDArray[np.float32]) -> dict[str, NDArray[np.uint8]]:
    """The form of x that a product reads, made by its kernel; `arrays`: bytes for each 32 columns."""
    tokens, cols = x.shape
    rows = -(-records.tiled(tokens) // 16) * 16
    made = {name: _lines(rows * cols // 32 * n) for name, n in arrays.items()}
    bench.seconds(kernel, {"n_tokens": tokens}, {"x": x, **made, "cols": cols, "repeat": 1})
    return made


def _lines(size: int) -> NDArray[np.uint8]:
    """Bytes that begin with a cache line, as the executor's do."""
    room = np.zeros(size + 64, np.uint8)
    return room[-room.ctypes.data % 64 :][:size]


def packets(bench: Bench, x: NDArray[np.float32]) -> NDArray[np.uint8]:
    made = _lines(records.packets_bytes(*x.shape))
    given = {"x": x, "packets": made, "cols": x.shape[1], "repeat": 1}
    bench.seconds("quantize_packets", {"n_tokens": len(x)}, given)
    return made


def _error(out: NDArray[np.float32], x: NDArray[np.float32], decoded: NDArray[np.float64]) -> float:
    exact = x.astype(np.float64) @ decoded.T
    return float(np.linalg.norm(out - exact) / np.linalg.norm(exact))


def prompt_kernel(name: str) -> str:
    """The family that multiplies prompts with this type."""
    isa = target().isa
    if name != "F32" and isa.tiles:
        return "linear_tiles"
    return "linear_pairs" if name in HALVES and isa.pairs else "linear_gemm"


def measure_product(benches: list[Bench], name: str) -> Product:
    """Rows in cache on one thread, from memory on each team; prompts on each team."""
    kind, rng, one = GGMLType[name], np.random.default_rng(1), benches[0]
    is_float = name == "F32" or name in HALVES
    near = random_blocks(kind, (PROMPT_ROWS, COLS), rng)
    far = np.tile(near, (FAR_BYTES // near.nbytes, 1))
    decoded = decode(near, kind).astype(np.float64)

    def arguments(w: NDArray[np.uint8], n: int, floats: NDArray[np.float32], **more: Any) -> dict[str, Any]:
        out = np.zeros((len(floats), n), np.float32)
        shape = {"row_bytes": kind.row_bytes(COLS), "n": n, "cols": COLS, "repeat": 1}
        return {"w": w, "x": floats, "out": out, **shape, **more}

    x = rng.standard_normal((PROMPT_TOKENS, COLS)).astype(np.float32)
    rows, far_rows, row_error = [], [], 0.0
    for tokens in TOKENS:
        few = np.ascontiguousarray(x[:tokens])
        operand = {} if is_float else {"x": packets(one, few)}
        given = arguments(near, CACHED_ROWS, few, limit=tokens, **operand)
        seconds = one.seconds(f"linear_rows.{name}", {"n_tokens": tokens}, given)
        rows.append(CACHED_ROWS * kind.row_bytes(COLS) / seconds)
        row_error = _error(given["out"], few, decoded[:CACHED_ROWS])
        if tokens == 1:
            given = arguments(far, len(far), few, limit=1, **operand)
            far_rows = [far.nbytes / b.seconds(f"linear_rows.{name}", {"n_tokens": 1}, given) for b in benches]
    kernel = prompt_kernel(name)
    operand = {} if is_float else _operand(one, "quantize", {"packed": records.PACKED_BYTES}, x)
    if kernel == "linear_pairs":
        operand = _operand(one, "pack_pairs", {"packed": records.PACKED_BYTES}, x)
    if kernel == "linear_tiles":
        parts = {"high": 64, "low": 64} if name in HALVES else {"high": 64}
        form = "brain.exact" if name in HALVES else "brain.fast"
        operand = _operand(one, form, parts, x)
    given = arguments(near, PROMPT_ROWS, x, limit=0, **operand)
    macs = PROMPT_ROWS * COLS * PROMPT_TOKENS
    prompt = [macs / bench.seconds(f"{kernel}.{name}", {"n_tokens": PROMPT_TOKENS}, given) for bench in benches]
    return Product(rows, far_rows, prompt, row_error, _error(given["out"], x, decoded))


def attention_kernels() -> list[str]:
    """Those that this processor has for prompts."""
    blocks = ["attention_blocks.fast", "attention_blocks.exact"] if target().isa.tiles else []
    return ["attention.f16", *blocks]


def decode_attention() -> str:
    """That for generated tokens; on one thread nothing is split between threads."""
    return records.decode_kernel(HEADS, KV_HEADS, DIM, "f16")


def measure_attention(bench: Bench, kernel: str, tokens: int, depth: int) -> tuple[float, float]:
    """Seconds and multiply-adds per second of `tokens` tokens behind `depth` others."""
    rng, pages = np.random.default_rng(2), -(-(tokens + depth) // PAGE)
    keys, values = (rng.standard_normal((pages, KV_HEADS, PAGE, DIM)).astype(np.float16) for _ in range(2))
    step = {
        "n_tokens": tokens, "n_sequences": 1, "pages_per_sequence": pages,
        "positions": np.arange(depth, depth + tokens, dtype=np.int32), "sequence": np.zeros(tokens, np.int32),
        "pages": np.arange(pages, dtype=np.int32),
    }  # fmt: skip
    given = {
        "q": rng.standard_normal((tokens, HEADS * DIM)).astype(np.float32), "keys": keys, "values": values,
        "out": np.zeros((tokens, HEADS * DIM), np.float32), "n_head": HEADS, "n_head_kv": KV_HEADS, "key_dim": DIM,
        "value_dim": DIM, "scale": DIM**-0.5,
    }  # fmt: skip
    seconds = bench.seconds(kernel, step, given)
    return seconds, 2 * HEADS * DIM * sum(range(depth + 1, depth + tokens + 1)) / seconds


def compile_all(names: list[str], threads: int) -> None:
    """Every kernel that is going to be called."""
    isa = target().isa
    wanted = {*kernel_names(), *attention_kernels(), decode_attention(), "quantize", "quantize_packets"}
    wanted |= {"brain.fast", "brain.exact"} if isa.tiles else {"pack_pairs"} if isa.pairs else set()
    wanted |= {f"linear_rows.{name}" for name in names}
    wanted |= {f"{prompt_kernel(name)}.{name}" for name in names}
    ensure_compiled(wanted, workers=threads)


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--type", action="append", dest="types", choices=sorted(KERNEL_TYPES), help="default: all")
    args = parser.parse_args()
    names = args.types or sorted(KERNEL_TYPES)
    compile_all(names, args.threads)
    report = Report("kernels", f"Kernels by themselves, {COLS:,} columns")
    counts = sorted({1, args.threads})
    benches = [Bench(count) for count in counts]
    products = {}
    for name in names:
        common.note(f"measuring {name}")
        products[name] = measure_product(benches, name)
    report.data["products"] = {name: vars(product) for name, product in products.items()}
    report.table(
        "Products with few tokens: GB/s of weights, and the error of a result",
        ("Type", *(f"in cache, {n} tokens" for n in TOKENS), *(f"from memory, {n} threads" for n in counts), "Error"),
        [
            (name, *(f"{v / 1e9:.1f}" for v in (*p.rows, *p.far)), f"{100 * p.row_error:.3f} %")
            for name, p in products.items()
        ],
    )
    report.table(
        f"Products with {PROMPT_TOKENS} tokens, {PROMPT_ROWS:,} rows: GMAC/s",
        ("Type", *(f"{n} threads" for n in counts), "Error"),
        [
            (name, *(f"{v / 1e9:.0f}" for v in p.prompt), f"{100 * p.prompt_error:.4f} %")
            for name, p in products.items()
        ],
    )
    rows = []
    for tokens, depth in (*((PROMPT_TOKENS, depth) for depth in DEPTHS), (1, 4095)):
        for kernel in attention_kernels() if tokens > 1 else [decode_attention()]:
            seconds, macs = measure_attention(benches[0], kernel, tokens, depth)
            rows.append((kernel, tokens, depth, seconds, macs))
    report.data["attention"] = rows
    report.table(
        f"Attention of {HEADS} heads on {KV_HEADS}, {DIM} dims, one thread",
        ("Kernel", "Tokens", "Behind", "ms", "GMAC/s"),
        [(k, str(t), f"{d:,}", f"{1e3 * s:.2f}", f"{m / 1e9:.0f}") for k, t, d, s, m in rows],
    )
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
