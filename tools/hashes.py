"""Hashes of a model's weights, of each tensor and of all together: equal where the weights are, whatever the metadata.

A manifest has a line for each, in the form of llama.cpp's llama-gguf-hash:

    sha256    HEX  FILE:TENSOR
    sha256    HEX  FILE                 all tensors one after the other, in the order of the file
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from ..formats.gguf import GGUFFile, GGUFTensor

CHUNK = 4 << 20  # bytes read at a time
Progress = Callable[[str, int, int], None]


class Hasher(Protocol):
    """What hashlib makes."""

    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


# The strongest first.
ALGORITHMS: dict[str, Callable[[], Hasher]] = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}


@dataclass(frozen=True)
class Hash:
    """One line of a manifest. `tensor` is "" for the whole model."""

    algorithm: str
    digest: str
    tensor: str

    def line(self, model: str) -> str:
        return f"{self.algorithm:<8}  {self.digest}  {model}{':' * bool(self.tensor)}{self.tensor}"


def hash_model(
    file: GGUFFile, algorithms: Sequence[str], *, with_tensors: bool = True, progress: Progress | None = None
) -> Iterator[Hash]:
    """The hashes of each tensor as soon as they are known, then those of the model. Memory does not grow with it."""
    done, total = 0, sum(tensor.n_bytes for tensor in file.tensors.values())
    whole = _hashers(algorithms)
    with ThreadPoolExecutor(2 * len(algorithms)) as pool:
        for tensor in file.tensors.values():
            own = _hashers(algorithms if with_tensors else ())
            for chunk in _chunks(tensor):
                _update(pool, [*whole.values(), *own.values()], chunk)
                done += len(chunk)
                if progress:
                    progress("hash", done, total)
            tensor.forget()
            yield from (Hash(name, hasher.hexdigest(), tensor.name) for name, hasher in own.items())
    yield from (Hash(name, hasher.hexdigest(), "") for name, hasher in whole.items())


def _hashers(algorithms: Iterable[str]) -> dict[str, Hasher]:
    return {name: ALGORITHMS[name]() for name in algorithms}


def _chunks(tensor: GGUFTensor) -> Iterator[memoryview]:
    data = tensor.data.reshape(-1).data
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def _update(pool: ThreadPoolExecutor, hashers: Sequence[Hasher], chunk: memoryview) -> None:
    """All at once: hashlib lets go of the interpreter's lock."""
    for _ in pool.map(lambda hasher: hasher.update(chunk), hashers):
        pass
