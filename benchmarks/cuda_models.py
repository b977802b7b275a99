"""Parts of benchmarks.cuda about whole models: their speed on the GPU, and any number of their layers there."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGUFFile

from . import common, cuda_torch
from .cuda_device import RECORDED
from .cuda_goals import DECODE, FALLS, LOGITS, PROMPT, TEXT, Board
from .cuda_kernels import bandwidth
from .engines import Ours, greedy

PROMPTS, WARM = 5, 3  # runs of a prompt; steps before one counts: kernels are compiled, launches recorded
TRAINED, RANDOM = "smollm2", "synthetic:Q4_0@1.1b"
IDS = tuple(range(5, 13))


def recorders(engine: Ours) -> list[Any]:
    """Of the parts of a model that are on a GPU."""
    found = (getattr(executor, "recorder", None) for executor in engine.executors)
    return [recorder for recorder in found if recorder is not None]


def launches(engine: Ours) -> str:
    """How the last steps were launched."""
    mine = recorders(engine)
    failures = sorted({recorder.failure for recorder in mine if recorder.failure})
    if failures:
        return f"one by one: {'; '.join(failures)}"
    return RECORDED if mine else "none"


@contextmanager
def one_by_one(engine: Ours) -> Iterator[None]:
    """No recording is used inside."""
    for recorder in recorders(engine):
        recorder.run = lambda _, launches: launches()
    try:
        yield
    finally:
        for recorder in recorders(engine):
            del recorder.run


def token_seconds(engine: Ours, count: int) -> float:
    """The median time of a step of one token with logits, by the host's clock: what whoever asks waits for."""
    times = []
    for number in range(WARM + count):
        begin = time.perf_counter()
        engine.run_each([number % engine.vocab_size])
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM:])


def prompt_seconds(engine: Ours, count: int) -> float:
    """The same for a prompt, with logits after its last token."""
    ids, times = common.random_tokens(count, engine.vocab_size, 1), []
    for _ in range(1 + PROMPTS):
        engine.clear()
        begin = time.perf_counter()
        engine.run(ids)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def model(board: Board, args: argparse.Namespace) -> None:
    """Decode against the bytes of the weights, a prompt against torch's products of the same shapes."""
    path, copied = common.resolve(common.chosen_models(args)[0]), bandwidth(board, args)
    engine = Ours(path, context=args.prompt + WARM + args.generated, threads=args.threads, gpu_layers="all")
    try:
        reading = prompt_seconds(engine, args.prompt)
        behind = token_seconds(engine, args.generated)
        engine.clear()
        token, how = token_seconds(engine, args.generated), launches(engine)
        with one_by_one(engine):
            engine.clear()
            single = token_seconds(engine, args.generated)
    finally:
        engine.close()
    share = engine.work.weight_bytes / token / copied
    board.number(DECODE, share)
    speeds = [f"{1 / seconds:.1f}" for seconds in (token, behind, single)]
    gained = f"{single / token:.2f}" if how == RECORDED else ""
    row = (path.stem, f"{args.prompt / reading:.0f}", speeds[0], f"{share:.0%}", *speeds[1:], gained, how)
    header = (
        "Model", f"Prompt of {args.prompt}, tokens/s", "Decode, tokens/s", "Of the floor", "Behind the prompt",
        "Not recorded", "Recording gains", "Launches",
    )  # fmt: skip
    board.table("A whole model on the GPU", header, [row])
    board.data["model"] = {
        "prompt_seconds": reading, "token_seconds": token, "share": share, "behind_prompt_seconds": behind,
        "not_recorded_seconds": single, "launches": how,
    }  # fmt: skip
    _compare(board, path, args.prompt, reading)


def _compare(board: Board, path: Path, prompt: int, reading: float) -> None:
    """A prompt beside torch."""
    if why := cuda_torch.missing():
        board.missing(PROMPT, why)
        return
    with GGUFFile.open(path) as file:
        left_out = ("token_embd.weight", "output.weight")  # looked up; made for the last token only
        shapes = [t.shape for t in file.tensors.values() if len(t.shape) > 1 and t.name not in left_out]
    if any(len(shape) > 2 for shape in shapes):
        board.missing(PROMPT, "there is no product of torch for a mixture of experts")
        return
    theirs = sum(cuda_torch.seconds(rows, cols, prompt) for rows, cols in shapes)
    board.data["model"]["torch_seconds"] = theirs
    board.note(f"torch's products of these shapes with {prompt} rows in bf16 take {theirs * 1e3:.1f} ms.")
    board.number(PROMPT, theirs / reading)


def offload(board: Board, args: argparse.Namespace) -> None:
    """Logits, text and time with 0, 1, half and all layers on the GPU."""
    path = _offloaded(board, args.offloaded)
    with GGUFFile.open(path) as file:
        layers = int(file.metadata.require(f"{file.metadata.require('general.architecture', str)}.block_count", int))
    rows: list[tuple[str, ...]] = []
    logits, texts, times = [], [], []
    try:
        for count in sorted({0, 1, max(1, layers // 2), layers}):
            engine = Ours(path, context=256 + 2 * args.generated, threads=args.threads, gpu_layers=count)
            try:
                logits.append(np.array(engine.logits(IDS)))
                texts.append(greedy(engine, IDS, args.generated, frozenset()).ids)  # and compiles what steps launch
                times.append(token_seconds(engine, args.generated))  # behind that text
                how = launches(engine)
            finally:
                engine.close()
            error = _error(logits[-1], logits[0])
            apart = _apart(texts[-1], texts[0])
            rows.append((str(count), f"{error:.1e}", apart, f"{times[-1] * 1e3:.2f}", how))
            board.data[f"offload {count}"] = {
                "error": error, "seconds": times[-1], "text": texts[-1], "launches": how,
            }  # fmt: skip
    finally:
        title = f"{path.stem} by layers on the GPU, the others on {args.threads} threads"
        board.table(title, ("Layers", "Logits' error", "Text", "ms a token", "Launches"), rows)
    board.number(LOGITS, max(_error(one, logits[0]) for one in logits))
    same = sum(text == texts[0] for text in texts)
    board.answer(TEXT, f"{same} of {len(texts)}", same == len(texts))
    falls = all(a > b for a, b in itertools.pairwise(times))
    board.answer(FALLS, ", ".join(f"{seconds * 1e3:.2f} ms" for seconds in times), falls)


def _offloaded(board: Board, name: str) -> Path:
    """A trained model where one can be had: of random weights two tokens are often nearly as likely as each other."""
    try:
        return common.resolve(name)
    except SystemExit:
        if name != TRAINED:
            raise
    board.note(f"{TRAINED} cannot be had here: layers of a model with random weights move, and its texts part easily.")
    return common.resolve(RANDOM)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest logit."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _apart(text: Sequence[int], expected: Sequence[int]) -> str:
    same = next((i for i, (a, b) in enumerate(zip(text, expected, strict=True)) if a != b), len(expected))
    return "the same" if same == len(expected) else f"parts after {same} tokens"
