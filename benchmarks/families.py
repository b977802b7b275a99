"""Every family that converts and runs: a tiny random model of each, beside transformers and llama.cpp.

    python -m benchmarks.families
    python -m benchmarks.families --family gemma3 --family qwen2moe

transformers saves the model, `halfbyte convert` makes a GGUF file of the folder in F32, and both of our backends run
it. An error is the largest difference from transformers' logits (of encoders: from the vectors of its last layer), by
the largest of them: of a prompt in one step, and token by token. The CPU backend does so twice: with keys and values as
float32, its default for such models, and as float16 (`--kv-type f16`), llama.cpp's, which is nearly all of its error.
The latter is also held against the reference backend with float16 keys and values: what is left there is keys on the
border of two float16. llama.cpp runs the same file, and continues the prompt greedily beside us. transformers, torch
and llama-cpp-python are needed.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import transformers
from halfbyte import convert
from halfbyte.runtime.tokenize.sentence import model_proto
from halfbyte.runtime.tokenize.vocabulary import read_vocabulary
from numpy.typing import NDArray

from tests.builders import CASES, ENCODERS, Case, no_text
from tests.fixtures.make.families import save_checkpoint, their_logits
from tests.models.otherwise import REASONS
from tests.models.running import distance

from . import common, peers
from .engines import Engine, Ours, greedy, step_by_step
from .peers import LlamaCpp
from .report import Report

TOLERANCE = 1e-4
CONTEXT, PROMPT, GENERATED = 48, 16, 21  # tokens; together as many as a case has
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """Errors: of a prompt in one step, and token by token (not of encoders, which take texts whole).

    reference  of the reference backend, beside transformers
    cpu        of the CPU backend, beside transformers
    half       of the CPU backend with float16 keys and values, beside transformers
    kernels    of the same, beside the reference backend with float16 keys and values
    llama_cpp  of llama.cpp, beside transformers, for a prompt
    """

    architecture: str
    reference: list[float]
    cpu: list[float]
    half: list[float]
    kernels: list[float]
    llama_cpp: float | None  # of a prompt
    same_tokens: int | None  # of GENERATED


def measure(case: Case, folder: Path, threads: int) -> Found:
    expected = their_logits(case, save_checkpoint(case, folder))
    write_vocabulary(folder, case)
    path = folder / "model.gguf"
    made = convert(folder, path, "F32", verify=False)
    exact, cpu = (logits(path, case, backend, None, threads) for backend in ("reference", "cpu"))
    rounded, half = (logits(path, case, backend, "f16", threads) for backend in ("reference", "cpu"))
    errors = [[distance(one, expected) for one in found] for found in (exact, cpu, half)]
    errors.append([distance(a, b) for a, b in zip(half, rounded, strict=True)])
    if case.name in ENCODERS:
        loads_in_llama_cpp(path)
        return Found(made.architecture, *errors, None, None)
    engines: list[Engine] = [
        Ours(path, context=CONTEXT, threads=threads),
        LlamaCpp(path, context=CONTEXT, threads=threads, flash_attention="off", repack=False),
    ]
    their_error = distance(engines[1].logits(case.tokens().tolist()), expected)
    prompt = case.tokens()[:PROMPT].tolist()
    ours, theirs = (greedy(engine, prompt, GENERATED, frozenset()).ids for engine in engines)
    for engine in engines:
        engine.close()
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), GENERATED)
    return Found(made.architecture, *errors, their_error, same)


def logits(path: Path, case: Case, backend: str, kv_type: str | None, threads: int) -> list[Floats]:
    """Of all tokens in one step, and of each in a step of its own."""
    tokens = case.tokens().tolist()
    engine = Ours(path, context=CONTEXT, threads=threads, backend=backend, kv_type=kv_type)
    found = [engine.logits(tokens).copy()]
    if case.name not in ENCODERS:
        found.append(step_by_step(engine, tokens))
    engine.close()
    return found


def loads_in_llama_cpp(path: Path) -> None:
    """Ends the program if it does not."""
    LlamaCpp(path, context=CONTEXT, threads=1, flash_attention="off", repack=False).close()


def write_vocabulary(folder: Path, case: Case) -> None:
    """So many pieces that are no text: as words for encoders, and as a SentencePiece model for others."""
    n = case.config["vocab_size"]
    if case.name in ENCODERS:
        lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"t{i}" for i in range(5, n))]
        (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    keys = {"general.architecture": "llama", **no_text(n)}
    (folder / "tokenizer.model").write_bytes(model_proto(read_vocabulary(keys), bpe=False))


def add_to(report: Report, found: dict[str, Found]) -> None:
    rows = []
    for name, one in found.items():
        errors = one.reference, one.cpu, one.half, one.kernels, [] if one.llama_cpp is None else [one.llama_cpp]
        shown = [", ".join(f"{error:.1e}" for error in both) for both in errors]
        same = "loads; no tokens" if one.same_tokens is None else f"{one.same_tokens} of {GENERATED}"
        rows.append((name, one.architecture, *shown, same, REASONS.get(name, "")))
        report.data[name] = {**vars(one), "otherwise": REASONS.get(name)}
    header = (
        "Variant", "Architecture", "Reference", "CPU", "CPU, float16 keys and values",
        "CPU beside reference, both float16", "llama.cpp", "llama.cpp's tokens", "What llama.cpp does otherwise",
    )  # fmt: skip
    title = "Largest errors (of a prompt, token by token), and tokens before the first that is not llama.cpp's"
    report.table(title, header, rows)
    for backend in ("reference", "cpu"):
        worst = max(max(getattr(one, backend)) for one in found.values())
        report.goal_at_most(f"{backend} beside transformers", 1e6 * worst, 1e6 * TOLERANCE, "millionths", 1)
    compared = {name: one for name, one in found.items() if name not in REASONS and one.same_tokens is not None}
    equal = sum(one.same_tokens == GENERATED for one in compared.values())
    report.goal_true("llama.cpp's greedy tokens", f"{equal} of {len(compared)}", equal == len(compared))


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None, models=())
    cases = CASES | ENCODERS
    parser.add_argument("--family", action="append", choices=list(cases), dest="names", help="repeatable; default: all")
    args = parser.parse_args()
    if not peers.is_installed():
        common.give_up(peers.MISSING)
    transformers.logging.disable_progress_bar()
    report, found = Report("families", "Families: converted, run, and beside transformers and llama.cpp"), {}
    for name in args.names or cases:
        common.note(name)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(cases[name], Path(folder), args.threads)
    add_to(report, found)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
