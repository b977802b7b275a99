"""Pages: ownership, sharing, copy-on-write and eviction, against a pool of plain lists that shows who wrote what."""

from __future__ import annotations

from collections import Counter

import pytest
from halfbyte.runtime.cache.blocks import MIN_COPIED, BlockManager, PageTable
from halfbyte.runtime.step import PAGE
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule


class Pool:
    """What the pages hold: the tokens written to them instead of keys and values."""

    def __init__(self, n_pages: int) -> None:
        self.content: list[list[int | None]] = [[None] * PAGE for _ in range(n_pages)]
        self.copies = 0
        self.manager = BlockManager(n_pages, self.copy_page)

    def copy_page(self, source: int, target: int) -> None:
        self.content[target] = list(self.content[source])
        self.copies += 1

    def allocate(self, tokens: list[int], n_given: int | None = None, *, reuse: bool = True) -> PageTable | None:
        """All are given by default."""
        return self.manager.allocate(tokens, n_given=len(tokens) if n_given is None else n_given, reuse=reuse)

    def run(self, table: PageTable, tokens: list[int], length: int) -> None:
        """Compute tokens[table.length:length] and commit them."""
        for i in range(table.length, length):
            self.content[table.pages[i // PAGE]][i % PAGE] = computed(tokens, table.n_given)[i]
        self.manager.commit(table, tokens, length)

    def read(self, table: PageTable) -> list[int | None]:
        return [self.content[table.pages[i // PAGE]][i % PAGE] for i in range(table.length)]

    def fill(self, tokens: list[int]) -> PageTable:
        table = self.allocate(tokens)
        assert table is not None
        self.run(table, tokens, len(tokens))
        return table


def computed(tokens: list[int], n_given: int) -> list[int]:
    """What their state is: other kernels compute that of tokens that were generated."""
    return [*tokens[:n_given], *(~token for token in tokens[n_given:])]


def text(length: int, salt: int = 0) -> list[int]:
    return [salt * 10_000 + i for i in range(length)]


def test_a_sequence_gets_pages_for_all_its_tokens_and_gives_them_back():
    pool = Pool(4)
    table = pool.allocate(text(3 * PAGE - 1))
    assert len(table.pages) == 3 and table.length == 0 and pool.manager.num_available == 1
    pool.manager.free(table)
    pool.manager.free(table)
    assert pool.manager.num_available == 4 and pool.manager.num_cached == 0  # nothing was computed


def test_no_room_is_none_and_changes_nothing():
    pool = Pool(4)
    first = pool.fill(text(2 * PAGE))
    before = list(first.pages)
    assert pool.allocate(text(5 * PAGE)) is None  # shares two pages, lacks three, and only two are left
    assert pool.manager.num_available == 2 and first.pages == before


def test_a_prompt_that_begins_alike_shares_full_pages():
    pool = Pool(8)
    first = pool.fill(text(3 * PAGE))
    second = pool.allocate([*text(2 * PAGE), 7, 8, 9])
    assert second.pages[:2] == first.pages[:2] and second.pages[2] not in first.pages
    assert second.length == 2 * PAGE
    assert pool.read(second) == text(2 * PAGE)


def test_the_last_token_is_never_shared_because_its_logits_are_wanted():
    pool = Pool(8)
    first = pool.fill(text(2 * PAGE))
    second = pool.allocate(text(2 * PAGE))
    assert second.length == 2 * PAGE - 1
    assert second.pages[0] == first.pages[0] and second.pages[1] != first.pages[1]  # the page written to is a copy
    assert pool.copies == 1 and pool.read(second) == text(2 * PAGE - 1)


def test_reuse_can_be_declined():
    pool = Pool(8)
    pool.fill(text(2 * PAGE))
    assert pool.allocate(text(2 * PAGE), reuse=False).length == 0


def test_only_what_was_given_is_found():
    pool = Pool(8)
    tokens = text(3 * PAGE)
    table = pool.allocate(tokens, n_given=PAGE + 10)
    pool.run(table, tokens, len(tokens))
    pool.manager.free(table)
    assert pool.manager.num_cached == 2
    again = pool.allocate([*tokens, 5])
    assert again.length == PAGE + 10 and pool.read(again) == tokens[: PAGE + 10]
    starting_over = pool.allocate(tokens, n_given=PAGE)
    assert starting_over.length == PAGE


def test_freed_pages_are_found_again_including_the_unfinished_last_one():
    pool = Pool(8)
    pool.manager.free(pool.fill(text(2 * PAGE + 10)))
    assert pool.manager.num_available == 8 and pool.manager.num_cached == 3
    again = pool.allocate([*text(2 * PAGE + 10), 5, 5])
    assert again.length == 2 * PAGE + 10
    assert pool.read(again) == text(2 * PAGE + 10)


def test_a_page_that_agrees_for_a_few_tokens_only_is_not_worth_a_copy():
    pool = Pool(8)
    pool.manager.free(pool.fill(text(PAGE)))
    assert pool.allocate([*text(MIN_COPIED - 1), -1, -2]).length == 0
    assert pool.allocate([*text(MIN_COPIED), -1, -2]).length == MIN_COPIED


def test_a_page_may_be_evicted_to_make_room_for_a_copy_of_itself():
    pool = Pool(2)
    pool.manager.free(pool.fill(text(PAGE)))
    tokens = [*text(20), *text(PAGE, salt=1)]
    table = pool.allocate(tokens)
    assert table.length == 20 and pool.manager.num_cached == 0
    assert pool.read(table) == text(20)


def test_a_findable_page_is_copied_before_it_is_written_after_a_cut():
    pool = Pool(8)
    table = pool.fill(text(PAGE))
    assert pool.manager.truncate(table, PAGE - 3) == PAGE - 3
    changed = [*text(PAGE - 3), -1]
    assert pool.manager.extend(table, len(changed))
    pool.run(table, changed, len(changed))
    assert pool.copies == 1
    other = pool.allocate([*text(PAGE), 0])
    assert other.length == PAGE and pool.read(other) == text(PAGE)


def test_two_that_compute_the_same_end_up_with_one_page():
    pool = Pool(8)
    tokens = text(PAGE + 1)
    first, second = pool.allocate(tokens), pool.allocate(tokens)
    assert first.pages[0] != second.pages[0]
    pool.run(first, tokens, PAGE)
    pool.run(second, tokens, PAGE)
    assert first.pages[0] == second.pages[0]
    assert pool.manager.num_available == 8 - 3


def test_the_least_recently_used_leaf_is_evicted_first():
    pool = Pool(4)
    pool.manager.free(pool.fill(text(2 * PAGE, salt=1)))
    pool.manager.free(pool.fill(text(2 * PAGE, salt=2)))
    first, second = ([*text(2 * PAGE, salt), 0] for salt in (1, 2))
    table = pool.allocate([-1] * PAGE)
    assert _known(pool, second) == 2 * PAGE and _known(pool, first) == PAGE  # the older lost its end
    pool.manager.free(table)


def _known(pool: Pool, tokens: list[int]) -> int:
    """How many tokens would be found, without making room for any."""
    table = PageTable()
    pool.manager._share(table, tokens)
    length = table.length
    pool.manager._release(table)
    return length


@pytest.mark.parametrize("length", [0, 1, PAGE - 1, PAGE, PAGE + 1])
def test_extend_gives_exactly_the_pages_needed(length: int):
    pool = Pool(4)
    table = PageTable()
    assert pool.manager.extend(table, length)
    assert len(table.pages) == -(-length // PAGE)


class Blocks(RuleBasedStateMachine):
    """Any order of operations keeps ownership consistent and never lets one sequence change what another reads."""

    tables = Bundle("tables")

    @initialize()
    def start(self) -> None:
        self.pool = Pool(7)
        self.live: dict[PageTable, list[int]] = {}

    @rule(
        target=tables,
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=3),
        tail=st.integers(1, 2 * PAGE),
        n_given=st.integers(0, 5 * PAGE),
    )
    def allocate(self, tokens: list[int], tail: int, n_given: int):
        full = [t for t in tokens for _ in range(PAGE)] + [0] * tail
        table = self.pool.allocate(full, n_given)
        if table is None:
            return multiple()
        assert self.pool.read(table) == full[: table.length] and table.length < len(full)
        assert table.length <= n_given
        self.pool.run(table, full, len(full))
        self.live[table] = full
        return table

    @rule(table=tables, token=st.integers(0, 3), count=st.integers(1, PAGE + 1))
    def append(self, table: PageTable, token: int, count: int) -> None:
        tokens = [*self.live[table], *[token] * count]
        if self.pool.manager.extend(table, len(tokens)):
            self.pool.run(table, tokens, len(tokens))
            self.live[table] = tokens

    @rule(table=tables, length=st.integers(0, 3 * PAGE))
    def truncate(self, table: PageTable, length: int) -> None:
        kept = self.pool.manager.truncate(table, length)
        self.live[table] = self.live[table][:kept]

    @rule(table=consumes(tables))
    def free(self, table: PageTable) -> None:
        self.pool.manager.free(table)
        del self.live[table]

    @invariant()
    def each_reads_what_it_wrote(self) -> None:
        for table, tokens in self.live.items():
            assert self.pool.read(table) == computed(tokens, table.n_given)

    @invariant()
    def every_page_has_one_state(self) -> None:
        m = self.pool.manager
        owners = Counter(page for table in self.live for page in table.pages)
        assert all(m._refs[page] == owners[page] for page in range(m.n_pages))
        assert sorted([*m._free, *m._idle, *owners]) == list(range(m.n_pages))
        assert all(m._node[page] is None for page in m._free) and all(m._node[page] is not None for page in m._idle)

    @invariant()
    def the_tree_says_what_the_pages_hold(self) -> None:
        stack = [self.pool.manager._root]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            if node.page >= 0:
                assert self.pool.content[node.page][: len(node.tokens)] == list(node.tokens)
                assert self.pool.manager._node[node.page] is node

    def teardown(self) -> None:
        for table in self.live:
            self.pool.manager.free(table)
        assert self.pool.manager.num_available == self.pool.manager.n_pages


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
