"""The files of a model while they are written: order, exact sizes, and all or nothing.

Where it is said what they are made of, there is a third outcome beside all and nothing: what is done stays when
somebody stops the work or the disk is full, and the same work goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import Cancelled, ResourceError
from .checksum import Checksum
from .durable import DurableFile, check_free_space, partial_of, real_target
from .errors import WriteError
from .header import MAGIC, parse_header
from .journal import Journal, claim, identity_of, is_own, journal_of, require_own
from .pieces import swap
from .plan import ShardPlan
from .resume import Place, Report, checksum_of, count_whole, places
from .source import open_source
from .tensors import swap_order

# What may have to be done again after a power cut. Waiting for the disk this often costs nothing that the wait at the
# end would not have cost.
SYNC_BYTES, SYNC_SECONDS = 64 << 20, 5.0

_log = logging.getLogger(__name__)

# Looks at the complete files before they get their names; what is to be changed: (number of the file, offset, bytes).
Inspect = Callable[[Sequence[Path]], Iterable[tuple[int, int, bytes]]]


class Output:
    """The files being written. Any error discards all of them, so a broken set can never be mistaken for a model.

    With `made_of`, errors that running again may mend keep them (see `can_go_on`). `verify` reads everything again
    before the files get their names. `report` hears how far the check is of what an earlier run left.
    """

    def __init__(
        self,
        plans: list[ShardPlan],
        alignment: int,
        byte_order: str,
        made_of: Mapping[str, str] | None = None,
        *,
        verify: bool = False,
        report: Report | None = None,
    ) -> None:
        self._plans, self._byte_order, self._verify = plans, byte_order, verify
        self._order = list(places(plans, alignment))
        self._files: list[DurableFile] = []
        self._journal: Journal | None = None
        self._checksums: list[str] = []  # of all tensors that are written, where anybody asks for them
        self._keeps_checksums = verify or made_of is not None
        self._claimed, self._claimed_at = 0, time.monotonic()
        self.written: set[str] = set()
        self.finished = False
        try:
            self._create(made_of)
            claims = self._left_by_an_earlier_run(report)
        except BaseException:
            self._let_go()
            raise
        try:
            self._start(claims)
        except BaseException as error:
            self.give_up(error)
            raise

    def write_tensor(self, name: str, pieces: Iterator[memoryview]) -> None:
        try:
            place = self._next
            if place is None or place.tensor.name != name:
                expected = f"{place.tensor.name!r}" if place else "nothing more"
                raise WriteError(f"tensor {name!r} is out of order: the declared order wants {expected} now")
            self._write_pieces(self._files[place.shard], place, pieces)
            self.written.add(name)
            self._claim_in_time()
        except BaseException as error:
            self.give_up(error)
            raise

    @property
    def _next(self) -> Place | None:
        """The place of the tensor that comes next."""
        return self._order[len(self.written)] if len(self.written) < len(self._order) else None

    def publish(self, inspect: Inspect | None = None) -> None:
        """Bring the files to the disk and give them their names. `inspect` may refuse them first, or change bytes."""
        try:
            if (place := self._next) is not None:
                raise WriteError(f"tensor {place.tensor.name!r} was declared but not written")
            self._claim()
            for file in self._files:
                _finish(file)
            if self._verify:
                self._compare()
            if inspect is not None:
                for shard, offset, data in inspect([file.partial for file in self._files]):
                    self._files[shard].patch(offset, data)
                for file in self._files:
                    file.seal()
        except BaseException as error:
            self.give_up(error)
            raise
        self.finished = True
        # The first shard last: it is the one people open, so an interrupted set does not load. From here on the
        # files are complete, and a refused rename leaves them as .partial.
        try:
            for file in reversed(self._files):
                file.publish()
        finally:
            self._close()
        if self._journal is not None:
            self._journal.remove()

    def give_up(self, error: BaseException | None = None) -> None:
        """Remove the files; or keep what is done of them, if it is of use after such an error."""
        if self._journal is not None and error is not None and can_go_on(error):
            with suppress(ResourceError, WriteError):  # what was claimed before stays
                self._claim()
            if self._claimed:
                self._close()
                return
        for file in self._files:
            file.discard()
        if self._journal is not None:
            self._journal.remove()
        self.finished = True

    def _close(self) -> None:
        for file in self._files:
            file.close()
        if self._journal is not None:
            self._journal.close()
        self.finished = True

    def _let_go(self) -> None:
        """Nothing was written yet: what an earlier run left stays, and what is new goes."""
        self._close()
        for file in self._files:
            if file.is_new:
                file.discard()
        if self._journal is not None and all(file.is_new for file in self._files):
            self._journal.remove()

    def _create(self, made_of: Mapping[str, str] | None) -> None:
        """Lock the partial files, and make the journal; or see to it that none is left that is of something else."""
        targets = [real_target(plan.path) for plan in self._plans]
        path = journal_of(partial_of(targets[0]))
        begins = b"" if is_own(path) else MAGIC
        for target, plan in zip(targets, self._plans, strict=True):
            self._files.append(DurableFile(target, plan.size, begins=begins))
        if self._files[0].is_new:
            require_own(path)
        if made_of is not None:
            self._journal = Journal(path, identity_of(self._plans, made_of))
        elif path.is_file() or path.is_symlink():
            path.unlink()

    def _left_by_an_earlier_run(self, report: Report | None) -> list[bytes]:
        """The claims of it that hold."""
        if self._journal is None or self._files[0].is_new:
            return []
        claims, problem = self._journal.read(len(self._order))
        if problem:
            _log.warning("%s: starting over: %s", self._files[0].partial, problem)
        whole = claims[: count_whole(self._plans, self._files, self._order, claims, report)]
        if whole:
            there, total = sum(p.end - p.offset for p in self._order[: len(whole)]), sum(p.size for p in self._plans)
            _log.warning("resuming %s: %.0f of %.0f MB are there", self._plans[0].path, there / 1e6, total / 1e6)
        elif claims:
            _log.warning("%s: starting over: it is not what its journal says", self._files[0].partial)
        return whole

    def _start(self, claims: Sequence[bytes]) -> None:
        """Take the space that is missing, and write the headers that are."""
        self._claimed = len(claims)
        self.written |= {place.tensor.name for place in self._order[: len(claims)]}
        self._checksums = [line.split()[2].decode() for line in claims]
        ends = {place.shard: place.end for place in self._order[: len(claims)]}
        for shard, file in enumerate(self._files):
            file.cut(ends.get(shard, 0))
        if self._journal is not None:
            self._journal.start(claims)
        check_free_space(self._files[0].path, sum(file.missing for file in self._files))
        for file in self._files:
            file.reserve()
        for shard, file in enumerate(self._files):
            if shard not in ends:
                file.write(self._plans[shard].header)

    def _write_pieces(self, file: DurableFile, place: Place, pieces: Iterator[memoryview]) -> None:
        tensor = place.tensor
        order = swap_order(tensor.type, tensor.name) if self._byte_order == ">" else None
        left, checksum = tensor.n_bytes, Checksum() if self._keeps_checksums else None
        for piece in pieces:
            if len(piece) > left:
                raise WriteError(f"tensor {tensor.name!r} has {tensor.n_bytes:,} bytes, more were given")
            for part in swap(piece, order, tensor.name):
                file.write(part)
                if checksum is not None:
                    checksum.update(part)
            left -= len(piece)
        if left:
            raise WriteError(f"tensor {tensor.name!r} has {tensor.n_bytes:,} bytes, {left:,} are missing")
        padding = bytes(place.end - place.offset - tensor.n_bytes)
        file.write(padding)
        if checksum is not None:
            checksum.update(padding)
            self._checksums.append(checksum.hexdigest())
        if self._journal is not None:
            file.flush()  # what may be claimed is with the system, also when a later write fails

    def _claim_in_time(self) -> None:
        since = sum(place.end - place.offset for place in self._order[self._claimed : len(self.written)])
        if since >= SYNC_BYTES or time.monotonic() - self._claimed_at >= SYNC_SECONDS:
            self._claim()

    def _claim(self) -> None:
        """Bring the tensors that are whole to the disk, then say so in the journal."""
        new = range(self._claimed, len(self.written))
        if self._journal is None or not new:
            return
        for shard in {self._order[i].shard for i in new}:
            self._files[shard].sync()
        self._journal.add(claim(self._order[i].offset, self._order[i].end, self._checksums[i]) for i in new)
        self._claimed, self._claimed_at = len(self.written), time.monotonic()

    def _compare(self) -> None:
        """Read every tensor from the disk and compare it with what was written."""
        for file in self._files:
            file.forget()
        for place, digest in zip(self._order, self._checksums, strict=True):
            file = self._files[place.shard]
            if checksum_of(file, place) != digest:
                problem = "is not on the disk as it was written; the disk or the memory is damaged"
                raise WriteError(f"{file.path}: tensor {place.tensor.name!r} {problem}")


def can_go_on(error: BaseException) -> bool:
    """Whether running again may end better: somebody stopped it, or the machine refused something."""
    stopped = not isinstance(error, Exception) or isinstance(error, Cancelled)
    return stopped or isinstance(error, ResourceError | MemoryError | OSError) or isinstance(error.__cause__, OSError)


def _finish(file: DurableFile) -> None:
    """Sync the file and read its header back with the strict reader before it gets its name."""
    file.seal()
    source = open_source(file.partial)
    try:
        parse_header(source)
    finally:
        source.close()
