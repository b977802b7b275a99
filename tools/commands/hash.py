"""`halfbyte hash`: a manifest of a model's weights."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ...formats.gguf import GGUFFile
from ...runtime import hub
from .. import console
from ..escape import one_line
from ..hashes import ALGORITHMS, hash_model
from ..progress import ProgressLine


@click.command()
@click.argument("model")
@click.option(
    "--algorithm", "algorithms", type=click.Choice([*ALGORITHMS]), multiple=True, default=["sha256"], show_default=True,
    help="Repeatable.",
)  # fmt: skip
@click.option("--no-tensors", is_flag=True, help="Only the hash of the whole model.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(model: str, algorithms: Sequence[str], no_tensors: bool, as_json: bool) -> None:
    """Print the hashes of MODEL's weights: of each tensor, then of all together.

    They do not depend on metadata, and not on how the model is split. The lines are those of llama-gguf-hash; `halfbyte
    verify` compares a model with them.
    """
    names = [*dict.fromkeys(algorithms)]
    tensors: dict[str, dict[str, str]] = {}
    with ProgressLine() as progress, GGUFFile.open(hub.resolve(model, progress=progress)) as file:
        for one in hash_model(file, names, with_tensors=not no_tensors, progress=progress):
            tensors.setdefault(one.tensor, {})[one.algorithm] = one.digest
            if not as_json:
                progress.clear()
                console.say(one_line(one.line(model)))
    if as_json:
        whole = tensors.pop("")
        console.write_json({"model": model, **whole, **({} if no_tensors else {"tensors": tensors})}, indent=2)
