"""`halfbyte verify`: is a model what a manifest says?"""

from __future__ import annotations

from pathlib import Path

import click

from ...formats.errors import ModelFileError
from ...formats.gguf import GGUFFile
from ...runtime import hub
from .. import console
from ..hashes import hash_model
from ..manifest import Difference, compare, read_manifest
from ..progress import ProgressLine


@click.command()
@click.argument("model")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(model: str, manifest: Path, as_json: bool) -> None:
    """Compare MODEL's weights with the hashes in MANIFEST, made by `halfbyte hash` or llama-gguf-hash.

    Prints every tensor that differs, is missing from the model, or is not in the manifest; exit code 3 if there is one.
    """
    with ProgressLine() as progress, GGUFFile.open(hub.resolve(model, progress=progress)) as file:
        algorithm, expected = read_manifest(manifest, model)
        found = compare(expected, hash_model(file, [algorithm], with_tensors=any(expected), progress=progress))
    if as_json:
        about = {"model": model, "algorithm": algorithm, "equal": not found, "whole": found.whole}
        console.write_json(
            {**about, "differs": found.differs, "missing": found.missing, "extra": found.extra}, indent=2
        )  # fmt: skip
    else:
        _show(found)
    if found:
        raise ModelFileError(f"not what {manifest} says", path=file.path)
    if not as_json:
        n_tensors = len(expected) - ("" in expected)
        what = f"{n_tensors} tensors" if n_tensors else "the model"
        console.say(f"{what} equal, {algorithm}")


def _show(found: Difference) -> None:
    for word, names in (("differs", found.differs), ("missing", found.missing), ("extra", found.extra)):
        for name in names:
            console.say(f"{word}  {name}")
    if found.whole is False:
        console.say("differs  (the whole model)")
