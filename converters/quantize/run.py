"""Read, encode, write: tensor by tensor in pieces of rows, the next piece being made while this one is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import Cancelled, InvalidRequest
from ...formats.gguf import GGMLType, GGUFFile, GGUFTensor, GGUFWriter
from ...formats.quants import CodecError, NotFiniteError
from ...runtime.backends.base import CancelFlag, Progress
from ...runtime.backends.cpu.encode import Encoders
from ...runtime.topology import physical_cores, usable_cpus
from .importance import Importance, read_importance
from .plan import Choices, Planned, as_type, plan, recipe_named

PIECE_WEIGHTS = 1 << 20  # encoded at once: 4 MB as float32, which stay in the last cache
QUANTIZATION_VERSION = 2  # of ggml's blocks

Job = Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Summary:
    """What a quantization did: bytes of tensors before and after, and the plan that it followed."""

    path: Path
    bytes_before: int
    bytes_after: int
    tensors: tuple[Planned, ...]


def quantize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    recipe: str,
    *,
    overrides: Sequence[tuple[str, GGMLType | str]] = (),
    pure: bool = False,
    output_type: GGMLType | str | None = None,
    embedding_type: GGMLType | str | None = None,
    keep_output: bool = False,
    importance: Importance | str | os.PathLike[str] | None = None,
    allow_requantize: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    cancel: CancelFlag | None = None,
) -> Summary:
    """Write the model `source` to `target` with its weights in the types of a recipe, such as "Q4_K_M".

    recipe          one of `RECIPES`: each tensor gets the type that llama.cpp gives it, and the bytes of its encoder
    overrides       (regular expression, type): the first one found in a tensor's name decides
    pure            the recipe's own type for every matrix
    output_type     of output.weight, or of the embedding where it is both; embedding_type: of token_embd.weight
    keep_output     leave output.weight as it is
    importance      an imatrix file, or what `read_importance` made of one: what errors of each column cost
    allow_requantize  allow weights that are quantized already
    progress        is told stages "compile" and "quantize", the latter in bytes of the source

    The source is only read, and nothing but TARGET.partial is written before all is done.

    Raises InvalidRequest, GGUFError subclasses, CodecError for weights that a type cannot hold, WriteError,
    ResourceError for a full disk, and Cancelled.
    """
    if importance is not None and not isinstance(importance, Importance):
        importance = read_importance(importance)
    pairs = tuple((pattern, as_type(type_)) for pattern, type_ in overrides)
    types = (as_type(output_type), as_type(embedding_type))
    chosen = Choices(pairs, pure, *types, keep_output, has_importance=importance is not None)
    threads = min(threads or physical_cores(), usable_cpus())
    with GGUFFile.open(source) as file:
        _check(file, Path(target))
        planned = plan(file, recipe, chosen)
        _check_plan(planned, importance, allow_requantize)
        writer = _declared(Path(target), file, planned, recipe_named(recipe)[1].file_type, importance)
        with _Quantization(planned, importance, threads, progress, cancel) as work, writer.open():
            for one in planned:
                writer.write_tensor(one.tensor.name, work.pieces(one))
                one.tensor.forget()
    sizes = (sum(one.tensor.n_bytes for one in planned), sum(one.n_bytes for one in planned))
    return Summary(Path(target), *sizes, tuple(planned))


def _check(file: GGUFFile, target: Path) -> None:
    for path in file.paths:
        if target.exists() and target.samefile(path):
            raise InvalidRequest(f"{target} is the file that is read; give the result another name")


def _declared(
    target: Path, file: GGUFFile, planned: list[Planned], file_type: int, importance: Importance | None
) -> GGUFWriter:
    """The new file's metadata, the old one's but for what says how weights are stored; and its tensors."""
    own: dict[str, str | int] = {
        "general.quantization_version": QUANTIZATION_VERSION, "general.file_type": file_type, **_origin(importance)
    }  # fmt: skip
    writer = GGUFWriter(target)
    writer.add_all(file.metadata, exclude=own)
    for key, value in own.items():
        writer.add(key, value)
    for one in planned:
        writer.add_tensor(one.tensor.name, one.tensor.shape, one.type)
    return writer


def _origin(importance: Importance | None) -> dict[str, str | int]:
    """What a file says about the importance it was made with."""
    if importance is None or not importance.file:
        return {}
    known: dict[str, str | int] = {
        "file": importance.file, "dataset": importance.dataset, "entries_count": len(importance.columns),
        "chunks_count": importance.chunks,
    }  # fmt: skip
    return {f"quantize.imatrix.{key}": value for key, value in known.items() if value}


def _check_plan(planned: list[Planned], importance: Importance | None, allow_requantize: bool) -> None:
    for one in planned:
        tensor, changed = one.tensor, not one.is_copied
        what = f"{tensor.path}: tensor {tensor.name!r}"
        if changed and one.needs_importance and (importance is None or tensor.name not in importance.columns):
            raise InvalidRequest(f"{what} would become {one.type.name}, which needs an importance matrix to be of use")
        if changed and tensor.type.block_size > 1 and not allow_requantize:
            raise InvalidRequest(
                f"{what} is {tensor.type.name} already; making it {one.type.name} loses more than from the original "
                "weights. Quantize those, or allow it (allow_requantize)"
            )
        given = None if importance is None else importance.columns.get(tensor.name)
        wanted = tensor.ne[0] * (tensor.ne[2] if len(tensor.ne) > 2 else 1)
        if changed and given is not None and given.size != wanted and tensor.name != "token_embd.weight":
            raise InvalidRequest(
                f"{what}: the importance matrix has {given.size} numbers for it, not {wanted}: it is of another model"
            )


class _Quantization:
    """Pieces of tensors, in the order of the plan. One thread ahead of whoever writes them."""

    def __init__(
        self,
        planned: list[Planned],
        importance: Importance | None,
        threads: int,
        progress: Progress | None,
        cancel: CancelFlag | None,
    ) -> None:
        self._importance, self._progress, self._cancel = importance.columns if importance else {}, progress, cancel
        self._done, self._total = 0, sum(one.tensor.n_bytes for one in planned)
        report = (lambda done, total: progress("compile", done, total)) if progress else None
        kinds = {(one.tensor.type, one.type, self._columns(one) is not None) for one in planned if not one.is_copied}
        Encoders.prepare(kinds, threads, report)
        self._encoders = Encoders(threads)
        self._ahead = ThreadPoolExecutor(1, "halfbyte-quantize")

    def pieces(self, one: Planned) -> Iterator[NDArray[np.uint8]]:
        """The bytes of a tensor as it will be."""
        jobs = self._copies(one.tensor) if one.is_copied else self._encodings(one)
        waiting = None
        for job, n_bytes in jobs:
            if self._cancel:
                raise Cancelled("cancelled while a model was being quantized")
            next_one = self._ahead.submit(job), n_bytes
            if waiting is not None:
                yield self._finished(*waiting)
            waiting = next_one
        if waiting is not None:
            yield self._finished(*waiting)

    def _finished(self, future: Future[NDArray[np.uint8]], n_bytes: int) -> NDArray[np.uint8]:
        piece = future.result()
        self._done += n_bytes
        if self._progress:
            self._progress("quantize", self._done, self._total)
        return piece

    def _copies(self, tensor: GGUFTensor) -> Iterator[tuple[Job, int]]:
        flat = tensor.data.reshape(-1)
        for lo in range(0, flat.size, 4 * PIECE_WEIGHTS):
            piece = flat[lo : lo + 4 * PIECE_WEIGHTS]
            yield partial(np.asarray, piece), piece.size

    def _encodings(self, one: Planned) -> Iterator[tuple[Job, int]]:
        """Rows of one expert at a time, as each has its own importance."""
        tensor, cols = one.tensor, one.tensor.ne[0]
        experts = tensor.data.reshape(-1, tensor.shape[-2] if len(tensor.shape) > 1 else 1, tensor.row_bytes)
        columns, step = self._columns(one), max(1, PIECE_WEIGHTS // cols)
        for number, rows in enumerate(experts):
            own = None if columns is None else columns[number]
            for lo in range(0, len(rows), step):
                part = rows[lo : lo + step]
                yield partial(self._encoded, one, number * len(rows) + lo, part, own), part.size

    def _encoded(
        self, one: Planned, first: int, rows: NDArray[np.uint8], columns: NDArray[np.float32] | None
    ) -> NDArray[np.uint8]:
        """Rows from number `first` on. Errors say which tensor, and which of all its rows."""
        try:
            return self._encoders.transcode(rows, one.tensor.type, one.type, columns)
        except NotFiniteError as error:
            where = NotFiniteError(error.type_name, first + error.row, error.column, error.value)
            raise CodecError(f"{one.tensor.path}: tensor {one.tensor.name!r}: {where}") from None
        except CodecError as error:
            raise CodecError(f"{one.tensor.path}: tensor {one.tensor.name!r}: {error}") from None

    def _columns(self, one: Planned) -> NDArray[np.float32] | None:
        given = self._importance.get(one.tensor.name)
        if given is None or given.size % one.tensor.ne[0]:  # of the embedding: it is looked up, not multiplied
            return None
        return np.ascontiguousarray(given, np.float32).reshape(-1, one.tensor.ne[0])

    def __enter__(self) -> _Quantization:
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.shutdown(wait=True, cancel_futures=True)
        self._encoders.close()
