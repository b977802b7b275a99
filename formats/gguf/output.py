"""The files of a model while they are written: order, exact sizes, and all or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from .durable import DurableFile
from .errors import WriteError
from .header import parse_header
from .pieces import swap
from .plan import Declared, ShardPlan
from .source import open_source
from .tensors import pad, swap_order


class Output:
    """The files being written. Any error discards all of them, so a broken set can never be mistaken for a model."""

    def __init__(self, plans: list[ShardPlan], alignment: int, byte_order: str) -> None:
        self._plans, self._alignment, self._byte_order = plans, alignment, byte_order
        self._files: list[DurableFile] = []
        self._order = _order(plans)
        self._next = next(self._order)
        self.finished = False
        try:
            self._start_files(0)
        except BaseException:
            self.discard()
            raise

    def write_tensor(self, name: str, pieces: Iterator[memoryview]) -> None:
        try:
            shard, tensor = self._next
            if tensor is None or tensor.name != name:
                expected = f"{tensor.name!r}" if tensor else "nothing more"
                raise WriteError(f"tensor {name!r} is out of order: the declared order wants {expected} now")
            self._start_files(shard)
            self._write_pieces(self._files[shard], tensor, pieces)
            self._next = next(self._order)
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        try:
            _, tensor = self._next
            if tensor is not None:
                raise WriteError(f"tensor {tensor.name!r} was declared but not written")
            for file in self._files:
                _finish(file)
        except BaseException:
            self.discard()
            raise
        self.finished = True
        # The first shard last: it is the one people open, so an interrupted set does not load. From here on the
        # files are complete, and a refused rename leaves them as .partial.
        try:
            for file in reversed(self._files):
                file.publish()
        finally:
            for file in self._files:
                file.close()

    def discard(self) -> None:
        for file in self._files:
            file.discard()
        self.finished = True

    def _start_files(self, last: int) -> None:
        """Create the files up to and including `last` and write their headers."""
        while len(self._files) <= last:
            plan = self._plans[len(self._files)]
            self._files.append(DurableFile(plan.path))
            self._files[-1].write(plan.header)

    def _write_pieces(self, file: DurableFile, tensor: Declared, pieces: Iterator[memoryview]) -> None:
        order = swap_order(tensor.type, tensor.name) if self._byte_order == ">" else None
        left = tensor.n_bytes
        for piece in pieces:
            if len(piece) > left:
                raise WriteError(f"tensor {tensor.name!r} has {tensor.n_bytes:,} bytes, more were given")
            for part in swap(piece, order, tensor.name):
                file.write(part)
            left -= len(piece)
        if left:
            raise WriteError(f"tensor {tensor.name!r} has {tensor.n_bytes:,} bytes, {left:,} are missing")
        file.write(bytes(pad(tensor.n_bytes, self._alignment) - tensor.n_bytes))


def _order(plans: list[ShardPlan]) -> Iterator[tuple[int, Declared | None]]:
    for i, plan in enumerate(plans):
        for tensor in plan.tensors:
            yield i, tensor
    yield len(plans) - 1, None


def _finish(file: DurableFile) -> None:
    """Sync the file and read its header back with the strict reader before it gets its name."""
    file.seal()
    source = open_source(file.partial)
    try:
        parse_header(source)
    finally:
        source.close()
