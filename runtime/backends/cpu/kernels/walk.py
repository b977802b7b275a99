"""How a step runs: every thread of the team walks the table of calls and meets the others where the plan says so.

Team memory (int64 words, the shared ones a cache line apart):

    GENERATION  counts steps, and says how many threads walk this one; a change is the signal to start
    ARRIVED, PHASE  the barrier                                    LATE            counts waits there that were long
    STOP        set at a barrier when the step's cancel word is    FAILED          1 + number of a call that failed
    PARKED + 8 t   1 while thread t sleeps outside                 SEEN + 8 t      the last step thread t has walked
    STAMPS      where times are noted (profile.py), 0: nowhere
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ..jit import device
from ..simd.atomic import atomic_add, atomic_load, atomic_store, atomic_swap
from ..simd.emit import I8, I32, I64, Emitter, Vec
from ..simd.types import address, emitted
from ..team_layout import (
    ACTIVE,
    ARRIVED,
    BARRIER_SPIN,
    BARRIER_YIELDS,
    CALLS,
    FAILED,
    GENERATION,
    LATE,
    N_CALLS,
    N_THREADS,
    PARKED,
    PHASE,
    SEEN,
    SHUTDOWN,
    SLEEP,
    SLEEP_TIME,
    SPIN,
    STAMPS,
    STEP_AT,
    STEP_CANCEL,
    STEP_UNIT,
    STOP,
    YIELD,
)  # fmt: skip

i64 = types.int64


@emitted(types.void, i64)
def pause(e: Emitter, _: Vec) -> None:
    """Tell the core that this is a spin loop."""
    triple = e.b.module.triple
    if triple.startswith(("x86_64", "i386", "i686", "amd64")):
        e.b.call(_declared(e, "llvm.x86.sse2.pause", []), [])
    elif triple.startswith(("aarch64", "arm64")):
        e.b.call(_declared(e, "llvm.aarch64.hint", [I32]), [ir.Constant(I32, 1)])


def _declared(e: Emitter, name: str, arguments: list[ir.Type]) -> ir.Function:
    return cgutils.get_or_insert_function(e.b.module, ir.FunctionType(ir.VoidType(), arguments), name)


@emitted(types.void, address, i64)
def call_system(e: Emitter, function: Vec, argument: Vec) -> None:
    """int f(int): sched_yield, usleep and their like."""
    kind = ir.FunctionType(I32, [I32])
    e.b.call(e.b.inttoptr(function.ll, kind.as_pointer()), [e.b.trunc(argument.ll, I32)])


@emitted(i64, types.UniTuple(address, 3), types.UniTuple(i64, 2))
def call_kernel(e: Emitter, where: Vec, who: Vec) -> Vec:
    """Call the kernel at where[0] with args where[1] and step where[2] as thread who[0] of who[1]; its status, or 0."""
    b = e.b
    pointer = I8.as_pointer()
    kind = ir.FunctionType(I32, [pointer.as_pointer(), pointer.as_pointer(), pointer, pointer, I64, I64])
    with b.goto_entry_block():
        result, error = b.alloca(pointer), b.alloca(pointer)
    kernel, args, step = (b.extract_value(where.ll, i) for i in range(3))
    tid, nth = (b.extract_value(who.ll, i) for i in range(2))
    status = b.call(
        b.inttoptr(kernel, kind.as_pointer()),
        [result, error, b.inttoptr(args, pointer), b.inttoptr(step, pointer), tid, nth],
    )
    return Vec(e, b.sext(status, I64))


def emit_ticks(e: Emitter, _: Vec) -> Vec:
    """A counter that runs at one speed and is the same on all cores; always 0 where none is known."""
    triple = e.b.module.triple
    if triple.startswith(("x86_64", "i386", "i686", "amd64")):
        return e.call("llvm.readcyclecounter", I64)
    if triple.startswith(("aarch64", "arm64")):  # there readcyclecounter is a register that programs may not read
        name = e.b.module.add_metadata(["cntvct_el0"])
        kind = ir.FunctionType(I64, [ir.MetaDataType()])
        function = cgutils.get_or_insert_function(e.b.module, kind, "llvm.read_volatile_register.i64")
        return Vec(e, e.b.call(function, [name]))
    return e.scalar(I64, 0)


ticks = emitted(i64, i64)(emit_ticks)


@device
def _at(team, word):  # type: ignore[no-untyped-def]
    return team + np.uint64(8 * word)


@device
def _barrier(team, nth):  # type: ignore[no-untyped-def]
    """Wait for all threads. The last to arrive decides whether the step goes on, so that all decide alike."""
    phase = atomic_load(_at(team, PHASE))
    if atomic_add(_at(team, ARRIVED), 1) == nth - 1:
        atomic_store(_at(team, ARRIVED), 0)
        cancel = np.uint64(atomic_load(_at(team, STEP_CANCEL)))
        atomic_store(_at(team, STOP), atomic_load(cancel))
        atomic_add(_at(team, PHASE), 1)
        return
    spins, limit = 0, atomic_load(_at(team, BARRIER_SPIN))
    while atomic_load(_at(team, PHASE)) == phase:
        spins += 1
        if spins == limit + BARRIER_YIELDS:
            atomic_add(_at(team, LATE), 1)
        _wait(team, spins, limit)


@device
def _wait(team, spins, limit):  # type: ignore[no-untyped-def]
    """Spin, then yield, then sleep: when a neighbour has the other core, the thread waited for may need this one."""
    if spins < limit:
        pause(0)
    elif spins < limit + BARRIER_YIELDS:
        call_system(np.uint64(atomic_load(_at(team, YIELD))), 0)
    else:
        call_system(np.uint64(atomic_load(_at(team, SLEEP))), atomic_load(_at(team, SLEEP_TIME)))


@device
def _stamp(stamps, k):  # type: ignore[no-untyped-def]
    """Note the time as word k of this thread's row, if anybody is measuring (see profile.py)."""
    if stamps != 0:
        atomic_store(stamps + np.uint64(8 * k), ticks(0))


@device
def _walk(team, tid, nth):  # type: ignore[no-untyped-def]
    calls = np.uint64(atomic_load(_at(team, CALLS)))
    step = np.uint64(atomic_load(_at(team, STEP_AT)))
    n = atomic_load(_at(team, N_CALLS))
    stamps = np.uint64(atomic_load(_at(team, STAMPS)))
    if stamps != 0:
        stamps += np.uint64(8 * (2 * n + 2) * tid)
    _stamp(stamps, 0)
    for i in range(n):
        call = calls + np.uint64(24 * i)
        if atomic_load(call + np.uint64(16)) != 0:
            _barrier(team, nth)
            if atomic_load(_at(team, STOP)) != 0:
                break
        where = (np.uint64(atomic_load(call)), np.uint64(atomic_load(call + np.uint64(8))), step)
        _stamp(stamps, 2 * i + 1)
        if call_kernel(where, (tid, nth)) != 0:
            atomic_store(_at(team, FAILED), i + 1)
        _stamp(stamps, 2 * i + 2)
    _barrier(team, nth)
    if tid == 0:  # only here is nobody able to take the memory away yet
        _stamp(stamps, 2 * n + 1)


def serve(team: int, tid: int) -> int:
    """A thread's life between two sleeps: walk every step that is published, wait a little for the next, then return.

    Returns 1 when the caller should sleep until it is woken (PARKED is set, or has just been taken by the publisher), 0
    to end the thread.
    """
    seen = atomic_load(_at(team, SEEN + 8 * tid))
    limit = atomic_load(_at(team, SPIN))
    give_way = np.uint64(atomic_load(_at(team, YIELD)))
    spins = 0
    while True:
        # In this order: the shutdown counts as a generation too, and its step would be walked by nobody else.
        now = atomic_load(_at(team, GENERATION))
        if atomic_load(_at(team, SHUTDOWN)) != 0:
            return 0
        if now != seen:
            seen = now
            atomic_store(_at(team, SEEN + 8 * tid), seen)
            # Both from one word: the number of threads of another step would be a wrong one.
            if tid < seen % STEP_UNIT:
                _walk(team, tid, seen % STEP_UNIT)
                spins = 0
            else:
                spins = limit  # the next steps will hardly need this thread either
            continue
        spins += 1
        if spins < limit:
            pause(0)
            if spins % 256 == 0:
                call_system(give_way, 0)
            continue
        atomic_store(_at(team, PARKED + 8 * tid), 1)
        woken = atomic_load(_at(team, GENERATION)) != seen or atomic_load(_at(team, SHUTDOWN)) != 0
        if woken and atomic_swap(_at(team, PARKED + 8 * tid), 0) == 1:
            spins = 0
            continue
        return 1


def lead(team: int, tid: int) -> int:
    """The publisher's own share of the step, as thread 0. Returns 1 + the number of a failed call, or 0."""
    _walk(team, tid, atomic_load(_at(team, GENERATION)) % STEP_UNIT)
    return atomic_load(_at(team, FAILED))


def clock(team: int, tid: int) -> int:
    """The counter of the stamps, to find out how fast it runs."""
    return ticks(0)


def publish(team: int, tid: int) -> int:
    """Signal a new step (or the shutdown, already set); returns a bit for each parked thread, which must be woken."""
    active = atomic_load(_at(team, ACTIVE))
    if atomic_load(_at(team, SHUTDOWN)) != 0:
        active = atomic_load(_at(team, N_THREADS))
    steps = atomic_load(_at(team, GENERATION)) // STEP_UNIT
    atomic_store(_at(team, GENERATION), (steps + 1) * STEP_UNIT + active)
    parked = 0
    for t in range(1, active):
        if atomic_swap(_at(team, PARKED + 8 * t), 0) == 1:
            parked |= 1 << t
    return parked
