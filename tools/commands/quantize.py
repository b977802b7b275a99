"""`halfbyte quantize`: a model with smaller weights."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...formats.errors import InvalidRequest
from ...runtime import hub
from .. import console
from ..progress import ProgressLine
from ..stopping import resumable
from ..writing import chosen_writing, writing_options

if TYPE_CHECKING:
    from ...converters.quantize import Planned, Summary


@click.command()
@click.argument("model")
@click.argument("recipe")
@writing_options
@click.option("--verify", is_flag=True, help="Read the new file from the disk again before it gets its name.")
@click.option("--keep-output", is_flag=True, help="Leave output.weight as it is.")
@click.option("--nf4-as", type=click.Choice(("native", "q8_0-reversible", "bf16")), default="native",
              help="How NF4 and FP4 are stored; other programs run all but native.")
@click.option("--allow-requantize", is_flag=True, help="Allow weights that are quantized already: they lose twice.")
@click.option("--prune-layers", metavar="NUMBERS", help="Leave these layers out, such as 20,21. The others move up.")
@click.option("--keep-split", is_flag=True, help="A file for each one of a split MODEL, with the same tensors.")
@click.option("--split-max-tensors", type=click.IntRange(1), help="Begin another file after so many tensors.")
def command(
    model: str,
    recipe: str,
    output: Path | None,
    keep_output: bool,
    nf4_as: str,
    allow_requantize: bool,
    prune_layers: str | None,
    keep_split: bool,
    split_max_tensors: int | None,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Write MODEL with its weights in the types of RECIPE, such as Q4_K_M.

    Tensors get the types that llama.cpp's recipe of that name gives them, and the bytes of its encoders unless another
    --search is named. NF4, NF4_DQ, FP4 and INT8 are types of bitsandbytes, in blocks of 64 or as many as NF4:128 says.
    The source is never touched, and the output appears under its name when it is complete. After an interruption or a
    full disk the same command goes on where it stopped.
    """
    from ...converters.naming import quantized_name
    from ...converters.quantize import quantize, recipe_named

    full_name, _ = recipe_named(recipe)
    with ProgressLine() as progress:
        source = hub.resolve(model, progress=progress)
        target = output or Path(quantized_name(source, full_name))
        with resumable(target, progress):
            summary = quantize(
                source, target, full_name, keep_output=keep_output, nf4_as=nf4_as, allow_requantize=allow_requantize,
                prune_layers=_numbers(prune_layers), keep_split=keep_split, split_max_tensors=split_max_tensors,
                dry_run=dry_run, resume=True, progress=progress, **chosen_writing(values),
            )  # fmt: skip
    show(summary, full_name, dry_run=dry_run, as_json=as_json)


def show(summary: Summary, recipe: str, *, dry_run: bool, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """What was written, or would be. `more` goes into the JSON."""
    for remark in remarks(summary):
        console.note(remark)
    about = describe(summary.tensors, recipe)
    if as_json:
        files = [{"path": str(path), "bytes": size} for path, size in summary.files]
        made = None if dry_run else str(summary.path)
        tensors = _tensors(summary.tensors)
        console.write_json({"output": made, "files": files, **about, **(more or {}), "tensors": tensors})
        return
    console.write_table(_rows(about))
    console.say(f"{about['bytes_before'] / 1e6:,.1f} MB -> {about['bytes_after'] / 1e6:,.1f} MB, "
                f"{about['bits_per_weight']:.2f} bits per weight")  # fmt: skip
    for path, size in summary.files if dry_run or len(summary.files) > 1 else ():
        console.say(f"{path}: {size:,} bytes")
    if not dry_run:
        console.say(str(summary.path))


def remarks(summary: Summary) -> list[str]:
    """What somebody may not have wanted."""
    found, changed = [], [one for one in summary.tensors if not one.is_copied]
    twice = sum(one.tensor.type.block_size > 1 for one in changed)
    if twice:
        found.append(f"warning: {twice} tensors were quantized already; a model made of them is worse than one that is "
                     "made of the original weights")  # fmt: skip
    if unfit := [one for one in changed if one.reason.startswith("rows of")]:
        found.append(f"note: {len(unfit)} tensors got another type than the recipe's: {unfit[0].reason}")
    if searched := [one for one in changed if one.search]:
        found.append(f"note: {len(searched)} of {len(changed)} tensors are searched ({searched[0].search}): they are "
                     "not llama.cpp's bytes, and have a lower error")  # fmt: skip
    found += [f"note: {sentence}" for sentence in summary.without_effect]
    if unknown := summary.without_importance:
        found.append(f"note: the importance matrix says nothing of {len(unknown)} matrices, {unknown[0]} among them")
    return found


def _numbers(text: str | None) -> list[int]:
    numbers = [] if text is None else text.split(",")
    if not all(re.fullmatch(r"\d{1,9}", number, re.ASCII) for number in numbers):
        raise InvalidRequest(f"--prune-layers {text!r} is not a list of layers, such as 20,21")
    return [int(number) for number in numbers]


def describe(planned: Sequence[Planned], recipe: str) -> dict[str, Any]:
    """Sizes, and how many tensors of which types, as JSON has them."""
    types: dict[str, dict[str, int]] = defaultdict(lambda: {"tensors": 0, "weights": 0, "bytes": 0})
    for one in planned:
        row = types[one.type.name]
        row["tensors"] += 1
        row["weights"] += one.tensor.n_elements
        row["bytes"] += one.n_bytes
    before, after = sum(one.tensor.n_bytes for one in planned), sum(one.n_bytes for one in planned)
    weights = sum(one.tensor.n_elements for one in planned)
    return {
        "recipe": recipe, "bytes_before": before, "bytes_after": after,
        "bits_per_weight": 8 * after / weights if weights else 0.0, "types": dict(types),
    }  # fmt: skip


def _tensors(planned: Sequence[Planned]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name, "shape": list(one.tensor.shape), "before": one.tensor.type.name,
            "after": one.type.name, "bytes": one.n_bytes, "reason": one.reason,
            "search": one.search,
        }
        for one in planned
    ]  # fmt: skip


def _rows(about: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = [("TYPE", "TENSORS", "WEIGHTS", "MB")]
    for name, row in sorted(about["types"].items(), key=lambda item: -item[1]["bytes"]):
        rows.append((name, f"{row['tensors']}", f"{row['weights']:,}", f"{row['bytes'] / 1e6:,.1f}"))
    return rows
