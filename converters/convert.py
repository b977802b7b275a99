"""A Hugging Face folder becomes a GGUF file in one pass: read, checked, quantized, written row by row.

    checkpoint/   the folder: config.json, tokenizer, weights as views of mapped files
    families/     GGUF names and keys, and what happens to tensors
    vocab/        the tokenizer as metadata
    source.py     all of it as a model that is not written yet
    quantize/     its plan, its encoders, its journal: what is written, and how work that was stopped goes on
    selfcheck.py  whether the written file predicts what the checkpoint does
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..formats.errors import InvalidRequest, ModelFileError, TokenizerError
from ..formats.gguf import GGMLType, GGUFFile, hollow
from ..runtime.backends.base import CancelFlag, Progress
from ..runtime.hub import hf
from ..runtime.hub.types import no_progress
from ..runtime.models import build_model
from ..runtime.tokenize import tokenizer_from_metadata
from .card import card_keys, sampling_keys
from .checkpoint import Checkpoint, CheckpointError
from .config import Config
from .families import family_of
from .families.family import MIXED, Family
from .naming import converted_name, quantized_name, size_label
from .quantize import Inspection, Summary, quantize
from .quantize.architecture import Architecture
from .rows import Rows, computed
from .selfcheck import Check, can_be_checked, check, compare_tokens, is_small, keys_for, require_checkable
from .source import SourceModel, SourceTensor, tensor
from .vocab import unusable_templates, vocabulary

AUTO = "auto"  # the type that most of the checkpoint's weights have


@dataclass(frozen=True)
class Converted:
    """What a conversion did, or would do. `check` is what the written file predicts, None where it was not asked;
    `warnings` are of parts that are in the file and cannot be used, and of a hub that could not be asked for news.
    """

    summary: Summary
    architecture: str
    recipe: str
    check: Check | None
    warnings: tuple[str, ...] = ()


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    type: str = AUTO,
    *,
    verify: bool | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    cancel: CancelFlag | None = None,
    **options: Any,
) -> Converted:
    """Write the checkpoint `source` to the GGUF file `target`.

    source      a folder; a GGUF file; `hf:OWNER/REPO` or `hf:OWNER/REPO/FILE.gguf`, with `@REVISION` or without, which
                is downloaded first
    type        a recipe of `quantize`, such as "Q4_K_M", "F16" or "NF4"; "auto" keeps the type the weights have
    target      default: named as `converted_name` says, in the working directory
    verify      read the new file from the disk again, run prompts through the source's weights and through the file,
                and refuse one that predicts something else; None: of models that are so small that it takes seconds,
                and that this version runs, which a GGUF file need not be. Tokens of a checkpoint are compared with its
                library's unless this is False
    options     what else `quantize` takes: importance, search, overrides, split_max_bytes, resume, threads, ...

    Nothing but rows of the source is held in memory. It is only read, nothing in it is run, and `target` appears when
    it is complete.

    Raises DownloadError; CheckpointError and UnsupportedError that name file and field, before anything is written; and
    what `quantize` raises.
    """
    notes: list[str] = []
    path = local(source, progress=progress or no_progress, cancel=cancel, note=notes.append)
    with Conversion(path, target, type) as conversion:
        made = conversion.run(verify=verify, dry_run=dry_run, progress=progress, cancel=cancel, **options)
    return replace(made, warnings=(*notes, *made.warnings))


def local(
    source: str | os.PathLike[str], *, progress: Progress, cancel: CancelFlag | None, note: Callable[[str], None]
) -> Path:
    """The folder or file of that name; what is on the hub is downloaded. `note` is told what is not as usual.

    An empty name is none: it would be the working folder. Raises InvalidRequest, DownloadError, Cancelled.
    """
    name = os.fspath(source)
    if not name:
        raise InvalidRequest("the name of the source is empty")
    if name.startswith("hf:") and hf.names_a_file(name):
        return hf.fetch(hf.parse(name), progress=progress, cancel=cancel)
    if name.startswith("hf:"):
        return hf.fetch_checkpoint(name, progress=progress, cancel=cancel, note=note)
    return Path(name)


class Conversion:
    """A source that is open and was checked, what it becomes, and where. Run it once; close it, or use it as a context.

    Its arguments and errors are those of `convert`, of which `path` is what `local` found.
    """

    def __init__(self, path: Path, target: str | os.PathLike[str] | None = None, type: str = AUTO) -> None:
        self._model = GGUFFile.open(path) if path.is_file() else open_checkpoint(path)
        try:
            self.recipe = _stored_type(self._model) if type == AUTO else type
            self.target = Path(target or _default_name(self._model, self.recipe))
        except BaseException:
            self.close()
            raise

    def run(self, *, verify: bool | None = None, progress: Progress | None = None, **options: Any) -> Converted:
        """Write the file, see `convert`."""
        model, found = self._model, list[Check]()
        if isinstance(model, SourceModel) and options.get("keep_split"):
            raise InvalidRequest("shards of a checkpoint are not kept (keep_split): split_max_bytes makes new ones")
        if verify is None:
            verify = is_small(model) and (isinstance(model, SourceModel) or can_be_checked(model))
            if isinstance(model, SourceModel) and not verify:  # tokens are compared in no time, whatever its size
                compare_tokens(model, model)
        if verify:
            require_checkable(model)
        inspection = _inspection(model, found, progress) if verify else None
        summary = quantize(
            model, self.target, self.recipe, verify=verify, inspection=inspection, progress=progress, **options
        )
        architecture = model.metadata.require("general.architecture", str)
        warnings = unusable_templates(model.metadata) if isinstance(model, SourceModel) else ()
        return Converted(summary, architecture, self.recipe, found[0] if found else None, warnings)

    def close(self) -> None:
        """Release the source's files."""
        self._model.close()

    def __enter__(self) -> Conversion:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _inspection(model: GGUFFile, found: list[Check], progress: Progress | None) -> Inspection:
    """The check of a finished file, which adds what it finds to `found`."""

    def look(partial: Path) -> Mapping[str, float]:
        found.append(check(model, partial, progress=progress))
        return found[0].keys()

    return Inspection(keys_for(model), look)


def _default_name(model: GGUFFile, recipe: str) -> str:
    if isinstance(model, SourceModel):
        return converted_name(model.metadata, model.path, recipe)
    return quantized_name(model.path, recipe)


def open_checkpoint(path: Path) -> SourceModel:
    """The model that a folder holds, checked by the graph that will run it. Close it.

    Raises CheckpointError, UnsupportedError, and ModelFileError where shapes contradict config.json.
    """
    checkpoint = Checkpoint.open(path)
    try:
        family, config = family_of(checkpoint)
        made = family.tensors(checkpoint, config)
        keys: dict[str, Any] = {"general.architecture": family.architecture, "general.type": "model"}
        shapes = {name: rows.shape for name, rows in made.items()}
        keys |= {"general.size_label": size_label(shapes)} | card_keys(checkpoint, sum(map(math.prod, shapes.values())))
        keys |= sampling_keys(checkpoint)
        keys |= {f"{family.architecture}.{key}": value for key, value in family.keys(config).items()}
        keys |= family.beside(checkpoint, config) | vocabulary(checkpoint, _vocabulary_rows(family, config, made))
        tensors = {name: tensor(name, rows) for name, rows in made.items()}
        model = _with_wide_tensors(SourceModel(path, checkpoint.sources, keys, tensors, checkpoint.close))
        _check_graph(model, family, config, made)
        _check_tokenizer(model)
    except BaseException:
        checkpoint.close()
        raise
    return model


def _check_graph(model: SourceModel, family: Family, config: Config, made: Mapping[str, Rows]) -> None:
    """Let the graph that will run the model find what is missing or has another shape than config.json says."""
    n_layer = model.metadata.require(f"{family.architecture}.block_count", int)
    layers = [int(found[1]) for name in made if (found := re.match(r"blk\.(\d+)\.", name))]
    if (stored := max(layers, default=-1) + 1) > n_layer:
        raise CheckpointError(
            f"it says {n_layer} layers, and the weights have {stored}", path=config.path, hint=MIXED
        )  # fmt: skip
    try:
        build_model(hollow(model))
    except ModelFileError as error:
        if error.field is None or not error.field.endswith((".weight", ".bias")):
            field = config.field_of(error.field, family.architecture)
            raise CheckpointError(
                error.problem, path=config.path, field=field, got=error.got, allowed=error.allowed, hint=MIXED
            ) from error
        name = made[error.field].origin if error.field in made else f"{model.path}: {family.stored_name(error.field)!r}"
        raise CheckpointError(
            f"{name}: {error.problem} for {error.field!r}", got=error.got, allowed=f"{error.allowed}, by config.json",
            hint=MIXED,
        ) from error  # fmt: skip


def _check_tokenizer(model: SourceModel) -> None:
    """Let the tokenizer that will run find what is wrong with the keys."""
    try:
        tokenizer_from_metadata(model.metadata)
    except TokenizerError as error:
        raise CheckpointError(f"its tokenizer cannot be used: {error}", path=model.path) from error


def _with_wide_tensors(model: SourceModel) -> SourceModel:
    """Vectors, and the small matrices that no recipe touches, as float32: as llama.cpp's converter stores them."""
    kept = Architecture.of(model)
    wide = {
        name: tensor(name, computed(one.made_by, lambda x: x)) if len(one.ne) == 1 or kept.keeps(name) else one
        for name, one in model.tensors.items()
        if isinstance(one, SourceTensor)
    }
    return model.with_tensors(wide)


def _vocabulary_rows(family: Family, config: Config, tensors: Mapping[str, Rows]) -> int:
    """How many tokens the embedding has a row for."""
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        name = family.stored_name("token_embd.weight")
        raise CheckpointError("the token embedding is missing", path=config.path.parent, field=name, hint=MIXED)
    if (stated := config.count("vocab_size")) != embedding.n_rows:
        raise config.refuse("vocab_size", stated, f"{embedding.n_rows}, the rows of {embedding.origin}")
    return stated


def _stored_type(model: GGUFFile) -> str:
    """The recipe that keeps what most weights are stored as. InvalidRequest where there are none."""
    counts: Counter[GGMLType] = Counter()
    for one in model.tensors.values():
        kept = isinstance(one, SourceTensor) and one.made_by.kept
        counts[kept or one.type] += one.n_elements if len(one.ne) > 1 else 0
    if not counts:
        raise InvalidRequest(f"{model.path}: no tensors, and so no type to keep; name one, such as F16")
    return counts.most_common(1)[0][0].name
