"""Accuracy beside llama.cpp: both against the float32 reference on the same file, and their perplexities and texts.

    python -m benchmarks.accuracy
    python -m benchmarks.accuracy --model path/to/model.gguf

llama.cpp runs with keys and values in float16, its default, and with flash attention off.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import halfbyte
import numpy as np
from halfbyte.tools.perplexity import Estimate, cut_windows, score
from numpy.typing import NDArray

from . import common
from .agreement import EQUAL, NEAR, OURS_OFF, Agreement, compare
from .divergence import Divergence, divergence
from .engines import MAX_TOKENS, Engine, Ours, step_by_step
from .peers import LlamaCpp
from .prompts import PROMPTS
from .reference import reference_logits
from .report import Report
from .widened import widened

WINDOW = MAX_TOKENS  # llama.cpp's window for perplexity
MIN_SCORED = 3000
MAX_PPL_DIFFERENCE = 0.5  # per cent


@dataclass(frozen=True)
class Result:
    """One model: divergences from the reference by program and form of the steps, perplexities, texts."""

    model: str
    same_ids: bool  # both tokenize the text alike
    ours: dict[str, Divergence]  # in one prompt, and token by token: these have different kernels
    theirs: dict[str, Divergence]
    our_ppl: Estimate
    their_ppl: Estimate
    texts: list[Agreement]
    exact_texts: list[Agreement]  # beside llama.cpp with the same weights as float32

    @property
    def ppl_difference(self) -> float:
        """Per cent."""
        return 100 * (self.our_ppl.ppl / self.their_ppl.ppl - 1)


def measure(name: str, path: Path, args: argparse.Namespace) -> Result:
    """Everything about one model."""
    common.note(f"measuring {name}")
    text = common.TEXT.read_text(encoding="utf-8")
    context = max(WINDOW, args.gen_tokens + 128)
    with halfbyte.Model.load(path, threads=args.threads, context=context, backend=args.backend, parallel=1) as model:
        ids = model.tokenize(text, parse_special=False)
        windows = _windows(model, ids)
        reference = reference_logits(path, ids[:WINDOW])
        ours = Ours(path, context=context, threads=args.threads, backend=args.backend)
        theirs = LlamaCpp(path, context=context, threads=args.threads, flash_attention="off")
        exact = LlamaCpp(widened(path), context=context, threads=args.threads, flash_attention="off")
        result = Result(
            model=name,
            same_ids=ids == theirs.tokenize(text),
            ours=divergences(ours, ids[:WINDOW], reference),
            theirs=divergences(theirs, ids[:WINDOW], reference),
            our_ppl=perplexity(ours, windows),
            their_ppl=perplexity(theirs, windows),
            texts=[compare(model, ours, theirs, prompt, args.gen_tokens) for prompt in PROMPTS],
            exact_texts=[compare(model, ours, exact, prompt, args.gen_tokens) for prompt in PROMPTS],
        )
        for engine in (ours, theirs, exact):
            engine.close()
    return result


def divergences(engine: Engine, ids: Sequence[int], reference: NDArray[np.float32]) -> dict[str, Divergence]:
    """In one prompt, and token by token."""
    return {
        "prompt": divergence(reference, engine.logits(ids)),
        "token by token": divergence(reference, step_by_step(engine, ids)),
    }


def _windows(model: halfbyte.Model, ids: Sequence[int]) -> list[list[int]]:
    """As many windows of the text as score at least MIN_SCORED tokens."""
    scored = WINDOW - 1 - WINDOW // 2
    needed = -(-MIN_SCORED // scored)
    bos = model.tokenizer.bos_id if model.tokenizer.add_bos else None
    windows = list(cut_windows(ids, WINDOW, bos))[:needed]
    if len(windows) < needed:
        common.give_up(f"{common.TEXT.name} has {len(ids)} tokens for this model, {needed * WINDOW} are needed")
    return windows


def perplexity(engine: Engine, windows: Sequence[Sequence[int]]) -> Estimate:
    """By llama.cpp's definition; see tools/perplexity.py."""
    estimate = Estimate()
    for window in windows:
        estimate.add(score(engine.logits(window), window))
    return estimate


def add_to(report: Report, results: Sequence[Result]) -> None:
    _add_divergences(report, results)
    _add_perplexities(report, results)
    for result in results:
        _add_texts(report, result)
        report.data[result.model] = as_json(result)


def as_json(result: Result) -> dict[str, object]:
    ppl = {"halfbyte": result.our_ppl, "llama_cpp": result.their_ppl}
    return {
        "divergence": {
            who: {form: asdict(d) for form, d in forms.items()}
            for who, forms in (("halfbyte", result.ours), ("llama_cpp", result.theirs))
        },
        "perplexity": {who: {"ppl": e.ppl, "error": e.error, "tokens": e.n_tokens} for who, e in ppl.items()},
        "same_tokens": result.same_ids,
        "texts": [{**asdict(text), "verdict": text.verdict} for text in result.texts],
        "exact_texts": [{**asdict(text), "verdict": text.verdict} for text in result.exact_texts],
    }


def _add_divergences(report: Report, results: Sequence[Result]) -> None:
    rows = []
    for r in results:
        for form, ours in r.ours.items():
            theirs, what = r.theirs[form], f"{r.model}, {form}"
            for who, d in (("Halfbyte", ours), ("llama.cpp", theirs)):
                agreement = f"{100 * d.agreement:.1f} %"
                rows.append((r.model, form, who, f"{d.mean_kl:.5f}", f"{d.kl_99:.5f}", agreement))
            report.goal_at_most(f"{what}: mean KL, no worse than llama.cpp's", ours.mean_kl, theirs.mean_kl, "", 5)
            report.goal_at_most(f"{what}: mean KL, half of llama.cpp's", ours.mean_kl, theirs.mean_kl / 2, "", 5)
            report.goal_at_least(f"{what}: same top token", 100 * ours.agreement, 100 * theirs.agreement, "%", 1)
    title = f"Against the float32 reference on the same file, {WINDOW} tokens of running text"
    report.table(title, ("Model", "Steps", "Program", "Mean KL", "99 % KL", "Same top token"), rows)


def _add_perplexities(report: Report, results: Sequence[Result]) -> None:
    rows = []
    for r in results:
        ours, theirs = r.our_ppl, r.their_ppl
        rows.append(
            (
                r.model,
                f"{ours.ppl:.4f} +- {ours.error:.4f}",
                f"{theirs.ppl:.4f} +- {theirs.error:.4f}",
                f"{r.ppl_difference:+.3f} %",
                str(ours.n_tokens),
                "yes" if r.same_ids else "**no**",
            )
        )
        what = f"{r.model}: perplexity, difference from llama.cpp's"
        report.goal_at_most(what, abs(r.ppl_difference), MAX_PPL_DIFFERENCE, "%", 3)
        report.goal_true(f"{r.model}: the same tokens of the text", "yes" if r.same_ids else "no", r.same_ids)
    header = ("Model", "Halfbyte", "llama.cpp", "Difference", "Tokens scored", "Same tokens")
    report.table(f"Perplexity of benchmarks/text.txt, windows of {WINDOW}", header, rows)


def _add_texts(report: Report, result: Result) -> None:
    """Beside llama.cpp, which rounds what quantized weights are multiplied with, and where it rounds nothing."""
    pairs = list(zip(result.texts, result.exact_texts, strict=True))
    rows = [(_short(a.prompt), _shown(a), _shown(exact), _short(a.text)) for a, exact in pairs]
    header = ("Prompt", "Beside llama.cpp", "Beside llama.cpp, the same weights as float32", "Text")
    report.table(f"Greedy texts of {result.model}", header, rows)
    for texts, where in ((result.texts, ""), (result.exact_texts, ", llama.cpp without rounding")):
        counts = Counter(a.verdict for a in texts)
        close, total = counts[EQUAL] + counts[NEAR], len(texts)
        what = f"{result.model}: texts equal, or apart at a near tie of the reference{where}"
        report.goal_true(what, f"{close} of {total}", close == total)
        near = sum(a.is_close for a in texts)
        what = f"{result.model}: texts equal, or apart at a near tie of either program or the reference{where}"
        report.goal_true(what, f"{near} of {total}", near == total)
        what = f"{result.model}: texts apart by an error of Halfbyte{where}"
        report.goal_at_most(what, counts[OURS_OFF], 0, f"of {total}", 0)


def _shown(a: Agreement) -> str:
    if not a.same_prompt_ids:
        return f"**{a.verdict}**: another tokenization"
    if not a.same_api:
        return f"**{a.verdict}**: Model.generate gives other tokens than the executor"
    if a.parting is None:
        return f"equal, {a.n_tokens} tokens"
    p = a.parting
    gaps = f"Halfbyte {p.our_token} by {p.our_gap:.3f}, llama.cpp {p.their_token} by {p.their_gap:.3f}"
    right = p.our_token if p.true_gap > 0 else p.their_token
    return f"{a.verdict} at token {p.position + 1}: {gaps}, reference {right} by {abs(p.true_gap):.3f}"


def _short(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def main() -> int:
    parser = common.parser(__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--gen-tokens", type=int, default=48, help="length of the greedy texts")
    parser.add_argument("--backend", default="cpu", help="of Halfbyte")
    args = parser.parse_args()
    report = Report("accuracy", "Accuracy beside llama.cpp")
    results = [measure(common.label(name), common.resolve(name), args) for name in common.chosen_models(args)]
    add_to(report, results)
    return report.finish(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
