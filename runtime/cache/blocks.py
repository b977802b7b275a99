"""Which sequence owns which page: allocation, sharing, copy-on-write and eviction. Holds page numbers, no arrays.

A page is in exactly one of three states:

    free      in `_free`: nobody's, content meaningless
    used      owned by `_refs[page]` sequences; shared pages are never written
    cached    owned by nobody but findable in the prefix tree; in `_idle`, least recently used first; evicted on demand

A used page may be findable too, as far as it holds tokens that were given: other kernels compute the state of tokens
that were generated, and a text must not depend on who else was served. Pages that are findable are complete and never
written again, and a sequence whose page turns out to hold the same tokens as a findable one drops its own and shares
that one. So every findable page of a sequence is kept alive, with all pages before it, by the sequence itself, and
eviction can never cut a living sequence off from the tree.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..step import PAGE
from .prefix import PrefixNode, new_root

MIN_COPIED = PAGE // 4  # sharing part of a page costs a copy of all of it in every layer: not worth it for a few tokens


@dataclass(eq=False)
class PageTable:
    """Pages of one sequence in position order; the first `n_known` are in the prefix tree, the last may not be full."""

    pages: list[int] = field(default_factory=list)
    length: int = 0  # tokens whose keys and values are present
    n_known: int = 0
    tokens: Sequence[int] = ()  # what was committed: at least `length` ids
    n_given: int = 0  # of them, those that may be found by others


class BlockManager:
    """Hands out `n_pages` pages of PAGE tokens; implements `SequenceCache`.

    `copy_page(source, target)` copies the content of a page in the pool that holds the bytes.
    """

    def __init__(self, n_pages: int, copy_page: Callable[[int, int], None]) -> None:
        self.n_pages = n_pages
        self._copy_page = copy_page
        self._free = list(range(n_pages - 1, -1, -1))
        self._refs = [0] * n_pages
        self._node: list[PrefixNode | None] = [None] * n_pages
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._root = new_root()

    @property
    def capacity(self) -> int:
        return self.n_pages * PAGE

    @property
    def num_available(self) -> int:
        """Pages that can be had now: free ones and those only remembered."""
        return len(self._free) + len(self._idle)

    @property
    def num_cached(self) -> int:
        """Pages nobody uses that are kept because a later prompt may begin alike."""
        return len(self._idle)

    def allocate(self, tokens: Sequence[int], *, n_given: int, reuse: bool = True) -> PageTable | None:
        """Pages for all of `tokens`, the first ones shared where possible; None when there are not enough."""
        table = PageTable(tokens=tokens, n_given=n_given)
        partial, n_partial = self._share(table, tokens[: min(n_given, len(tokens) - 1)]) if reuse else (None, 0)
        if not self.extend(table, len(tokens)):
            self._release(table)
            return None
        if partial is not None:  # its page may just have become ours, but nobody has written to it yet
            self._copy_page(partial.page, table.pages[table.n_known])
            table.length += n_partial
        return table

    def extend(self, handle: PageTable, length: int) -> bool:
        """Make positions [handle.length, length) writable: private pages, and a copy of the last if others read it."""
        first = handle.length // PAGE
        must_copy = first < len(handle.pages) and self._is_shared(handle.pages[first]) and length > handle.length
        missing = max(0, _pages_for(length) - len(handle.pages))
        if missing + must_copy > self.num_available:
            return False
        if must_copy:
            source, handle.pages[first] = handle.pages[first], self._take()
            self._copy_page(source, handle.pages[first])
            self._drop(source)
        handle.pages.extend(self._take() for _ in range(missing))
        return True

    def commit(self, handle: PageTable, tokens: Sequence[int], length: int) -> None:
        """tokens[:length] are computed: make full pages of given ones findable, or share those with the same tokens."""
        handle.tokens, handle.length = tokens, length
        while (handle.n_known + 1) * PAGE <= min(length, handle.n_given):
            self._publish(handle, tuple(tokens[handle.n_known * PAGE : (handle.n_known + 1) * PAGE]))

    def truncate(self, handle: PageTable, length: int) -> int:
        """Keep at most `length` tokens; returns how many are kept. Room made for more stays if nothing is cut."""
        if length < handle.length:
            self._cut(handle, length)
        return handle.length

    def free(self, handle: PageTable) -> None:
        """Let go of all pages; what was computed stays findable until its room is needed."""
        self._publish_rest(handle)
        self._release(handle)

    def _share(self, table: PageTable, tokens: Sequence[int]) -> tuple[PrefixNode | None, int]:
        """Own the known pages that `tokens` begins with; returns the page worth copying from, and how many tokens."""
        node = self._root
        while (found := node.children.get(tuple(tokens[table.length : table.length + PAGE]))) is not None:
            if len(found.tokens) < PAGE:
                break
            node = found
            self._hold(node.page)
            table.pages.append(node.page)
            table.n_known += 1
            table.length += PAGE
        partial, n_partial = node.longest_start(tokens[table.length : table.length + PAGE])
        return (partial, n_partial) if n_partial >= MIN_COPIED else (None, 0)

    def _publish(self, table: PageTable, tokens: tuple[int, ...]) -> None:
        page, parent = table.pages[table.n_known], self._known_end(table)
        twin = parent.children.get(tokens)
        if twin is None:
            self._node[page] = parent.add(tokens, page)
        elif twin.page != page:
            self._hold(twin.page)
            table.pages[table.n_known] = twin.page
            self._drop(page)
        table.n_known += 1

    def _publish_rest(self, table: PageTable) -> None:
        """Make the last page with given tokens findable, unless a known page already holds as much."""
        rest = tuple(table.tokens[table.n_known * PAGE : min(table.length, table.n_given)])
        if len(rest) < MIN_COPIED or self._is_shared(table.pages[table.n_known]):
            return
        parent, page = self._known_end(table), table.pages[table.n_known]
        if rest not in parent.children and parent.longest_start(rest)[1] < len(rest):
            self._node[page] = parent.add(rest, page)

    def _known_end(self, table: PageTable) -> PrefixNode:
        node = self._node[table.pages[table.n_known - 1]] if table.n_known else self._root
        assert node is not None  # pages before n_known are findable as long as they are owned
        return node

    def _is_shared(self, page: int) -> bool:
        return self._refs[page] > 1 or self._node[page] is not None

    def _release(self, table: PageTable) -> None:
        self._cut(table, 0)
        table.tokens = ()

    def _cut(self, table: PageTable, length: int) -> None:
        table.length = length
        table.n_known = min(table.n_known, length // PAGE)
        while len(table.pages) > _pages_for(length):
            self._drop(table.pages.pop())  # from the end: a leaf of the tree is evicted before its parent

    def _hold(self, page: int) -> None:
        self._idle.pop(page, None)
        self._refs[page] += 1

    def _drop(self, page: int) -> None:
        self._refs[page] -= 1
        if self._refs[page]:
            return
        if self._node[page] is None:
            self._free.append(page)
        else:
            self._idle[page] = None

    def _take(self) -> int:
        """A page of one's own; the caller has checked that there is one."""
        if not self._free:
            self._evict()
        page = self._free.pop()
        self._refs[page] = 1
        return page

    def _evict(self) -> None:
        """Forget the least recently used page, and what lies behind it in the tree: it could not be found any more."""
        page = next(iter(self._idle))
        node = self._node[page]
        assert node is not None  # idle pages are findable by definition
        for lost in node.detach():
            self._node[lost.page] = None
            del self._idle[lost.page]
            self._free.append(lost.page)


def _pages_for(length: int) -> int:
    return -(-length // PAGE)
