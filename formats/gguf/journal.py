"""NAME.partial.journal: which tensors of a file that is being written are whole, so that a later run goes on.

    {"journal": 1, "plan": HASH, "made_of": {...}}      what is being made, and of what
    OFFSET END CHECKSUM                                 a line for each tensor that is whole, in order, with its padding

A line is added when the bytes it speaks of are on the disk. It is a claim all the same: whoever goes on reads those
bytes again (see `resume`), so a wrong journal costs time and nothing else, and need not be brought to the disk itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .durable import create_file, translate_errors
from .errors import WriteError
from .plan import ShardPlan

_FORMAT = 1
_BEGINS = b'{"journal"'
_LINE_BYTES = 128  # more than a line has
_MADE_OF_BYTES = 1 << 20


class Journal:
    """The journal of one run, open for as long as its partial files are. `identity` is its first line."""

    def __init__(self, path: Path, identity: bytes) -> None:
        self.path, self._identity = path, identity
        with translate_errors(path):
            self._fd = create_file(path)

    def read(self, n_tensors: int) -> tuple[list[bytes], str]:
        """The claims of an earlier run, and "" or why there are none: what it made differs from what is made now."""
        with translate_errors(self.path):
            limit = _MADE_OF_BYTES + len(self._identity) + n_tensors * _LINE_BYTES
            os.lseek(self._fd, 0, os.SEEK_SET)
            found = os.read(self._fd, limit)
        first, *claims = found.split(b"\n")
        if first != self._identity:
            return [], _difference(first, self._identity) if found else ""
        return claims[:-1], ""  # behind the last line end is nothing, or a line that was not finished

    def start(self, claims: Sequence[bytes]) -> None:
        """Begin with these claims and forget all others. Claims that are there are not written again."""
        data = b"".join(line + b"\n" for line in (self._identity, *claims))
        with translate_errors(self.path):
            os.lseek(self._fd, 0, os.SEEK_SET)
            is_there = os.read(self._fd, len(data)) == data
            os.ftruncate(self._fd, len(data) if is_there else 0)
            os.lseek(self._fd, 0, os.SEEK_END)
            if not is_there:
                self._write(data)

    def add(self, claims: Iterable[bytes]) -> None:
        with translate_errors(self.path):
            self._write(b"".join(line + b"\n" for line in claims))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def remove(self) -> None:
        self.close()
        with suppress(OSError):
            self.path.unlink()


def is_own(path: Path) -> bool:
    """Whether a journal is there, so that the partial file beside it is ours, damaged or not."""
    if path.is_symlink() or not path.is_file():
        return False  # a pipe, which would wait for a writer, or a link is refused by who makes the journal
    with translate_errors(path), open(path, "rb") as file:
        found = file.read(len(_BEGINS))
    return found == _BEGINS


def require_own(path: Path) -> None:
    """WriteError for a file under a journal's name that is none: with no partial file beside it, it may be anyone's."""
    if path.is_file() and not path.is_symlink() and path.stat().st_size and not is_own(path):
        raise WriteError(f"{path} is where notes of unfinished work go, and something else is there; move it away")


def journal_of(partial: Path) -> Path:
    """The journal beside the (first) partial file."""
    return partial.with_name(f"{partial.name}.journal")


def claim(offset: int, end: int, checksum: str) -> bytes:
    """The line of a tensor at a place of its file."""
    return f"{offset} {end} {checksum}".encode()


def identity_of(plans: Sequence[ShardPlan], made_of: Mapping[str, str]) -> bytes:
    """The first line: a hash of all names, sizes and headers, and what the tensors are made of."""
    plan = hashlib.sha256()
    for one in plans:
        plan.update(f"{one.path.name}\0{one.size} {len(one.header)}\0".encode("utf-8", "surrogateescape"))
        plan.update(one.header)
    about = {"journal": _FORMAT, "plan": plan.hexdigest(), "made_of": dict(made_of)}
    return json.dumps(about, sort_keys=True).encode()


def _difference(before: bytes, now: bytes) -> str:
    """What differs between two first lines, in words."""
    try:
        old, new = json.loads(before), json.loads(now)
        names = [key for key in new["made_of"] if new["made_of"][key] != old["made_of"].get(key)]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return "its journal is damaged"
    return f"it was made with another {' and another '.join(names)}" if names else "the new file is another one"
