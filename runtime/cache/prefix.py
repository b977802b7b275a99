"""Which pages hold which text: a tree whose path from the root spells the tokens of a prefix.

Each node is one page. Looking up a child hashes the page's tokens and then compares them, so that two prompts can never
be taken for one another, however they were chosen (a bare chain of hashes could be made to collide).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

MAX_LOOKED_AT = 64  # children compared token by token: bounds the work when thousands of prompts differ early


class PrefixNode:
    """One page of a known prefix. `tokens` is shorter than a page only in a leaf: the unfinished end of a text."""

    __slots__ = ("children", "page", "parent", "tokens")

    def __init__(self, parent: PrefixNode | None, tokens: tuple[int, ...], page: int) -> None:
        self.parent, self.tokens, self.page = parent, tokens, page
        self.children: dict[tuple[int, ...], PrefixNode] = {}

    def add(self, tokens: tuple[int, ...], page: int) -> PrefixNode:
        """Remember that `page` holds `tokens` after this prefix. The caller knows that no such child exists."""
        child = self.children[tokens] = PrefixNode(self, tokens, page)
        return child

    def longest_start(self, tokens: Sequence[int]) -> tuple[PrefixNode | None, int]:
        """The child that agrees with `tokens` for longest, and how long; only the newest children are looked at."""
        best, best_length = None, 0
        for child in islice(reversed(self.children.values()), MAX_LOOKED_AT):
            length = _agreement(child.tokens, tokens)
            if length > best_length:
                best, best_length = child, length
        return best, best_length

    def detach(self) -> Iterator[PrefixNode]:
        """Take this node and all below it out of the tree; yields each of them."""
        if self.parent is not None:
            del self.parent.children[self.tokens]
        stack = [self]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            node.parent, node.children = None, {}
            yield node


def new_root() -> PrefixNode:
    """The empty prefix; it has no page."""
    return PrefixNode(None, (), -1)


def _agreement(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
