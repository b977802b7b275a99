"""A Hugging Face checkpoint: a folder with config.json, tokenizer files, and weights in one file or in shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from ...formats.gguf.sniff import GET_GGUF, describe_foreign
from ...formats.safetensors import SafetensorsFile
from ...formats.stored import StoredTensor
from ...formats.strict_json import JsonError, loads
from ...formats.torchzip import TorchFile
from .paths import CheckpointError, file_of

MAX_TEXT_BYTES = 256 << 20  # of a JSON or text file; the largest tokenizer.json has a tenth of that
# Weights as folders have them, the safer and faster first: one file, by any of its names, or an index of shards.
WEIGHTS = (
    (("model.safetensors",), "model.safetensors.index.json", SafetensorsFile),
    (("pytorch_model.bin", "pytorch_model.pt", "model.pt", "model.pth"), "pytorch_model.bin.index.json", TorchFile),
)
SAFETENSORS = "this is a safetensors file"  # as describe_foreign calls these forms
TORCH = ("this is a zip archive", "this is a Python pickle")
REMOTE_CODE = "auto_map"


class Checkpoint:
    """An opened folder. Use `Checkpoint.open`, as a context manager or with `close()`.

    `config` is config.json; `tensors` are those of all shards by name, validated and mapped; `files` those of
    the weights.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._found: dict[Path, None] = {}
        self.config: dict[str, Any] = self.require_json("config.json")
        self._open = contextlib.ExitStack()
        self.files: list[Path] = []
        try:
            self.tensors: Mapping[str, StoredTensor] = MappingProxyType(self._weights())
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Open and validate. Raises CheckpointError, FileAccessError, SafetensorsError and TorchFileError."""
        folder = Path(path)
        if not folder.is_dir():
            hint = "Give the folder that holds config.json, or a name on the hub as hf:OWNER/REPO"
            raise CheckpointError("no such folder", path=folder, hint=hint)
        return cls(folder)

    def find(self, name: str) -> Path | None:
        """The path of a file of the folder, None where there is none."""
        path = file_of(self.path, name, said_in=name)
        if not path.is_file():
            return None
        self._found[path] = None
        return path

    def text(self, name: str) -> str | None:
        """A file as text, None where there is none. CheckpointError for one that is too large, or no UTF-8."""
        path = self.find(name)
        if path is None:
            return None
        raw = self.read(path)
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CheckpointError("no UTF-8 text", path=path, offset=error.start) from None

    def json(self, name: str) -> Any:
        """A file as JSON, None where there is none. Raises CheckpointError."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return loads(text)
        except JsonError as error:
            path = self.path / name
            offset = len(text[: error.offset].encode()) if error.offset >= 0 else None
            raise CheckpointError(error.problem, path=path, offset=offset) from None

    @property
    def sources(self) -> tuple[Path, ...]:
        """All files that have decided about the result so far: weights, and what was found beside them."""
        return tuple(dict.fromkeys([*self.files, *self._found]))

    def require_json(self, name: str) -> dict[str, Any]:
        """A file that must be there and hold a JSON object."""
        found = self.json(name)
        if found is None:
            raise CheckpointError(f"there is no {name}", path=self.path, hint=self._what_is_there())
        if not isinstance(found, dict):
            raise CheckpointError("not a JSON object", path=self.path / name)
        return found

    @staticmethod
    def read(path: Path) -> bytes:
        """The bytes of a small file. CheckpointError for a pointer or a page in its place."""
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise CheckpointError("too large", path=path, got=size, allowed=f"up to {MAX_TEXT_BYTES:,} bytes")
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}", path=path) from None
        _refuse_foreign(path, raw[:64], size)
        return raw

    @property
    def runs_code(self) -> bool:
        """Whether transformers would need to run code out of the folder. It is never run here."""
        return REMOTE_CODE in self.config

    def close(self) -> None:
        """Release the files. Arrays taken from tensors keep their file mapped."""
        self._open.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _weights(self) -> dict[str, StoredTensor]:
        for singles, index, opener in WEIGHTS:
            for single in singles:
                if self.find(single):
                    return dict(self._open_weights(single, single, opener).tensors)
            if self.find(index):
                return self._shards(index, self.require_json(index).get("weight_map"), opener)
        known = ", ".join(name for singles, index, _ in WEIGHTS for name in (*singles, index))
        raise CheckpointError("there are no weights", path=self.path, allowed=known, hint=self._what_is_there())

    def _shards(self, index: str, given: Any, opener: Any) -> dict[str, StoredTensor]:
        """The tensors of all shards that an index names; each must be where the index says, and nowhere else."""
        if not isinstance(given, dict) or not given:
            raise CheckpointError("no map of tensors to files", path=self.path / index, field="weight_map")
        found: dict[str, StoredTensor] = {}
        for name in _in_order(given.values(), self.path / index):
            tensors = self._open_weights(name, f"{index}, weight_map", opener).tensors
            if twice := found.keys() & tensors.keys():
                raise CheckpointError("a tensor lies in two shards", path=self.path / name, field=min(twice))
            found |= tensors
        for name, shard in given.items():
            if name not in found or Path(found[name].path) != self.path / shard:
                raise CheckpointError(
                    "a tensor is not in the shard that the index says", path=self.path / index, field=name, got=shard,
                    hint="The download is incomplete, or files of two versions are mixed: download the folder again",
                )  # fmt: skip
        return found

    def _open_weights(self, name: str, said_in: str, opener: Any) -> Any:
        path = file_of(self.path, name, said_in=said_in)
        if not path.is_file():
            raise CheckpointError(
                f"the file {name} is missing", path=self.path, field=said_in,
                hint="The download is incomplete: download the folder again",
            )  # fmt: skip
        with path.open("rb") as file:
            _refuse_foreign(path, file.read(64), path.stat().st_size, opener)
        self.files.append(path)
        return self._open.enter_context(opener.open(path))

    def _what_is_there(self) -> str:
        names = sorted(path.name for path in self.path.iterdir())
        if any(name.endswith((".incomplete", ".part", ".crdownload")) for name in names):
            return "A download was interrupted: run it again"
        if models := [name for name in names if name.endswith(".gguf")]:
            return f"{models[0]} is a model in GGUF form already: give its path"
        if not names:
            return "The folder is empty"
        shown = ", ".join(names[:6])
        return f"There is {shown}{' ...' if len(names) > 6 else ''}. Download the whole repository, or give its folder"


def _refuse_foreign(path: Path, head: bytes, size: int, opener: Any = None) -> None:
    """CheckpointError for what downloads leave in the place of a file: pointers, pages, messages, zeros, nothing.

    Of weights also for those in another form than `opener` reads.
    """
    what, step = describe_foreign(head, size)
    if head.startswith(b"GGUF"):
        what, step = "this is a GGUF file", "Give its path as the source"
    if step == GET_GGUF:  # data, of some form
        form = SAFETENSORS if opener is SafetensorsFile else TORCH
        if opener is None or what.startswith(form):
            return
        other = TORCH if opener is SafetensorsFile else SAFETENSORS
        names = WEIGHTS[opener is SafetensorsFile][0]
        step = f"Call it {names[0]}" if what.startswith(other) else "Weights are safetensors, or archives of PyTorch"
    elif what == "not a GGUF file":
        return
    raise CheckpointError(what, path=path, hint=step)


def _in_order(names: Iterable[Any], index: Path) -> list[str]:
    """Each name once. CheckpointError for what is no name, before any file is opened."""
    once = list(dict.fromkeys(name if isinstance(name, str) else None for name in names))
    if None in once:
        raise CheckpointError("a shard without a name", path=index, field="weight_map")
    folder = index.parent
    for name in once:
        file_of(folder, name, said_in=f"{index.name}, weight_map")
    return [name for name in once if name is not None]
