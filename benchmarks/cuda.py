"""What CUDA kernels reach of a GPU's bandwidth, and whole models on it: needs one, and pip install 'halfbyte[cuda]'.

    python -m benchmarks.cuda                     # everything; a 7 B model of random weights is written first (4 GB)
    python -m benchmarks.cuda --only kernels --type Q4_K

A product with one row of activations reads a weight once: its floor is the weight's bytes over the bandwidth of a copy
on the same device (bytes read plus bytes written). Matrices take turns, so many that none is left in the L2 cache.
Times are device events, medians of 20. Where torch with CUDA is installed its bf16 products of the same shapes are
measured beside prompts. In the simulator (NUMBA_ENABLE_CUDASIM=1) it runs with small shapes: its numbers say nothing.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.runtime.backends.cuda import package

from tests.builders_quants import random_blocks
from tests.tolerances import INT8_LOGITS

from . import common
from .engines import Ours, greedy
from .report import Report

TYPES = ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "NF4")
HOW = ("rows", "dp4a", "tensor cores")  # kernels of products
PARTS = ("kernels", "prompts", "model", "offload")
KERNEL_SHARE, DECODE_SHARE, PROMPT_SHARE = 0.70, 0.60, 0.40  # of copies, of copies, of torch
REPEATS, L2_BYTES, PROMPT, GENERATED = 20, 256 << 20, 512, 32
cuda: Any = package.cuda


def device_seconds(launch: Callable[[int], None], repeats: int = REPEATS) -> float:
    """The median time of launch(i) by the device's own clock."""
    launch(0)
    cuda.synchronize()
    times = []
    for i in range(repeats):
        begin, end = cuda.event(), cuda.event()
        begin.record()
        launch(i + 1)
        end.record()
        end.synchronize()
        times.append(cuda.event_elapsed_time(begin, end) / 1e3 if not package.SIMULATED else 1e-3)
    return statistics.median(times)


def copy_bandwidth(size: int) -> float:
    """Bytes read and written per second by copies within the device."""
    source, target = (cuda.to_device(np.zeros(size, np.uint8)) for _ in range(2))
    return 2 * size / device_seconds(lambda _: target.copy_to_device(source))


def product(name: str, n: int, cols: int, m: int, how: str) -> tuple[Callable[[int], None], int]:
    """launch(i): a product with m rows of activations by one of HOW, and the bytes of its weight."""
    # made when they are imported: there is a package
    from halfbyte.runtime.backends.cuda.allocate import DeviceMemory
    from halfbyte.runtime.backends.cuda.kernels import fragments, linear, tensor_tiles, tiles
    from halfbyte.runtime.backends.cuda.lower_linear import at_once
    from halfbyte.runtime.backends.cuda.simt import WARP, WARPS, blocks
    from halfbyte.runtime.backends.cuda.weights import table_of

    type_ = GGMLType[name]
    data = random_blocks(type_, (n, cols), np.random.default_rng(1))
    copies = 1 if package.SIMULATED else -(-L2_BYTES // data.nbytes) + 1
    memory = DeviceMemory()
    matrices = [memory.upload(data) for _ in range(copies)]
    memory.finish()
    table, none, groups = cuda.to_device(table_of(name)), cuda.to_device(np.zeros(1, np.float32)), cols // 32
    codes = cuda.to_device(np.ones(m * cols // 4, np.int32))
    scale, sums = (cuda.to_device(np.ones(k * m * groups, np.float32)) for k in (1, 2))
    out = cuda.device_array(m * n, np.float32)
    kernel: Any
    if how == "rows":
        several = at_once(m)
        kernel = linear.rows(name, several)[(blocks(-(-n // WARPS)), -(-m // several)), (WARP, WARPS)]
    elif how == "tensor cores":
        grid = -(-n // fragments.ROWS), -(-m // fragments.TOKENS)
        kernel = tensor_tiles.tensor_tiles(name)[grid, (WARP, fragments.WARPS)]
    else:
        kernel = tiles.tiles(name)[(-(-n // tiles.ROWS), -(-m // tiles.TOKENS)), (tiles.ACROSS, tiles.DOWN)]

    def launch(i: int) -> None:
        w = matrices[i % copies]
        kernel(w, data.shape[1], table, n, groups, codes, scale, sums, m, none, False, none, False, out)

    return launch, data.nbytes


def measure_kernels(report: Report, types: tuple[str, ...], n: int, cols: int, bandwidth: float) -> None:
    rows = []
    for name in types:
        launch, size = product(name, n, cols, 1, "rows")
        seconds = device_seconds(launch)
        share = size / seconds / bandwidth
        rows.append((name, f"{size / 1e6:.1f}", f"{seconds * 1e6:.1f}", f"{size / seconds / 1e9:.0f}", f"{share:.0%}"))
        report.data[f"kernel {name}"] = {"bytes": size, "seconds": seconds, "share": share}
        if name in TYPES:
            report.goal_at_least(f"{name}: of the bandwidth of copies", share, KERNEL_SHARE, "", 2)
    title = f"Products of one row with {n} x {cols}; copies reach {bandwidth / 1e9:.0f} GB/s"
    report.table(title, ("Type", "MB", "us", "GB/s", "Of copies"), rows)


def torch_seconds(n: int, cols: int, m: int) -> float | None:
    """Of torch's product in bf16; None where there is no torch with CUDA."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    x, w = (torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) for rows in (m, n))
    times = []
    for _ in range(REPEATS + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.matmul(x, w.T)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times[1:])


def measure_prompts(report: Report, types: tuple[str, ...], n: int, cols: int, most: int) -> None:
    """By each kernel, from few rows on: which is the better one decides lower_linear.FEW."""
    from halfbyte.runtime.backends.cuda.executor import has_tensor_cores

    kinds = HOW if package.SIMULATED or has_tensor_cores(cuda.gpus[0]) else HOW[:2]
    counts = [m for m in (8, 32, 128) if m < most] + [most]
    for m in counts:
        rows, theirs = [], torch_seconds(n, cols, m)
        for name in types:
            seconds = {how: device_seconds(product(name, n, cols, m, how)[0]) for how in kinds}
            best = min(seconds.values())
            share = "" if theirs is None else f"{theirs / best:.0%}"
            times = [f"{one * 1e3:.3f}" for one in seconds.values()]
            rows.append((name, *times, f"{2e-12 * n * cols * m / best:.1f}", share))
            report.data[f"prompt of {m} {name}"] = {"seconds": seconds, "torch": theirs}
        header = ("Type", *(f"ms, {how}" for how in kinds), "TFLOPS of the best", "Of torch in bf16")
        report.table(f"Products of {m} rows with {n} x {cols}", header, rows)
    if theirs is None:
        report.note("torch with CUDA is not installed: nothing to compare products of prompts with.")


def measure_model(report: Report, path: Path, bandwidth: float, generated: int, prompt: int) -> None:
    """Decode against the bytes of the weights, a prompt against torch's products of the same shapes."""
    with GGUFFile.open(path) as file:
        matrices = [t for t in file.tensors.values() if len(t.shape) > 1 and t.name != "token_embd.weight"]
        size = sum(t.n_bytes for t in matrices)
        shapes = [(t.shape[0], t.shape[1]) for t in matrices if t.name != "output.weight"]
    engine = Ours(path, context=2 * (prompt + generated), threads=2, gpu_layers="all")
    ids = common.random_tokens(prompt, engine.vocab_size, 1)
    times = []
    for _ in range(5):
        engine.clear()
        begin = time.perf_counter()
        engine.run(ids)
        times.append(time.perf_counter() - begin)
    reading = statistics.median(times)
    steps = []
    for i in range(generated):
        begin = time.perf_counter()
        engine.run_each([i % engine.vocab_size])
        steps.append(time.perf_counter() - begin)
    token = statistics.median(steps[2:] or steps)
    share = size / token / bandwidth
    engine.close()
    seconds = {shape: torch_seconds(*shape, prompt) for shape in set(shapes)}
    theirs = None if None in seconds.values() else sum(seconds[shape] or 0.0 for shape in shapes)
    compared = "" if theirs is None else f"{theirs / reading:.0%}"
    row = (path.stem, f"{prompt / reading:.0f}", compared, f"{1 / token:.1f}", f"{share:.0%}")
    header = ("Model", f"Prompt of {prompt}, tokens/s", "Of torch's products", "Decode, tokens/s", "Of the floor")
    report.table("A whole model on the GPU", header, [row])
    report.data["model"] = {"prompt_seconds": reading, "torch": theirs, "token_seconds": token, "share": share}
    report.goal_at_least("decode: of the bandwidth floor", share, DECODE_SHARE, "", 2)
    if theirs is not None:
        report.goal_at_least("prompt: of torch's bf16 products", theirs / reading, PROMPT_SHARE, "", 2)


def measure_offload(report: Report, path: Path, generated: int) -> None:
    """Logits, text and time with 0, 1, half and all layers on the GPU."""
    with GGUFFile.open(path) as file:
        layers = int(file.metadata.require(f"{file.metadata.require('general.architecture', str)}.block_count", int))
    found: dict[int, tuple[list[int], float]] = {}
    expected, ids = None, list(range(5, 13))
    rows = []
    for count in (0, 1, max(1, layers // 2), layers):
        engine = Ours(path, context=256, threads=2, gpu_layers=count)
        logits = np.array(engine.logits(ids))
        expected = logits if expected is None else expected
        error = float(np.abs(logits - expected).max() / np.abs(expected).max())
        begin = time.perf_counter()
        text = greedy(engine, ids, generated, frozenset()).ids
        found[count] = text, (time.perf_counter() - begin) / generated
        engine.close()
        rows.append((str(count), f"{error:.1e}", f"{found[count][1] * 1e3:.2f}", str(text == found[0][0])))
        report.data[f"offload {count}"] = {"error": error, "seconds": found[count][1], "text": text}
        report.goal_at_most(f"{count} layers: logits beside the CPU backend", error, INT8_LOGITS, "", 4)
    report.table(f"{path.stem} by layers on the GPU", ("Layers", "Logits' error", "ms a token", "Same text"), rows)
    texts, times = [text for text, _ in found.values()], [seconds for _, seconds in found.values()]
    same = sum(text == texts[0] for text in texts)
    report.goal_true("the same greedy text", f"{same} of {len(texts)}", same == len(texts))
    falls = all(a >= b for a, b in itertools.pairwise(times))
    report.goal_true("time per token falls with layers on the GPU", str(falls), falls)


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=("synthetic:Q4_0@7b",))
    parser.add_argument("--only", action="append", choices=PARTS, help="repeatable; default: all")
    parser.add_argument("--type", action="append", dest="types", help="of weights; repeatable")
    parser.add_argument("--matrix", default="4096x14336", help="rows x columns")
    parser.add_argument("--offloaded", default="smollm2", help="the model of the table by layers")
    parser.add_argument("--prompt", type=common.positive, default=PROMPT)
    parser.add_argument("--generated", type=common.positive, default=GENERATED)
    args = parser.parse_args()
    try:
        package.require()
    except package.CUDAError as error:
        common.give_up(str(error))
    from halfbyte.runtime.backends.cuda.weights import UNPACK

    parts, types = args.only or PARTS, tuple(args.types or TYPES)
    if unknown := sorted(set(types) - set(UNPACK)):
        parser.error(f"--type {unknown[0]}: no quantized type; there are {', '.join(UNPACK)}")
    n, _, cols = args.matrix.partition("x")
    report = Report("cuda", f"CUDA: {package.describe()['devices'][0]['name']}")
    bandwidth = copy_bandwidth(1 << 16 if package.SIMULATED else 1 << 30)
    if "kernels" in parts:
        measure_kernels(report, types, int(n), int(cols), bandwidth)
    if "prompts" in parts:
        measure_prompts(report, types, int(n), int(cols), args.prompt)
    if "model" in parts:
        measure_model(report, common.resolve(common.chosen_models(args)[0]), bandwidth, args.generated, args.prompt)
    if "offload" in parts:
        measure_offload(report, common.resolve(args.offloaded), args.generated)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
