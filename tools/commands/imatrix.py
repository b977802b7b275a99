"""`halfbyte imatrix`: what each column of a model's matrices is multiplied with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...formats.errors import InvalidRequest, UnsupportedError
from ...formats.gguf import GGUFFile
from .. import console
from ..options import LoadChoices, open_model
from ..progress import ProgressLine
from ..writing import FilePath
from .perplexity import DEFAULT_CONTEXT, read_text

if TYPE_CHECKING:
    from ...converters.imatrix import Sums

SAVE_EVERY = 10  # windows


@click.command()
@click.argument("model")
@click.argument("text", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=FilePath(), help="Default: MODEL.imatrix.gguf in this folder.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of this model and text has saved.")
@click.option("--merge", type=click.Path(path_type=Path), multiple=True, help="Add what another run found; repeatable.")
@click.option("--chunks", type=click.IntRange(1), help="Stop after this many windows of the text.")
@click.option("--context", type=click.IntRange(4), default=DEFAULT_CONTEXT, show_default=True, help="Tokens a window.")
@click.option("--process-output", is_flag=True, help="Include the matrix that gives the logits.")
@click.option("--threads", type=click.IntRange(1), help="Default: one for each physical core.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(
    model: str,
    text: Path,
    output: Path | None,
    overwrite: bool,
    resume: bool,
    merge: Sequence[Path],
    chunks: int | None,
    context: int,
    process_output: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the importance of the columns of MODEL's matrices on a TEXT, for `halfbyte quantize --imatrix`.

    Run the model that is to be quantized, not a quantized one, over text like that which it is for. The file has
    llama.cpp's form: GGUF, or the older one if its name ends with .dat. It appears when all is done; what an unfinished
    run has found is in OUTPUT.sums.partial, which --resume goes on with.
    """
    from ...converters.imatrix import Sums, collect, is_dat
    from ...converters.paths import check_targets
    from ...runtime.backends.cpu.executor import CPUExecutor
    from ..perplexity import check_length, cut_windows

    target, words = output or Path(f"{Path(model).name.removesuffix('.gguf')}.imatrix.gguf"), read_text(text)
    saved = target.with_name(f"{target.name}.sums.partial")
    for path in (saved, target):
        if path.exists() and not (overwrite or resume):
            raise InvalidRequest(f"{path} exists; --resume it, give another --output, or --overwrite")
    begun = saved if saved.exists() else target
    if resume and is_dat(begun):
        raise InvalidRequest(f"{begun}: files of the form .dat do not say what they are of; --resume needs GGUF")
    others = {path: Sums.read(path, rows_per_call=context) for path in merge}
    with open_model(model, LoadChoices(threads, context, "cpu")) as loaded, ProgressLine() as progress:
        check_targets([target, saved], [loaded.path, text])
        check_targets([saved], merge)
        _check_merged(others, loaded.path)
        if not isinstance(loaded.executor, CPUExecutor):
            raise UnsupportedError("an importance matrix is made by the CPU backend")
        sums = Sums([text.name], chunk_size=context, origin=_origin(loaded.path, words, context, process_output))
        if resume and begun.exists():
            sums = _begun(begun, sums)
        ids = loaded.tokenizer.encode(words)
        count = min(check_length(len(ids), context), chunks or len(ids))
        bos = loaded.tokenizer.bos_id if loaded.tokenizer.add_bos else None
        if sums.chunks > count:
            console.note(f"note: {begun} has {sums.chunks} windows already, more than the {count} that are asked for")
        windows = list(cut_windows(ids, context, bos))[sums.chunks : count]

        def after(found: Sums) -> None:
            progress("looking at inputs", found.chunks, count)
            if found.chunks % SAVE_EVERY == 0:
                found.write(saved, exact=True)

        collect(loaded.executor, windows, sums, process_output=process_output, after=after)
    for other in others.values():
        sums.merge(other)
        sums.origin = ""
    sums.write(target)
    saved.unlink(missing_ok=True)
    unused = sums.unused()
    if unused:
        most = max(unused, key=lambda name: unused[name])
        console.note(f"note: {sum(unused.values())} experts of {len(unused)} matrices were never asked, {unused[most]} "
                     f"of {most}; their columns count alike. A longer text of more kinds reaches more")  # fmt: skip
    about = {
        "output": str(target), "chunks": sums.chunks, "context": context, "tensors": len(sums.squares),
        "unused_experts": sum(unused.values()),
    }  # fmt: skip
    if as_json:
        console.write_json(about)
    else:
        console.say(f"{about['tensors']} matrices, {about['chunks']} windows of {context} tokens")
        console.say(str(target))


def _origin(model: Path, text: str, context: int, process_output: bool) -> str:
    """A checksum of all that the sums of a run depend on."""
    from ...converters.identity import identity_of

    with GGUFFile.open(model) as file:
        about = (identity_of(file.paths), text, context, process_output)
    return hashlib.sha256(repr(about).encode("utf-8", "surrogateescape")).hexdigest()


def _check_merged(others: Mapping[Path, Sums], model: Path) -> None:
    """InvalidRequest for sums of another model, before the long run to which they would be added."""
    with GGUFFile.open(model) as file:
        for path, sums in others.items():
            for name, squares in sums.squares.items():
                tensor = file.tensors.get(name)
                wanted = squares.size if tensor is None else tensor.ne[0] * math.prod(tensor.ne[2:])
                if squares.size != wanted:
                    raise InvalidRequest(
                        f"{path} has {squares.size} numbers for {name!r}, not {wanted}: it is of another model"
                    )


def _begun(target: Path, wanted: Sums) -> Sums:
    """What an interrupted run of the same has saved."""
    from ...converters.imatrix import Sums

    sums = Sums.read(target)
    if sums.origin != wanted.origin:
        raise InvalidRequest(f"{target} is of another model, text or window, or was merged: it cannot be gone on with")
    return sums
