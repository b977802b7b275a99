"""The child of benchmarks.startup: load a model, print one JSON line at its first token, then work on and print more.

python -m benchmarks.first_token MODEL [--threads N] [--tokens N]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

BEGIN = time.perf_counter()

from halfbyte import Model  # noqa: E402  (what is imported is part of what is timed)

PROMPT = "The sky is blue because"  # goes on: no model ends here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, help="fill a context of so many tokens and report the memory instead")
    args = parser.parse_args()
    print(json.dumps(use_memory(args) if args.tokens else start(args)), flush=True)


def start(args: argparse.Namespace) -> dict[str, Any]:
    """Until the first token."""
    kernels: dict[str, int] = {}

    def progress(stage: str, done: int, total: int) -> None:
        kernels[stage] = total

    with Model.load(args.model, threads=args.threads, progress=progress) as model:
        loaded = time.perf_counter()
        next(iter(model.generate(PROMPT, max_tokens=4, temperature=0).events()))
        first = time.perf_counter()
    return {"kernels": kernels.get("compile", 0), "load": loaded - BEGIN, "first_token": first - loaded}


def use_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Read a long prompt and generate, so that every kernel and every page of the context has been in use."""
    from .processes import peak_memory

    with Model.load(args.model, threads=args.threads, context=args.tokens, parallel=1) as model:
        prompt = [1 + i % 100 for i in range(args.tokens - 33)]
        model.generate(prompt, max_tokens=32, temperature=0).read()
        return {
            "peak": peak_memory(),
            "file": model.path.stat().st_size,
            "keys_and_values": kv_bytes(model.path, args.tokens),
            "tokens": args.tokens,
        }


def kv_bytes(path: Path, tokens: int) -> int:
    """Of the pages that so many tokens need."""
    from halfbyte.formats.gguf import GGUFFile
    from halfbyte.runtime.backends.cpu import CPUBackend
    from halfbyte.runtime.cache.kv import KVPool
    from halfbyte.runtime.models import build_model
    from halfbyte.runtime.step import PAGE

    with GGUFFile.open(path) as file:
        state = build_model(file, context=tokens).graph.state
    return KVPool.page_bytes(state, CPUBackend().kv_dtype) * -(-tokens // PAGE)


if __name__ == "__main__":
    main()
