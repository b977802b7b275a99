"""Write GGUF files: declare everything, then stream tensors in the declared order with constant memory.

    w = GGUFWriter("model.gguf")
    w.add("general.architecture", "llama")
    w.add_tensor("token_embd.weight", (32000, 2048), GGMLType.F16)
    with w.open():                                   # header
        w.write_tensor("token_embd.weight", rows)    # bytes, an array, or an iterable of them

The file appears under its name when the block ends without an error, complete and on disk; until then it is
NAME.partial, and after an error it is gone.

Where `made_of` says what the tensors are made of, work that was stopped is gone on with: after Ctrl-C, a full disk or
kill -9, the same declarations with the same `made_of` find the tensors that are whole already.

    w = GGUFWriter("model.gguf", made_of={"source": identity_of_source})
    ...
    with w.open():
        for name, rows in tensors:
            if not w.is_written(name):
                w.write_tensor(name, rows)
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .cursor import PathLike
from .encode import encode_entry, encode_name
from .errors import GGUFError, WriteError
from .header import ALIGNMENT_KEY, is_alignment
from .limits import DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_TENSOR_NAME_BYTES
from .metadata import Metadata
from .output import Output
from .pieces import flatten
from .plan import Declared, Layout, ShardPlan, plan_files
from .resume import Report
from .split import SPLIT_KEYS
from .tensors import check_shape, check_size, swap_order
from .types import GGMLType, ValueType


class GGUFWriter:
    """Writes one GGUF file, or shards where `split_max_bytes` (of tensor data) or `split_max_tensors` ask for them.

    `split_counts` gives the numbers of tensors of all files instead; the first may hold none.

    made_of   what the tensors are made of, in words (name -> identity): given, what is done is kept after an error that
              running again may mend, such as a full disk or Ctrl-C, and a writer of the same goes on with it
    verify    read everything from the disk again before the file gets its name
    inspect   is given the complete file (of several the first) before that; what it raises leaves none, and what it
              returns are new values of FLOAT32 keys that were added

    Raises WriteError for misuse and for what the operating system refuses, ResourceError for a full disk.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        version: int = 3,
        byte_order: str = "<",
        alignment: int = DEFAULT_ALIGNMENT,
        split_max_bytes: int | None = None,
        split_max_tensors: int | None = None,
        split_counts: Sequence[int] | None = None,
        made_of: Mapping[str, str] | None = None,
        verify: bool = False,
        inspect: Callable[[Path], Mapping[str, float]] | None = None,
    ) -> None:
        if version not in (2, 3) or byte_order not in ("<", ">"):
            raise WriteError(f"version is 2 or 3 and byte_order '<' or '>', not {version!r} and {byte_order!r}")
        if any(limit is not None and limit < 1 for limit in (split_max_bytes, split_max_tensors)):
            raise WriteError("split limits are at least 1")
        if split_counts is not None and (split_max_bytes, split_max_tensors) != (None, None):
            raise WriteError("either limits say where files are split, or numbers of tensors")
        self.path = Path(path)
        self.version, self.byte_order, self.alignment = version, byte_order, DEFAULT_ALIGNMENT
        self._limits = (split_max_bytes, split_max_tensors, split_counts)
        self._made_of, self._verify, self._inspect = made_of, verify, inspect
        self._entries: dict[str, bytes] = {}
        self._tensors: dict[str, Declared] = {}
        self._output: Output | None = None
        if alignment != DEFAULT_ALIGNMENT:
            self.add(ALIGNMENT_KEY, alignment)

    def add(self, key: str, value: object, value_type: ValueType | None = None) -> None:
        """Add a metadata key.

        Without `value_type`: str and bytes -> STRING, bool -> BOOL, int -> the first of UINT32, INT32, UINT64, INT64
        that holds it, float -> FLOAT32, NumPy arrays -> ARRAY of their dtype, lists -> ARRAY of the type of their
        elements (integers: the first of INT32, UINT32, INT64, UINT64). For arrays `value_type` is the element type.
        """
        self._must_be_planning("add")
        if key in self._entries:
            raise WriteError(f"key {key!r} was added twice")
        if key in SPLIT_KEYS:
            raise WriteError(f"key {key!r} is written by the split options")
        entry = encode_entry(key, value, value_type, self.byte_order)
        if key == ALIGNMENT_KEY:
            self._set_alignment(value, value_type)
        self._entries[key] = entry

    def add_all(self, metadata: Metadata, *, exclude: Iterable[str] = ()) -> None:
        """Copy metadata with its exact types, without split.* keys (they describe files) and those in `exclude`."""
        skipped = SPLIT_KEYS.union(exclude)
        for key in metadata:
            if key not in skipped:
                element = metadata.element_type(key)
                self.add(key, metadata[key], metadata.value_type(key) if element is None else element)

    def add_tensor(self, name: str, shape: Sequence[int], type: GGMLType) -> None:
        """Declare a tensor of `shape` in NumPy order: the row, shape[-1], comes last."""
        self._must_be_planning("add_tensor")
        encode_name(name, MAX_TENSOR_NAME_BYTES, "tensor name", self.byte_order)
        if name in self._tensors:
            raise WriteError(f"tensor {name!r} was declared twice")
        if not type.on_disk:
            raise WriteError(f"tensor {name!r}: no file can say {type.name}; it is stored as other types (packing.py)")
        if self.byte_order == ">":
            swap_order(type, f"tensor {name!r}")
        ne = tuple(int(n) for n in reversed(shape))

        def complain(
            error: builtins.type[GGUFError], problem: str, part: str, got: object, allowed: str | None
        ) -> GGUFError:
            return error(problem, path=self.path, field=f"{name}.{part}", got=got, allowed=allowed)

        try:
            check_shape(ne, complain)
            n_bytes = check_size(ne, type, complain)
        except GGUFError as error:
            raise WriteError(str(error)) from None
        self._tensors[name] = Declared(name, type, ne, n_bytes)

    def plan(self) -> list[ShardPlan]:
        """The files that would be written, with their exact sizes."""
        layout = Layout(self.version, self.byte_order, self.alignment)
        return plan_files(self.path, layout, self._entries, list(self._tensors.values()), *self._limits)

    def open(self, report: Report | None = None) -> GGUFWriter:
        """Find what an earlier run left, take the space, and write the header. Use as a context manager.

        `report` is told how many bytes of an earlier run were read again, and of how many.
        """
        self._must_be_planning("open")
        self._output = Output(
            self.plan(), self.alignment, self.byte_order, self._made_of, verify=self._verify, report=report
        )
        return self

    def is_written(self, name: str) -> bool:
        """Whether a declared tensor is in the file by now."""
        return self._output is not None and name in self._output.written

    def write_tensor(self, name: str, data: Any) -> None:
        """Write the next declared tensor: bytes-like, an array, or an iterable of them, in little-endian layout.

        The total must be exactly the tensor's size. Files that are big-endian are swapped here.
        """
        if self._output is None:
            self.open()
        if self._output is None or self._output.finished:
            raise WriteError(f"{self.path}: the writer is closed")
        self._output.write_tensor(name, flatten(data))

    def close(self) -> None:
        """Finish: all declared tensors must have been written. Then sync, verify, rename."""
        if self._output is None:
            self.open()
        if self._output is not None and not self._output.finished:
            self._output.publish(self._inspected if self._inspect else None)

    def abort(self, error: BaseException | None = None) -> None:
        """Give up and remove what was written. The target name keeps what it held before.

        With `made_of`, an error that running again may mend lets what is done stay as it is.
        """
        if self._output is not None and not self._output.finished:
            self._output.give_up(error)

    def __enter__(self) -> GGUFWriter:
        return self

    def __exit__(
        self, kind: builtins.type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort(error)

    def _inspected(self, partials: Sequence[Path]) -> Iterator[tuple[int, int, bytes]]:
        """What `inspect` found, as bytes of the first file's header."""
        header = self.plan()[0].header
        for key, value in (self._inspect(partials[0]) if self._inspect else {}).items():
            yield 0, header.index(self._entries[key]), encode_entry(key, value, ValueType.FLOAT32, self.byte_order)

    def _must_be_planning(self, what: str) -> None:
        if self._output is not None:
            raise WriteError(f"{self.path}: {what}() comes before the header is written")

    def _set_alignment(self, value: object, value_type: ValueType | None) -> None:
        if not isinstance(value, int) or value_type not in (None, ValueType.UINT32) or not is_alignment(value):
            raise WriteError(f"{ALIGNMENT_KEY} is a UINT32 power of two up to {MAX_ALIGNMENT:,}, not {value!r}")
        self.alignment = value
