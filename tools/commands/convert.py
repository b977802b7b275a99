"""`halfbyte convert`: a Hugging Face folder becomes a GGUF file, in the types that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import console
from ..progress import ProgressLine
from ..stopping import resumable
from ..writing import chosen_writing, writing_options
from .quantize import show

if TYPE_CHECKING:
    from ...converters.selfcheck import Check


@click.command()
@click.argument("source")
@click.option("--type", "type_", default="auto", metavar="RECIPE", show_default=True,
              help="Such as Q4_K_M or F16; auto keeps the type that the weights have.")
@writing_options
@click.option("--verify/--no-verify", default=None,
              help="Compare what the file predicts with the source. Default: for models up to 500 million weights.")
@click.option("--allow-requantize", is_flag=True, help="Of a GGUF file, allow weights that are quantized already.")
def command(
    source: str,
    type_: str,
    output: Path | None,
    allow_requantize: bool,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Write the checkpoint SOURCE as one GGUF file with its weights in the types of a recipe.

    SOURCE is a folder with config.json, a tokenizer, and weights as safetensors or PyTorch archives; a GGUF file;
    hf:OWNER/REPO or hf:OWNER/REPO/FILE.gguf, which is downloaded first. Nothing in it is run, only rows of it are held
    in memory, and the output appears when it is complete. After an interruption or a full disk the same command goes on
    where it stopped.
    """
    from ...converters.convert import Conversion, local

    with ProgressLine() as progress:
        path = local(source, progress=progress, cancel=None, note=lambda text: console.note(f"note: {text}"))
        with Conversion(path, output, type_) as conversion, resumable(conversion.target, progress):
            writing = chosen_writing(values) | {"allow_requantize": allow_requantize}
            made = conversion.run(dry_run=dry_run, resume=True, progress=progress, **writing)
    check = made.check
    about: dict[str, Any] = {"architecture": made.architecture, "check": None if check is None else vars(check),
                             "warnings": list(made.warnings)}  # fmt: skip
    for warning in made.warnings:
        console.note(f"note: {warning}")
    if check is not None:
        console.note(f"checked: {_told(check)}")
    show(made.summary, made.recipe, dry_run=dry_run, as_json=as_json, more=about)


def _told(check: Check) -> str:
    """What a check found, in a line."""
    if check.cosine is None:
        told = (
            f"KL {check.kl_mean:.5f} (at most {check.kl_max:.4f}) nats a token, the same likeliest token for "
            f"{100 * (check.same_top or 0):.0f} % of {check.n_tokens}"
        )
    else:
        told = f"vectors of {check.n_tokens} tokens with a mean cosine of {check.cosine:.5f}"
    return f"{told}; the same tokens for {check.n_texts} texts" if check.same_tokens is not None else told
