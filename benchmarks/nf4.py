"""bitsandbytes' types beside ggml's of four bits: errors, divergence of a model's predictions, speed of decode.

    python -m benchmarks.nf4
    python -m benchmarks.nf4 --windows 1 --shape tiny --rounds 1     # to try it

Errors are those of normal weights. Predictions are of a model whose weights were dequantized to float16 first; only its
linear layers are quantized, as bitsandbytes does it, in every type, so that bytes can be compared. Speed is that of a
synthetic model with every matrix in the type.
"""

from __future__ import annotations

import time
from pathlib import Path

import halfbyte
import numpy as np
from halfbyte.converters.quantize import quantize
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.formats.gguf.kinds import KINDS
from halfbyte.formats.gguf.nested import nest
from halfbyte.formats.gguf.types import BLOCK_SIZES
from halfbyte.formats.quants import codec_for, decode
from halfbyte.formats.quants.four_bit import dequantize_flat, quantize_flat
from halfbyte.tools.compare import TextCost
from halfbyte.tools.perplexity import cut_windows

from . import common
from .engines import MAX_TOKENS, Ours
from .report import Report
from .widened import widened

TYPES = ("NF4", "NF4_DQ", "NF4_32", "FP4", "INT8", "Q4_0", "Q4_1", "Q4_K", "IQ4_NL", "IQ4_XS")
EXPECTED, SLOWEST = 0.0920, 0.9
PROMPT, GENERATED = 16, 32  # tokens of a round


def normal_errors(report: Report, rows: int) -> None:
    """Relative RMSE of each type on normal weights, and of each size of blocks."""
    x = np.random.default_rng(1).standard_normal((rows, 4096)).astype(np.float32)

    def error(y: np.ndarray) -> float:
        return float(np.linalg.norm(y.reshape(x.shape) - x) / np.linalg.norm(x))

    table, found = [], {}
    for name in (*TYPES, "Q8_0"):
        codec = codec_for(GGMLType[name])
        kind = KINDS.get(codec.type)
        found[name] = error(decode(codec.encode(x), codec.type))
        if kind is not None and kind.nested:
            codes, absmax = quantize_flat(x, kind.codes, kind.block)
            found[name] = error(dequantize_flat(codes, nest(absmax).values(), kind.codes, kind.block))
        bits = 8 * (kind.stored_row_bytes(4096) / 4096 if kind else codec.block_bytes / codec.block_size)
        table.append([name, f"{bits:.3f}", f"{found[name]:.4f}"])
    sizes = []
    for codes in ("nf4", "fp4"):
        errors = [error(dequantize_flat(*quantize_flat(x, codes, size), codes, size)) for size in BLOCK_SIZES]
        found |= {f"{codes}.{size}": e for size, e in zip(BLOCK_SIZES, errors, strict=True)}
        sizes.append([codes.upper(), *(f"{e:.4f}" for e in errors)])
    report.table("Relative RMSE on normal weights", ("Type", "Bits", "Relative RMSE"), table)
    report.table("The same by weights in a block", ("Codes", *map(str, BLOCK_SIZES)), sizes)
    report.data["normal"] = found
    report.goal_at_most("NF4, blocks of 64: difference from 0.0920", abs(found["NF4"] - EXPECTED), 0.0003, "", 5)


def predictions(report: Report, name: str, windows: int, threads: int) -> None:
    """KL of each type from the source, over windows of the benchmark's text."""
    folder = common.cache_dir()
    source = folder / f"nf4-{Path(name).stem}-F16.gguf"
    quantize(widened(common.resolve(name)), source, "F16")
    with halfbyte.Model.load(source, threads=threads) as model:
        tokenizer = model.tokenizer
        ids = tokenizer.encode(common.TEXT.read_text(encoding="utf-8"))
        bos = tokenizer.bos_id if tokenizer.add_bos else None
    parts = list(cut_windows(ids, MAX_TOKENS, bos))[:windows]
    table, found = [], {}
    for type_, form in [*((t, "native") for t in TYPES), ("NF4", "q8_0-reversible")]:
        common.note(f"measuring {type_}")
        path = folder / f"nf4-{Path(name).stem}-{type_}-{form}.gguf"
        made = quantize(source, path, type_, pure=True, embedding_type="F16", output_type="F16", nf4_as=form)
        changed = [one for one in made.tensors if not one.is_copied]
        cost = TextCost()
        first, second = (Ours(file, context=MAX_TOKENS, threads=threads) for file in (source, path))
        for part in parts:
            cost.add(first.logits(part).copy(), second.logits(part), part)
        first.close(), second.close()
        summary, n_bytes = cost.summary(), sum(one.n_bytes for one in changed)
        label = type_ if form == "native" else f"{type_} as Q8_0"
        found[label] = {"linear_bytes": n_bytes, "file_bytes": path.stat().st_size, **summary}
        others = sorted({one.type.name for one in changed} - {type_})
        table.append([
            label, f"{n_bytes / 1e6:.2f}", f"{8 * n_bytes / sum(one.tensor.n_elements for one in changed):.3f}",
            f"{summary['kl_mean']:.5f} +- {summary['kl_error']:.5f}", f"{summary['kl_99']:.4f}",
            f"{100 * summary['same_top']:.1f} %", f"{summary['ppl_changed']:.3f}", " ".join(others) or "-",
        ])  # fmt: skip
    heads = ("Type", "MB", "Bits", "Mean KL", "99 % KL", "Same top", "Perplexity", "Of other types")
    tokens = found["NF4"]["tokens"]
    report.table(f"{name}: linear layers in a type, {tokens:,} tokens; KL from float16, nats", heads, table)
    report.note("A type that the weights had before they were dequantized finds them again (smollm2: Q4_1).")
    report.data["predictions"] = {name: found}


def speeds(report: Report, shape: str, rounds: int, threads: int) -> None:
    """Generated tokens in a second, round by round beside Q4_0."""
    base = common.resolve(f"synthetic:Q4_0@{shape}")
    engines, n_bytes = {}, {}
    for name in ("Q4_0", "NF4", "NF4_32", "FP4"):
        path = base
        if name != "Q4_0":
            path = common.cache_dir() / f"nf4-speed-{shape}-{name}.gguf"
            quantize(base, path, name, pure=True, embedding_type="Q4_0", output_type=name, allow_requantize=True)
        with GGUFFile.open(path) as file:
            n_bytes[name] = sum(tensor.n_bytes for tensor in file.tensors.values())
        engines[name] = Ours(path, context=PROMPT + GENERATED, threads=threads)
    runs: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):  # the first warms up
        for name, engine in engines.items():
            engine.clear()
            engine.run(range(1, PROMPT + 1))
            start = time.perf_counter()
            for token in range(GENERATED):
                engine.run([300 + token])
            if number:
                runs[name].append(GENERATED / (time.perf_counter() - start))
    table, q4_0 = [], common.Runs(tuple(runs["Q4_0"]))
    for name, values in runs.items():
        speed = common.Runs(tuple(values))
        ratio = speed.ratio(q4_0)
        table.append([name, f"{n_bytes[name] / 1e6:,.1f}", speed.show(), ratio.show(3)])
        report.data.setdefault("decode", {})[name] = {"tokens_per_s": speed.as_json(), "ratio": ratio.as_json()}
        if name == "NF4":
            report.goal_at_least("decode of NF4, beside Q4_0", ratio.median, SLOWEST, "", 3)
        engines[name].close()
    heads = ("Type", "MB", "Tokens/s", "Beside Q4_0")
    report.table(f"Decode of a {shape} model, {threads} threads; median (range) of {rounds} rounds", heads, table)


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=("smollm2",))
    parser.add_argument("--windows", type=common.positive, default=6, help="of 512 tokens")
    parser.add_argument("--shape", default="1.1b", help="of the model whose speed is measured")
    parser.add_argument("--rounds", type=common.positive, default=5)
    args = parser.parse_args()
    report = Report("nf4", "bitsandbytes' four bits beside ggml's")
    normal_errors(report, 256)
    for name in common.chosen_models(args):
        predictions(report, name, args.windows, args.threads)
    speeds(report, args.shape, args.rounds, args.threads)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
