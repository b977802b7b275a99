"""Read a manifest of hashes (see `hashes`) and compare a model with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..formats.errors import InvalidRequest, UnsupportedError
from ..formats.gguf.errors import FileAccessError, MissingFileError
from .escape import one_line
from .hashes import ALGORITHMS, Hash

MAX_BYTES = 64 << 20  # of a manifest: far more than lines for every tensor that a file may have
# A hash of something: a file whose name ends with .gguf, or has no colon but that of a drive; then perhaps a tensor.
_LINE = re.compile(r"(\S+)\s+([0-9a-fA-F-]+)\s+((?:.*\.gguf|(?:[A-Za-z]:[\\/])?[^:]*))(?::(.+))?")


@dataclass
class Difference:
    """Names of tensors: of another hash, in the manifest alone, in the model alone.

    whole: whether the hash of the model is right; None where the manifest has none.
    """

    differs: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    whole: bool | None = None

    def __bool__(self) -> bool:
        return bool(self.differs or self.missing or self.extra or self.whole is False)


def read_manifest(path: Path, model: str) -> tuple[str, dict[str, str]]:
    """What a manifest says of a model: the strongest algorithm, and tensor -> digest ("" is the whole model).

    A manifest of one model is taken for this one, whatever it was called; of several the name decides.
    Raises FileAccessError, InvalidRequest if it says nothing of the model, UnsupportedError for foreign algorithms.
    """
    models: dict[str, dict[str, dict[str, str]]] = {}
    for algorithm, digest, name, tensor in _lines(path):
        models.setdefault(name, {}).setdefault(algorithm, {})[tensor] = digest.lower()
    if not models:
        raise InvalidRequest(f"{path} holds no hashes of a model: lines are like `sha256  HEX  FILE:TENSOR`")
    found = models.get(model) or next((of for name, of in models.items() if _base(name) == _base(model)), None)
    if found is None and len(models) > 1:
        raise InvalidRequest(f"{path} is of {len(models)} models, {model} is none of them")
    found = found or next(iter(models.values()))
    for algorithm in ALGORITHMS:
        if algorithm in found:
            return algorithm, found[algorithm]
    raise UnsupportedError(f"{path} holds {', '.join(found)} hashes only; known are {', '.join(ALGORITHMS)}")


def compare(expected: Mapping[str, str], hashes: Iterable[Hash]) -> Difference:
    """What of a manifest does not hold."""
    found, left, has_tensors = Difference(), dict(expected), any(expected)
    for one in hashes:
        name = one_line(one.tensor)
        digest = left.pop(name, None)
        if not name:
            found.whole = None if digest is None else digest == one.digest
        elif digest is None and has_tensors:
            found.extra.append(name)
        elif digest not in (None, one.digest):
            found.differs.append(name)
    found.missing = [name for name in left if name]
    return found


def _lines(path: Path) -> Iterable[tuple[str, str, str, str]]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingFileError("no such file", path=path) from error
    except OSError as error:
        raise FileAccessError(f"cannot be read: {error.strerror or error}", path=path) from error
    if data.startswith(b"GGUF"):
        raise InvalidRequest(f"{path} is a model, not a manifest: `halfbyte hash` makes one of it")
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"{path} is too large for a manifest")
    for line in data.decode("utf-8", "replace").split("\n"):
        if match := _LINE.fullmatch(line.strip()):
            yield match[1], match[2], match[3], match[4] or ""


def _base(name: str) -> str:
    return re.split(r"[\\/]", name)[-1]
