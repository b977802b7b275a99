"""Read, encode, write: tensor by tensor in pieces of rows, the next piece being made while this one is written."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...formats.errors import Cancelled, InvalidRequest
from ...formats.gguf import GGMLType, GGUFFile, GGUFTensor, GGUFWriter
from ...formats.gguf.tensors import RowReader
from ...formats.quants import FORMS, CodecError, NotFiniteError, decode
from ...runtime.backends.base import CancelFlag, Progress
from ...runtime.backends.cpu.encode import Encoders
from ...runtime.topology import physical_cores, usable_cpus
from ..identity import identity_of
from ..paths import check_targets
from .checks import ALLOW, check_plan, columns_of, require_finite
from .files import Files
from .importance import Importance, read_importance
from .plan import NATIVE, Choices, Planned, plan, recipe_named
from .prune import changed_metadata
from .searches import REFERENCE, SEARCH_KEY, with_search
from .storage import check_forms, is_own_key, keys_for, stored_pieces, stored_tensors
from .summary import Summary, summarize, without_effect

PIECE_WEIGHTS = 1 << 20  # encoded at once: 4 MB as float32, which stay in the last cache
QUANTIZATION_VERSION = 2  # of ggml's blocks

Job = Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Inspection:
    """A look at a file that is complete: `look` raises to refuse it, or returns numbers that become these keys."""

    keys: tuple[str, ...]
    look: Callable[[Path], Mapping[str, float]]


def quantize(
    source: str | os.PathLike[str] | GGUFFile,
    target: str | os.PathLike[str],
    recipe: str,
    *,
    overrides: Sequence[tuple[str, GGMLType | str]] = (),
    pure: bool = False,
    output_type: GGMLType | str | None = None,
    embedding_type: GGMLType | str | None = None,
    keep_output: bool = False,
    nf4_as: str = NATIVE,
    importance: Importance | str | os.PathLike[str] | None = None,
    search: str = REFERENCE,
    allow_requantize: bool = False,
    allow_nonfinite: bool = False,
    prune_layers: Sequence[int] = (),
    keep_split: bool = False,
    split_max_bytes: int | None = None,
    split_max_tensors: int | None = None,
    overwrite: bool = True,
    dry_run: bool = False,
    resume: bool = False,
    verify: bool = False,
    inspection: Inspection | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    cancel: CancelFlag | None = None,
) -> Summary:
    """Write the model `source` to `target` with its weights in the types of a recipe, such as "Q4_K_M".

    source          a file, or a model that is open: it is closed then
    recipe          one of `RECIPES`: each tensor gets the type that llama.cpp gives it, and the bytes of its encoder
    overrides       (regular expression, type): the first one found in a tensor's name decides
    pure            the recipe's own type for every matrix
    output_type     of output.weight, or of the embedding where it is both; embedding_type: of token_embd.weight
    keep_output     leave output.weight as it is
    nf4_as          how NF4 and FP4 are stored: "native", "q8_0-reversible" or "bf16" (storage.py)
    importance      an imatrix file, or what `read_importance` made of one: what errors of each column cost
    search          "reference": the bytes of llama.cpp's encoders; "best": a lower error, of types with such an encoder
    allow_requantize  allow weights that are quantized already
    allow_nonfinite   weights that are NaN or infinite become zero where a type has neither, and else stay
    prune_layers    leave out the layers of these numbers
    keep_split      a file for each of the source's, with the same tensors: of NAME.gguf, NAME-00001-of-0000N.gguf
    split_max_bytes, split_max_tensors  begin another such file before one has more (bytes are those of tensors)
    overwrite       replace files that are there
    dry_run         plan and check, and write nothing; files that are there are none of its business
    resume          go on with what the same call left when it was stopped, and leave it so when this one is: by Ctrl-C,
                    `cancel`, a full disk or kill -9. The result is the same file
    verify          read the new file from the disk again before it gets its name
    inspection      a look at the complete file before it gets its name, which may refuse it
    threads         at most as many as there are processors; default: one for each physical core
    progress        is told stages "resume" (bytes that are checked), "compile" and "quantize" (bytes of the source)

    The source is only read, and nothing but TARGET.partial (and TARGET.partial.journal, to resume) is written before
    all is done; a file called TARGET is replaced then. Without `resume` an error leaves neither.

    Raises InvalidRequest, GGUFError subclasses, CodecError for weights that a type cannot hold, WriteError,
    ResourceError for a full disk, and Cancelled.
    """
    if threads is not None and threads < 1:
        raise InvalidRequest(f"{threads} threads; at least one is needed")
    if not isinstance(prune_layers, Sequence) or not all(type(layer) is int for layer in prune_layers):
        raise InvalidRequest(f"prune_layers={prune_layers!r}: a list of numbers of layers is needed")
    given, paths = importance, list[Path]()
    if given is not None and not isinstance(given, Importance):
        paths = [Path(given)]
        given = read_importance(given)
    files = Files(keep_split, split_max_bytes, split_max_tensors)
    choices = Choices(
        overrides, pure, output_type, embedding_type, keep_output, given is not None, keep_split, prune_layers, nf4_as
    )  # fmt: skip
    with source if isinstance(source, GGUFFile) else GGUFFile.open(source) as file:
        if file.metadata.get("general.type") == "imatrix":
            raise InvalidRequest(f"{file.path} is an importance matrix, not a model; it goes beside one (importance)")
        planned = with_search(plan(file, recipe, choices), search)
        check_plan(planned, given, allow_requantize=allow_requantize)
        check_forms(planned, nf4_as)
        made_of = _made_of(file, recipe, f"{choices} {search} {allow_nonfinite}", given) if resume else None
        options = files.options(file, planned)
        look = inspection.look if inspection else None
        writer = GGUFWriter(files.named(Path(target)), made_of=made_of, verify=verify, inspect=look, **options)
        file_type = {"general.file_type": recipe_named(recipe)[1].file_type}
        changed = {**file_type, **_origin(given), **changed_metadata(file, prune_layers)}
        changed |= keys_for(planned, file.metadata)
        changed |= dict.fromkeys(inspection.keys if inspection else (), math.nan)
        _declare(writer, file, planned, changed)
        made = {one.path: one.size for one in writer.plan()}
        check_targets(made, [*file.paths, *paths], overwrite=overwrite or dry_run)
        if not dry_run:
            team = min(threads or physical_cores(), usable_cpus())
            checked = partial(progress, "resume") if progress else None
            with _Quantization(planned, given, allow_nonfinite, team, progress, cancel) as work, writer.open(checked):
                for one in planned:
                    if all(writer.is_written(stored.name) for stored in stored_tensors(one)):
                        work.skip(one)
                        continue
                    for name, pieces in stored_pieces(one, work.pieces(one)):
                        if not writer.is_written(name):
                            writer.write_tensor(name, pieces)
                    one.tensor.forget()  # the pages that two pieces shared
    return summarize(made, planned, given, without_effect(planned, choices, search))


def _made_of(file: GGUFFile, recipe: str, options: str, importance: Importance | None) -> dict[str, str]:
    """What decides about the bytes of the new file: half of one is gone on with where all of it is the same."""
    columns = hashlib.sha256()
    for name, values in sorted((importance.columns if importance else {}).items()):
        columns.update(f"{name} {values.dtype} {values.shape} ".encode("utf-8", "surrogateescape"))
        columns.update(values.tobytes())
    return {
        "source": identity_of(file.paths), "recipe": recipe_named(recipe)[0], "choice of options": options,
        "importance matrix": columns.hexdigest(), "version of Halfbyte": __version__,
    }  # fmt: skip


def _declare(writer: GGUFWriter, file: GGUFFile, planned: list[Planned], changed: Mapping[str, Any]) -> None:
    """The new file's metadata, the old one's but for what has changed; and its tensors."""
    own = {"general.quantization_version": QUANTIZATION_VERSION, **changed}
    if searches := {one.search for one in planned if one.search}:
        own[SEARCH_KEY] = searches.pop()
    elif SEARCH_KEY in file.metadata and any(one.is_copied and one.type in FORMS for one in planned):
        own[SEARCH_KEY] = file.metadata[SEARCH_KEY]
    writer.add_all(file.metadata, exclude=[*own, *filter(is_own_key, file.metadata)])
    for key, value in own.items():
        if value is not None:
            writer.add(key, value)
    for one in planned:
        for stored in stored_tensors(one):
            writer.add_tensor(stored.name, stored.shape, stored.type)


def _origin(importance: Importance | None) -> dict[str, str | int]:
    """What a file says about the importance it was made with."""
    if importance is None or not importance.file:
        return {}
    known: dict[str, str | int] = {
        "file": importance.file, "dataset": importance.dataset, "entries_count": len(importance.columns),
        "chunks_count": importance.chunks,
    }  # fmt: skip
    return {f"quantize.imatrix.{key}": value for key, value in known.items() if value}


class _Quantization:
    """Pieces of tensors, in the order of the plan. One thread ahead of whoever writes them."""

    def __init__(
        self,
        planned: list[Planned],
        importance: Importance | None,
        allow_nonfinite: bool,
        threads: int,
        progress: Progress | None,
        cancel: CancelFlag | None,
    ) -> None:
        self._importance, self._allow_nonfinite = importance, allow_nonfinite
        self._progress, self._cancel = progress, cancel
        self._done, self._total = 0, sum(one.tensor.n_bytes for one in planned)
        report = (lambda done, total: progress("compile", done, total)) if progress else None
        changed = [one for one in planned if not one.is_copied]
        kinds = {
            (one.tensor.type, one.type, columns_of(one, importance) is not None, bool(one.search)) for one in changed
        }
        Encoders.prepare(kinds, threads, report)
        self._encoders = Encoders(threads)
        self._ahead = ThreadPoolExecutor(1, "halfbyte-quantize")

    def skip(self, one: Planned) -> None:
        """A tensor that is there already."""
        self._done += one.tensor.n_bytes

    def pieces(self, one: Planned) -> Iterator[NDArray[np.uint8]]:
        """The bytes of a tensor as it will be. What a piece was made of is forgotten once the piece is written."""
        read = 0
        for future, n_bytes in self._one_ahead(self._jobs(one)):
            piece = future.result()
            self._done += n_bytes
            if self._progress:
                self._progress("quantize", self._done, self._total)
            yield piece
            one.tensor.forget(read, read + n_bytes)
            read += n_bytes

    def _one_ahead(self, jobs: Iterable[tuple[Job, int]]) -> Iterator[tuple[Future[NDArray[np.uint8]], int]]:
        """Each job's result to come, when the next job has been started."""
        waiting = None
        for job, n_bytes in jobs:
            if self._cancel:
                raise Cancelled("cancelled while a model was being quantized")
            started = self._ahead.submit(job), n_bytes
            if waiting is not None:
                yield waiting
            waiting = started
        if waiting is not None:
            yield waiting

    def _jobs(self, one: Planned) -> Iterator[tuple[Job, int]]:
        """What makes each piece, and how many bytes of the source it reads. Experts with an importance are apart."""
        tensor = one.tensor
        if not tensor.n_elements:
            return
        columns = None if one.is_copied else columns_of(one, self._importance)
        rows, step = tensor.rows, max(1, PIECE_WEIGHTS // tensor.ne[0])
        each = len(rows) if columns is None else len(rows) // len(columns)
        for begin in range(0, len(rows), each):
            own = None if columns is None else columns[begin // each]
            for first in range(begin, begin + each, step):
                part = slice(first, min(first + step, begin + each))
                encode = partial(self._encoded, one, rows, part, own)
                n_bytes = (part.stop - part.start) * tensor.row_bytes
                yield partial(self._copied, tensor, rows, part) if one.is_copied else encode, n_bytes

    def _copied(self, tensor: GGUFTensor, rows: RowReader, part: slice) -> NDArray[np.uint8]:
        found = rows[part]
        if not self._allow_nonfinite:
            require_finite(tensor, tensor.type, part.start, found)
        return found

    def _encoded(
        self, one: Planned, source: RowReader, part: slice, columns: NDArray[np.float32] | None
    ) -> NDArray[np.uint8]:
        """Some rows in their new type. Errors say which tensor, and which of all its rows."""
        rows, first, where = source[part], part.start, f"{one.tensor.path}: tensor {one.tensor.name!r}"
        try:
            made = self._encoders.transcode(rows, one.tensor.type, one.type, columns, best=bool(one.search))
        except NotFiniteError as error:
            if not self._allow_nonfinite:
                row = first + error.row
                raise NotFiniteError(error.type_name, row, error.column, error.value, where, ALLOW) from None
            weights = np.nan_to_num(decode(rows, one.tensor.type), nan=0.0, posinf=0.0, neginf=0.0)
            made = self._encoders.encode(weights, one.type, columns, best=bool(one.search))
        except CodecError as error:
            raise CodecError(f"{where}: {error}") from None
        if not self._allow_nonfinite and one.type.block_size == 1:  # encoders refuse what no scale can hold
            require_finite(one.tensor, one.type, first, made)
        return made

    def __enter__(self) -> _Quantization:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After Ctrl-C nobody waits for the piece that is being made: with some types that would take seconds."""
        waits = kind is None or issubclass(kind, Exception)
        self._ahead.shutdown(wait=waits, cancel_futures=True)
        if waits:
            self._encoders.close()
