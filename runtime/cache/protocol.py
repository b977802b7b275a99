"""What a cache of sequence state must be able to do.

The scheduler speaks only these verbs, so it does not know what state is: pages of keys and values
(`blocks.BlockManager`), or one slot of recurrent state per sequence, or both joined. Two answers leave room for
recurrent state, which cannot be cut at any position: `allocate` says how many leading tokens are already present (0 is
always right), and `truncate` says how many remain valid (0 is always right). Tokens not present are simply computed
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class CacheHandle(Protocol):
    """The state of one sequence."""

    @property
    def length(self) -> int:
        """Leading tokens whose state is present and valid."""

    @property
    def pages(self) -> Sequence[int]:
        """Pages of keys and values in position order; empty for state that has none, as a recurrent one."""


H = TypeVar("H", bound=CacheHandle)


class SequenceCache(Protocol[H]):
    """State of many sequences in bounded memory. Used by one thread at a time; holds no arrays itself."""

    @property
    def capacity(self) -> int:
        """Tokens that fit when one sequence has everything to itself."""

    def allocate(self, tokens: Sequence[int], *, n_given: int, reuse: bool = True) -> H | None:
        """Room for all of `tokens`, or None when there is none now.

        The state of the first `n_given` is what sequences that begin alike share; that of the others is never shared.
        With `reuse`, what earlier ones left is taken, but never for the last token, because its logits are wanted.
        """

    def extend(self, handle: H, length: int) -> bool:
        """Make positions [handle.length, length) writable; False when there is no room (nothing has changed then)."""

    def commit(self, handle: H, tokens: Sequence[int], length: int) -> None:
        """The state of tokens[:length] has been computed; later sequences may share it as far as it was given."""

    def truncate(self, handle: H, length: int) -> int:
        """Forget everything from position `length` on; returns how many leading tokens remain valid."""

    def free(self, handle: H) -> None:
        """Give the sequence's room back. Harmless when repeated."""
