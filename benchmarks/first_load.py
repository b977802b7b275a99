"""The child of benchmarks.loading: load a model once, generate a little, and print one JSON line.

python -m benchmarks.first_load halfbyte|llama_cpp MODEL --threads N --context N
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

PROMPT = [1, 2, 3]


def ours(path: Path, threads: int, context: int) -> dict[str, Any]:
    from halfbyte import Model

    from .first_token import kv_bytes
    from .processes import memory_held

    _ = Model.load  # imported now: the names of the package are lazy
    begin = time.perf_counter()
    with Model.load(path, threads=threads, context=context, parallel=1) as model:
        loaded = time.perf_counter()
        events = model.generate(PROMPT, max_tokens=8, temperature=0).events()
        next(iter(events))
        first = time.perf_counter()
        for _ in events:
            pass
        held = vars(memory_held())
    return {
        "load": loaded - begin,
        "first_token": first - loaded,
        **held,
        "keys_and_values": kv_bytes(path, len(PROMPT) + 8),
    }


def theirs(path: Path, threads: int, context: int) -> dict[str, Any]:
    from .peers import LlamaCpp, start

    start()
    begin = time.perf_counter()
    engine = LlamaCpp(path, context=context, threads=threads)
    loaded = time.perf_counter()
    engine.run(PROMPT)
    return {"load": loaded - begin, "first_token": time.perf_counter() - loaded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=("halfbyte", "llama_cpp"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    args = parser.parse_args()
    found = (ours if args.program == "halfbyte" else theirs)(args.model, args.threads, args.context)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
