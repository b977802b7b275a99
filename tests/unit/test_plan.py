"""The arena never lets two living buffers share bytes, and barriers stand exactly where bytes conflict."""

from __future__ import annotations

from halfbyte.runtime.graph.plan import ALIGNMENT, Access, Arena, Buffer, barriers, place
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def programs(draw: st.DrawFn) -> list[Access]:
    buffers = [Buffer(f"b{i}", draw(st.integers(1, 500))) for i in range(draw(st.integers(1, 9)))]
    some = st.lists(st.sampled_from(buffers), max_size=3, unique=True)
    return [Access(tuple(draw(some)), tuple(draw(some))) for _ in range(draw(st.integers(1, 14)))]


def _lives(accesses: list[Access]) -> dict[Buffer, tuple[int, int]]:
    uses: dict[Buffer, list[int]] = {}
    for i, access in enumerate(accesses):
        for buffer in (*access.reads, *access.writes):
            uses.setdefault(buffer, []).append(i)
    return {buffer: (min(at), max(at)) for buffer, at in uses.items()}


@given(programs())
def test_buffers_alive_together_do_not_overlap(accesses: list[Access]) -> None:
    arena = place(accesses)
    lives = _lives(accesses)
    assert set(arena.offsets) == set(lives)
    for a in lives:
        assert arena.offsets[a] % ALIGNMENT == 0
        assert arena.offsets[a] + a.n_bytes <= arena.n_bytes
        for b in lives:
            together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            if a is not b and together:
                assert not arena.overlap(a, b)


@given(programs())
def test_every_conflict_has_a_barrier_between(accesses: list[Access]) -> None:
    arena = place(accesses)
    flags = barriers(accesses, arena)
    for i, earlier in enumerate(accesses):
        for j in range(i + 1, len(accesses)):
            later = accesses[j]
            touched = (*later.reads, *later.writes)
            conflict = any(arena.overlap(w, t) for w in earlier.writes for t in touched)
            conflict |= any(arena.overlap(r, w) for r in earlier.reads for w in later.writes)
            if conflict:
                assert any(flags[i + 1 : j + 1])


@given(programs())
def test_sharing_memory_costs_no_barrier(accesses: list[Access]) -> None:
    assert barriers(accesses, place(accesses)) == barriers(accesses, Arena({}, 0))


def test_what_one_call_is_done_with_is_not_given_to_the_next_of_its_phase() -> None:
    """Queries and keys are rotated side by side: the keys do not go where the queries were read."""
    q, k, q2, k2, y = (Buffer(n, 64) for n in ("q", "k", "q2", "k2", "y"))
    accesses = [Access((), (q,)), Access((), (k,)), Access((q,), (q2,)), Access((k,), (k2,)), Access((q2, k2), (y,))]
    arena = place(accesses)
    assert barriers(accesses, arena) == [False, False, True, False, True]
    assert arena.n_bytes == 4 * 64  # y takes the place of q


def test_memory_is_reused_and_independent_calls_share_a_barrier() -> None:
    x, q, k, y = (Buffer(n, 64) for n in "xqky")
    accesses = [Access((), (x,)), Access((x,), (q,)), Access((x,), (k,)), Access((q, k), (y,))]
    arena = place(accesses)
    assert arena.n_bytes == 3 * 64  # y takes the place of x
    assert barriers(accesses, arena) == [False, True, False, True]


def test_outside_buffers_are_not_placed_but_still_order_calls() -> None:
    state = Buffer("kv", 0)
    accesses = [Access((), (state,)), Access((state,), ())]
    arena = place(accesses, outside=[state])
    assert arena == Arena({}, 0)
    assert barriers(accesses, arena) == [False, True]
