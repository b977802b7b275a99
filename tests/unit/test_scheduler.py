"""The scheduler's policy, with fakes: no threads, no model."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from halfbyte.formats.errors import ContextOverflow
from halfbyte.runtime.cache.blocks import BlockManager
from halfbyte.runtime.cache.protocol import CacheHandle
from halfbyte.runtime.engine.runner import make_step
from halfbyte.runtime.engine.scheduler import PROMPT_SHARE, Scheduler
from halfbyte.runtime.engine.sequence import Chunk, Sequence
from halfbyte.runtime.step import PAGE
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass
class Owner:
    is_paused: bool = False


def make_scheduler(n_pages: int = 64, max_tokens: int = 64, **options: int) -> Scheduler:
    return Scheduler(BlockManager(n_pages, lambda source, target: None), max_tokens=max_tokens, **options)


def make_sequence(n: int, salt: int = 0, *, every_row: bool = False, paused: bool = False) -> Sequence:
    return Sequence([salt * 1000 + i for i in range(n)], Owner(paused), every_row)


def submit(scheduler: Scheduler, *sequences: Sequence) -> None:
    for sequence in sequences:
        scheduler.add(sequence)


def run(scheduler: Scheduler, chunks: list[Chunk]) -> None:
    """Commit a step and sample one token for each chunk that reached the end."""
    scheduler.commit(chunks)
    for chunk in chunks:
        if chunk.n_outputs and not chunk.sequence.every_row:
            chunk.sequence.tokens.append(-1)


def next_prompts(scheduler: Scheduler) -> list[Chunk]:
    """The next step that holds prompts; a step of those that generate may come before it."""
    chunks = scheduler.schedule()
    if not any(chunk.is_prompt for chunk in chunks):
        run(scheduler, chunks)
        chunks = scheduler.schedule()
    return chunks


def counts(chunks: list[Chunk]) -> list[int]:
    return [chunk.count for chunk in chunks]


def test_a_prompt_is_run_in_chunks_and_only_its_last_row_is_wanted():
    scheduler = make_scheduler(max_tokens=40)
    submit(scheduler, make_sequence(100))
    seen = []
    for _ in range(4):
        chunks = scheduler.schedule()
        seen.append((chunks[0].start, chunks[0].count, chunks[0].n_outputs))
        run(scheduler, chunks)
    assert seen == [(0, 40, 0), (40, 40, 0), (80, 20, 1), (100, 1, 1)]


def test_generating_and_prompts_take_turns_and_prompts_are_short_then():
    scheduler = make_scheduler(max_tokens=64)
    short, long = make_sequence(3, 1), make_sequence(500, 2)
    submit(scheduler, short)
    run(scheduler, scheduler.schedule())
    submit(scheduler, long)
    seen = []
    for _ in range(4):
        chunks = scheduler.schedule()
        seen.append([(c.sequence, c.count, c.is_prompt) for c in chunks])
        run(scheduler, chunks)
    turns = [[(short, 1, False)], [(long, 64 // PROMPT_SHARE, True)]]
    assert seen in (turns * 2, turns[::-1] * 2)


def test_a_prompt_of_which_one_token_is_left_is_still_a_prompt():
    scheduler = make_scheduler(max_tokens=64)
    submit(scheduler, make_sequence(65))
    run(scheduler, scheduler.schedule())
    (chunk,) = scheduler.schedule()
    assert (chunk.count, chunk.is_prompt) == (1, True)
    run(scheduler, [chunk])
    (chunk,) = scheduler.schedule()
    assert (chunk.count, chunk.is_prompt) == (1, False)


def test_steps_for_all_rows_hold_nothing_else():
    scheduler = make_scheduler(max_tokens=64, max_outputs=70)
    submit(scheduler, make_sequence(10, 1), make_sequence(12, 2, every_row=True))
    for _ in range(2):
        chunks = scheduler.schedule()
        assert len({c.sequence.every_row for c in chunks}) == 1
        run(scheduler, chunks)


def test_prompts_share_a_step_equally_and_short_ones_leave_their_rest_to_long_ones():
    scheduler = make_scheduler(max_tokens=60)
    short, long, longer = make_sequence(4, 1), make_sequence(200, 2), make_sequence(300, 3)
    submit(scheduler, longer, long, short)
    by_sequence = {id(c.sequence): c.count for c in scheduler.schedule()}
    assert by_sequence == {id(short): 4, id(long): 28, id(longer): 28}


def test_logits_of_every_row_are_bounded_and_share_nothing():
    scheduler = make_scheduler(max_tokens=64, max_outputs=10)
    submit(scheduler, make_sequence(40))
    run(scheduler, scheduler.schedule())
    rows = make_sequence(40, every_row=True)
    submit(scheduler, rows)
    chunks = next_prompts(scheduler)
    assert counts(chunks) == [10] and sum(c.n_outputs for c in chunks) == 10
    assert rows.n_shared == 0


def test_whole_texts_are_not_cut_and_the_oldest_always_comes():
    scheduler = make_scheduler(max_tokens=60, whole_texts=True)
    texts = [make_sequence(n, i, every_row=True) for i, n in enumerate((40, 50, 60, 20, 5))]
    submit(scheduler, *texts)
    seen = []
    while scheduler.has_work:
        chunks = scheduler.schedule()
        assert all((c.start, c.n_outputs) == (0, len(c.sequence.tokens)) for c in chunks)
        seen.append([texts.index(c.sequence) for c in chunks])
        run(scheduler, chunks)
        for chunk in chunks:
            scheduler.remove(chunk.sequence)
    assert seen == [[0, 3], [1, 4], [2]]


def test_a_second_prompt_that_begins_alike_starts_where_the_first_ended():
    scheduler = make_scheduler(max_tokens=512)
    submit(scheduler, make_sequence(4 * PAGE))
    run(scheduler, scheduler.schedule())
    second = make_sequence(4 * PAGE + 5)
    submit(scheduler, second)
    chunk = next(c for c in next_prompts(scheduler) if c.sequence is second)
    assert (chunk.start, chunk.count, second.n_shared) == (4 * PAGE, 5, 4 * PAGE)


def test_prompts_that_begin_alike_and_come_together_compute_the_beginning_once():
    scheduler = make_scheduler(max_tokens=512)
    first, second, other = make_sequence(4 * PAGE), make_sequence(4 * PAGE + 9), make_sequence(7, salt=1)
    submit(scheduler, first, second, other)
    chunks = scheduler.schedule()
    assert {id(c.sequence) for c in chunks} == {id(first), id(other)}
    run(scheduler, chunks)
    (chunk,) = [c for c in next_prompts(scheduler) if c.sequence is second]
    assert (chunk.start, chunk.count) == (4 * PAGE, 9)


def test_nobody_waits_for_a_beginning_that_will_not_come():
    scheduler = make_scheduler(max_tokens=PAGE)
    first, second = make_sequence(9 * PAGE), make_sequence(PAGE + 5)
    submit(scheduler, first, second)
    run(scheduler, scheduler.schedule())  # the first page, which is all they share
    assert second in [c.sequence for c in scheduler.schedule()]
    third = make_sequence(8 * PAGE)
    submit(scheduler, third)
    scheduler.remove(first)
    assert third in [c.sequence for c in scheduler.schedule()]


def test_nobody_waits_for_a_beginning_whose_reader_lags():
    scheduler = make_scheduler()
    lazy = make_sequence(PAGE - 1)
    submit(scheduler, lazy)
    run(scheduler, scheduler.schedule())  # its next token would complete a page
    lazy.owner.is_paused = True
    eager = Sequence([*lazy.tokens, 1, 2, 3], Owner())
    submit(scheduler, eager)
    assert [c.sequence for c in scheduler.schedule()] == [eager]


def test_no_room_means_waiting_in_order_of_arrival():
    scheduler = make_scheduler(n_pages=4, max_tokens=512)
    first, big, small = make_sequence(2 * PAGE, 1), make_sequence(3 * PAGE, 2), make_sequence(PAGE, 3)
    submit(scheduler, first, big, small)
    assert [c.sequence for c in scheduler.schedule()] == [first]  # `small` would fit, but `big` came before it
    scheduler.remove(first)
    assert [c.sequence for c in scheduler.schedule()] == [small, big]


def test_the_youngest_gives_up_its_room_and_resumes_from_the_cache():
    scheduler = make_scheduler(n_pages=4, max_tokens=512)
    old, young = make_sequence(2 * PAGE, 1), make_sequence(2 * PAGE, 2)
    submit(scheduler, old, young)
    run(scheduler, scheduler.schedule())
    late = make_sequence(4 * PAGE, 3)
    submit(scheduler, late)
    chunks = scheduler.schedule()  # both need a third page
    assert [c.sequence for c in chunks] == [old] and scheduler.num_preempted == 1
    assert list(scheduler.waiting) == [young, late] and young.handle is None
    run(scheduler, chunks)
    scheduler.remove(old)
    (chunk,) = scheduler.schedule()
    assert chunk.sequence is young and (chunk.start, chunk.stop) == (PAGE, 2 * PAGE)  # it had one page still


def test_one_that_starts_over_generates_its_tokens_one_by_one_again():
    """Kernels of prompts round in another way, and its text must not tell that it was interrupted."""
    scheduler = make_scheduler(n_pages=4, max_tokens=512)
    sequence = make_sequence(PAGE + 3)
    submit(scheduler, sequence)
    for _ in range(4):
        run(scheduler, scheduler.schedule())
    scheduler._preempt(sequence)
    chunks: list[list[Chunk]] = []
    while sequence.n_done < len(sequence.tokens):
        chunks.append(scheduler.schedule())
        scheduler.commit(chunks[-1])
    spans = [(c.start, c.count, c.n_outputs, c.is_prompt) for (c,) in chunks]
    assert spans == [(PAGE, 3, 0, True), *((PAGE + 3 + i, 1, int(i == 3), False) for i in range(4))]


def test_a_sequence_that_could_never_fit_is_refused_with_both_numbers():
    with pytest.raises(ContextOverflow) as caught:
        make_scheduler(n_pages=3).check(3 * PAGE + 1)
    assert (caught.value.needed, caught.value.available) == (3 * PAGE + 1, 3 * PAGE)


def test_a_paused_sequence_is_left_out_and_makes_way_when_its_room_is_needed():
    scheduler = make_scheduler(n_pages=2, max_tokens=512)
    lazy, eager = make_sequence(PAGE + 5, 1), make_sequence(PAGE + 5, 2)
    submit(scheduler, lazy)
    run(scheduler, scheduler.schedule())
    lazy.owner.is_paused = True
    assert not scheduler.has_work and scheduler.schedule() == []
    submit(scheduler, eager)
    assert scheduler.has_work
    assert [c.sequence for c in scheduler.schedule()] == [eager]
    lazy.owner.is_paused = False
    run(scheduler, scheduler.schedule())
    scheduler.remove(eager)
    assert [c.sequence for c in scheduler.schedule()] == [lazy]


def test_a_step_that_was_given_up_is_scheduled_again():
    scheduler = make_scheduler(max_tokens=64)
    submit(scheduler, make_sequence(30))
    first = scheduler.schedule()
    scheduler.roll_back(first)
    again = scheduler.schedule()
    assert [(c.start, c.count) for c in again] == [(c.start, c.count) for c in first]


def test_removing_frees_everything_and_may_be_repeated():
    scheduler = make_scheduler(n_pages=8)
    sequences = [make_sequence(40, i) for i in range(3)]
    submit(scheduler, *sequences)
    scheduler.schedule()
    for sequence in sequences * 2:
        scheduler.remove(sequence)
    assert scheduler.cache.num_available == 8 and not scheduler.running and not scheduler.waiting


class RecurrentHandle:
    """State that cannot be cut: it is either at its present length or gone."""

    def __init__(self) -> None:
        self.length = 0
        self.pages = ()


class RecurrentCache:
    """A cache of `slots` states, one per sequence: the other kind of state the scheduler must be able to drive."""

    capacity = 10**9

    def __init__(self, slots: int) -> None:
        self.free_slots, self.dirty = slots, set[RecurrentHandle]()

    def allocate(self, tokens: list[int], *, n_given: int, reuse: bool = True) -> RecurrentHandle | None:
        if not self.free_slots:
            return None
        self.free_slots -= 1
        return RecurrentHandle()

    def extend(self, handle: RecurrentHandle, length: int) -> bool:
        self.dirty.add(handle)
        return True

    def commit(self, handle: RecurrentHandle, tokens: list[int], length: int) -> None:
        handle.length = length
        self.dirty.discard(handle)

    def truncate(self, handle: RecurrentHandle, length: int) -> int:
        if handle in self.dirty or length < handle.length:
            handle.length = 0
        return handle.length

    def free(self, handle: RecurrentHandle) -> None:
        self.free_slots += 1


def test_recurrent_state_obeys_the_same_scheduler():
    scheduler = Scheduler(RecurrentCache(slots=1), max_tokens=10)
    first, second = make_sequence(15, 1), make_sequence(4, 2)
    submit(scheduler, first, second)
    chunks = scheduler.schedule()
    assert make_step(chunks).pages.shape == (1, 0)  # what has no pages gets a table without any
    run(scheduler, chunks)
    assert first.n_done == 10 and second.handle is None
    scheduler.roll_back(scheduler.schedule())
    assert first.n_done == 0  # the state was overwritten half way, so it starts over
    for _ in range(3):
        run(scheduler, scheduler.schedule())
    assert first.n_done == 16
    scheduler.remove(first)
    assert [c.sequence for c in scheduler.schedule()] == [second]


def test_what_the_runner_and_the_scheduler_read_of_a_handle_is_in_the_protocol():
    assert {"length", "pages"} <= {name for name in vars(CacheHandle) if not name.startswith("_")}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    prompts=st.lists(
        st.tuples(st.integers(1, 3 * PAGE), st.integers(1, 64), st.integers(0, 2), st.booleans()), max_size=8
    ),
    n_pages=st.integers(5, 9),
    max_tokens=st.integers(8, 100),
    events=st.randoms(use_true_random=False),
)
def test_everything_submitted_is_finished_whatever_happens(prompts, n_pages, max_tokens, events):
    """Random pauses, failed steps and removals: each step is within bounds, and every sequence gets all its tokens."""
    scheduler = make_scheduler(n_pages, max_tokens, max_outputs=8)
    wanted = {}
    for n, extra, salt, every_row in prompts:
        sequence = make_sequence(n, salt, every_row=every_row)
        wanted[sequence] = n if every_row else n + extra
        scheduler.check(wanted[sequence])
        scheduler.add(sequence)
    for _ in range(3000):
        if not wanted:
            break
        for sequence in wanted:
            sequence.owner.is_paused = events.random() < 0.1
        if not scheduler.has_work:
            continue
        chunks = scheduler.schedule()
        assert chunks, "there is work, but no step"
        _check_step(scheduler, chunks)
        if events.random() < 0.1:
            scheduler.roll_back(chunks)
            continue
        run(scheduler, chunks)
        for chunk in chunks:
            sequence = chunk.sequence
            have = chunk.stop if sequence.every_row else len(sequence.tokens)
            done = have >= wanted[sequence]
            if done or events.random() < 0.01:
                scheduler.remove(sequence)
                del wanted[sequence]
    assert not wanted, "somebody starved"
    assert scheduler.cache.num_available == n_pages


def _check_step(scheduler: Scheduler, chunks: list[Chunk]) -> None:
    assert sum(counts(chunks)) <= scheduler.max_tokens and min(counts(chunks)) > 0
    assert sum(c.n_outputs for c in chunks) <= scheduler.max_outputs
    assert len({id(c.sequence) for c in chunks}) == len(chunks)
    written = []
    for c in chunks:
        assert not c.sequence.owner.is_paused
        assert c.start == c.sequence.handle.length and c.stop <= len(c.sequence.tokens)
        written += c.sequence.handle.pages[c.start // PAGE : -(-c.stop // PAGE)]
    assert len(written) == len(set(written)), "two sequences write to one page"
    assert not any(scheduler.cache._is_shared(page) for page in written)
