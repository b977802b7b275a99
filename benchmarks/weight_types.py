"""Accuracy by type of weight: how far Halfbyte and llama.cpp are from the float32 reference on the same file.

    python -m benchmarks.weight_types ../shared/models/docs8m
    python -m benchmarks.weight_types ../shared/models/docs8m --before OLD/weight_types.json

The folder holds a trained Llama model in Hugging Face layout whose rows are multiples of 256, and a text `heldout.txt`.
llama.cpp quantizes it to every type; both programs then run 512 tokens of the text, once as one prompt and once token
by token, because the two have different kernels. What is measured is what rounding of activations, keys and values
costs, not what the type costs: the reference has the same weights. `--before` takes the result of an earlier version
and shows whether making something faster has made it worse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tests.builders import Arrays, Case, to_gguf, write

from . import common, peers
from .divergence import Divergence, divergence
from .engines import MAX_TOKENS, Ours, step_by_step
from .peers import LlamaCpp
from .reference import reference_logits
from .report import Report

# Name -> llama.cpp's number of the recipe. Without mixtures: every matrix has the type. (It has none for MXFP4.)
RECIPES = {
    "BF16": 32, "F16": 1, "Q8_0": 7, "Q6_K": 18, "Q5_K": 17, "Q5_1": 9, "Q5_0": 8, "Q4_K": 15, "Q4_1": 3, "Q4_0": 2,
    "IQ4_NL": 25, "IQ4_XS": 30, "Q3_K": 12, "Q2_K": 10,
}  # fmt: skip
FLOATS = ("F32", "BF16", "F16")
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class Checkpoint(Case):
    """The case of a folder in Hugging Face layout, with its own weights."""

    folder: Path

    def weights(self) -> dict[str, NDArray[np.float32]]:
        data = (self.folder / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        found = {}
        for name, entry in header.items():
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            values = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
            if entry["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            found[name] = values.astype(np.float32)
        return found


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], Arrays]:
    """Metadata without a vocabulary, and tensors of the folder's model as GGUF has them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {**config.get("rope_parameters", {}), **config}
    case = Checkpoint(folder.name, config)
    object.__setattr__(case, "folder", folder)
    metadata, tensors = to_gguf(case)
    return {**metadata, "llama.vocab_size": config["vocab_size"]}, tensors


def write_float32(folder: Path) -> Path:
    """The folder's model as a GGUF file in the cache folder."""
    metadata, tensors = read_checkpoint(folder)
    metadata["tokenizer.ggml.model"] = "none"  # llama.cpp wants to know that there is no vocabulary
    return write(metadata, tensors, common.cache_dir() / f"types-{folder.name}-F32.gguf", GGMLType.F32)


def measure(path: Path, ids: list[int], threads: int) -> dict[str, dict[str, Divergence]]:
    """Program -> form of the step -> divergence."""
    reference = reference_logits(path, ids)
    ours = Ours(path, context=len(ids), threads=threads)
    theirs = LlamaCpp(path, context=len(ids), threads=threads, flash_attention="off")
    found = {}
    for who, engine in (("halfbyte", ours), ("llama_cpp", theirs)):
        forms = {"prompt": engine.logits(ids).copy(), "decode": step_by_step(engine, ids)}
        found[who] = {form: divergence(reference, logits) for form, logits in forms.items()}
        engine.close()
    return found


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="a model in Hugging Face layout, with heldout.txt")
    parser.add_argument("--before", type=Path, help="weight_types.json of an earlier version")
    args = parser.parse_args()
    before = json.loads(args.before.read_text(encoding="utf-8"))["results"] if args.before else {}
    tokenizer = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    text = (args.folder / "heldout.txt").read_text(encoding="utf-8")
    ids = list(tokenizer.encode(text, add_special_tokens=False).ids)[:MAX_TOKENS]
    report = Report("weight_types", f"Accuracy by type of weight: {args.folder.name}, {len(ids)} tokens")
    source = write_float32(args.folder)
    rows = []
    for name in ("F32", *RECIPES):
        common.note(f"measuring {name}")
        path = source
        if name != "F32":
            path = common.cache_dir() / f"types-{args.folder.name}-{name}.gguf"
            peers.quantize(source, path, RECIPES[name], pure=True)
        found = measure(path, ids, args.threads)
        report.data[name] = {who: {form: vars(d) for form, d in forms.items()} for who, forms in found.items()}
        cells = []
        for form in ("prompt", "decode"):
            if before:
                old = before.get(name, {}).get("halfbyte", {}).get(form)
                cells.append(f"{old['mean_kl']:.6f}" if old else "-")
            cells += [f"{found[who][form].mean_kl:.6f}" for who in found]
        agreement = [f"{100 * found[who]['decode'].agreement:.1f} %" for who in found]
        rows.append([name, *cells, *agreement])
        if name not in FLOATS:  # llama.cpp rounds nothing there but keys and values
            for form in ("prompt", "decode"):
                limit = found["llama_cpp"][form].mean_kl
                report.goal_at_most(f"{name}, {form}: mean KL, no worse", found["halfbyte"][form].mean_kl, limit, "", 6)
    header = ["Type"]
    for form in ("Prompt", "Decode"):
        header += [*(["Before"] if before else []), form, "llama.cpp"]
    report.table(
        "Mean KL from the float32 reference, and the same top token in decode",
        (*header, "Same top token", "llama.cpp"),
        rows,
    )
    if before:
        machine = json.loads(args.before.read_text(encoding="utf-8"))["machine"]
        report.note(f"Before: version {machine['commit']}, kernels for {machine['kernel_level']}.")
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
