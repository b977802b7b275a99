"""Word numbers of the team's shared memory (int64). Words that several threads write are a cache line apart."""

from __future__ import annotations

LINE = 8  # words in a cache line

GENERATION, ARRIVED, PHASE, STOP, FAILED = (LINE * i for i in range(5))
_SHARED = 5 * LINE  # words that one thread writes
CALLS, N_CALLS, STEP_AT, STEP_CANCEL, N_THREADS, SHUTDOWN, YIELD, SLEEP, SLEEP_TIME, SPIN, STAMPS, ACTIVE, LATE = range(
    _SHARED, _SHARED + 13
)
BARRIER_SPIN = _SHARED + 13
MAX_THREADS = 62  # one bit each in `publish`
STEP_UNIT = 64  # GENERATION counts in these; what is below is the number of threads that walk the step
PARKED = 7 * LINE
SEEN = PARKED + MAX_THREADS * LINE
WORDS = SEEN + MAX_THREADS * LINE

# At a barrier: about 5 microseconds of pauses, as balanced work needs (CROWDED_SPINS where threads share cores); then
# as many offers of the core to others, half a microsecond each when there are none; then sleeps: the wait was long.
BARRIER_SPINS, CROWDED_SPINS = 100, 20
BARRIER_YIELDS = 100

# Work that is stolen, see kernels/share.py
QUEUE_BYTES = 8 * LINE  # of each thread in each call
CHUNKS = 8  # in a thread's range, unless they would be smaller or larger than
CHUNK_BYTES = 1 << 12, 1 << 16  # half a microsecond of reading; what the others may wait for at the end
