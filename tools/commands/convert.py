"""`halfbyte convert`: a Hugging Face folder becomes a GGUF file, in the types that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...runtime.hub import hf
from .. import console
from ..progress import ProgressLine
from ..stopping import resumable
from .quantize import override, show, size_of


@click.command()
@click.argument("source")
@click.option("--type", "type_", default="auto", metavar="RECIPE", show_default=True,
              help="Such as Q4_K_M or F16; auto keeps the type that the weights have.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: SOURCE-RECIPE.gguf in this folder.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")
@click.option("--imatrix", type=click.Path(path_type=Path), help="What errors of each column cost (.dat or GGUF).")
@click.option("--search", default="reference", metavar="NAME", help="best: a lower error than llama.cpp's encoders.")
@click.option("--pure", is_flag=True, help="The recipe's own type for every matrix, without exceptions.")
@click.option("--tensor-type", "overrides", multiple=True, metavar="REGEX=TYPE", help="By name; repeatable.")
@click.option("--output-type", metavar="TYPE", help="For output.weight, or the embedding where it is both.")
@click.option("--embedding-type", metavar="TYPE", help="For token_embd.weight.")
@click.option("--split-max-size", metavar="SIZE", help="Begin another file before one has more, such as 2G or 500M.")
@click.option("--allow-nonfinite", is_flag=True, help="Allow NaN and infinity: zero where a type has neither.")
@click.option("--check/--no-check", "self_check", default=None,
              help="Compare what the file predicts with the source. Default: for models up to 100 million weights.")
@click.option("--verify", is_flag=True, help="Read the new file from the disk again before it gets its name.")
@click.option("--threads", type=click.IntRange(1), help="Default: one for each physical core; at most all processors.")
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan and the size, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, with each tensor's type.")
def command(
    source: str,
    type_: str,
    output: Path | None,
    overwrite: bool,
    imatrix: Path | None,
    search: str,
    pure: bool,
    overrides: Sequence[str],
    output_type: str | None,
    embedding_type: str | None,
    split_max_size: str | None,
    allow_nonfinite: bool,
    self_check: bool | None,
    verify: bool,
    threads: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the checkpoint SOURCE as one GGUF file with its weights in the types of a recipe.

    SOURCE is a folder with config.json, a tokenizer, and weights as safetensors or PyTorch archives; hf:OWNER/REPO,
    which is downloaded first; or a GGUF file. Nothing in it is run, only rows of it are held in memory, and the output
    appears when it is complete. After an interruption or a full disk the same command goes on where it stopped.
    """
    from ...converters.convert import AUTO, convert, default_target, stored_recipe

    with ProgressLine() as progress:
        path = hf.fetch_checkpoint(source, progress=progress, cancel=None) if source.startswith("hf:") else Path(source)
        if output is None and type_ == AUTO:
            type_ = stored_recipe(path)
        target = output or default_target(path, type_.upper())
        with resumable(target, progress):
            made = convert(
                path, target, type_, self_check=self_check, dry_run=dry_run, progress=progress, importance=imatrix,
                search=search, pure=pure, overrides=[override(text) for text in overrides], output_type=output_type,
                embedding_type=embedding_type, split_max_bytes=size_of(split_max_size),
                allow_nonfinite=allow_nonfinite, overwrite=overwrite, resume=True, verify=verify, threads=threads,
            )  # fmt: skip
    check = made.check
    about: dict[str, Any] = {"architecture": made.architecture, "check": None if check is None else vars(check)}
    if check is not None:
        console.note(
            f"checked: KL {check.kl_mean:.5f} (at most {check.kl_max:.4f}) nats a token, the same likeliest token for "
            f"{100 * check.same_top:.0f} % of {check.n_tokens}"
            + (f"; the same tokens for {check.n_texts} texts" if check.same_tokens == 1 else "")
        )
    show(made.summary, made.recipe, dry_run=dry_run, as_json=as_json, more=about)
