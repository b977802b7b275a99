"""`halfbyte perplexity`: how well a model predicts a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ...formats.errors import HalfbyteError
from .. import console
from ..options import LoadChoices, open_model, window_options
from ..progress import ProgressLine

DEFAULT_CONTEXT = 512  # llama.cpp's: numbers are comparable only with the same window


@click.command()
@click.argument("model")
@click.option("--text", "text_file", type=click.Path(path_type=Path), required=True, help="UTF-8 text to predict.")
@click.option("--chunks", type=click.IntRange(1), help="Stop after this many windows.")
@window_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(
    model: str,
    text_file: Path,
    chunks: int | None,
    loading: LoadChoices,
    as_json: bool,
) -> None:
    """Measure the perplexity of MODEL on a text, as llama.cpp defines it.

    The text is cut into windows of --context tokens (default 512), and the second half of each is scored. Lower is
    better; numbers compare only with the same text and the same window.
    """
    from ..perplexity import Estimate, check_length, cut_windows, score

    text, window = read_text(text_file), loading.context or DEFAULT_CONTEXT
    estimate = Estimate()
    with open_model(model, replace(loading, context=window)) as loaded, ProgressLine() as progress:
        tokenizer = loaded.tokenizer
        ids = tokenizer.encode(text)
        count = check_length(len(ids), window)
        count = min(count, chunks or count)
        bos = tokenizer.bos_id if tokenizer.add_bos else None
        for number, part in zip(range(1, count + 1), cut_windows(ids, window, bos), strict=False):
            estimate.add(score(loaded.logits(part), part))
            progress(f"perplexity {estimate.ppl:.4f}", number, count)
        name = loaded.name or model
    result = {
        "model": name,
        "ppl": estimate.ppl,
        "error": estimate.error,
        "nll": estimate.nll,
        "tokens": estimate.n_tokens,
        "windows": estimate.windows,
        "context": window,
    }
    if as_json:
        console.write_json(result)
    else:
        console.say(
            f"perplexity {estimate.ppl:.4f} +- {estimate.error:.4f}, {estimate.nll:.5f} nats per token, "
            f"{estimate.n_tokens} tokens in {count} windows of {window}"
        )


def read_text(path: Path) -> str:
    """A text file. HalfbyteError where there is none, or it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise HalfbyteError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise HalfbyteError(f"{path}: is not UTF-8 text (byte {error.start:,}); convert it first") from error
