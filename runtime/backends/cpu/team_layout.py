"""Word numbers of the team's shared memory (int64). Words that several threads write are a cache line apart."""

from __future__ import annotations

LINE = 8  # words in a cache line

GENERATION, ARRIVED, PHASE, STOP, FAILED = (LINE * i for i in range(5))
_SHARED = 5 * LINE  # words that one thread writes
CALLS, N_CALLS, STEP_AT, STEP_CANCEL, N_THREADS, SHUTDOWN, YIELD, SLEEP, SLEEP_TIME, SPIN, STAMPS = range(
    _SHARED, _SHARED + 11
)
MAX_THREADS = 62  # one bit each in `publish`
PARKED = 7 * LINE
SEEN = PARKED + MAX_THREADS * LINE
WORDS = SEEN + MAX_THREADS * LINE

BARRIER_SPINS = 1000  # about 50 microseconds of pauses at a barrier, then
BARRIER_YIELDS = 100  # so many offers of the core to others, then sleeps

# Work that is stolen, see kernels/share.py
QUEUE_BYTES = 8 * LINE  # of each thread in each call
CHUNKS = 8  # in a thread's range, unless they would be smaller than
CHUNK_BYTES = 4096  # a microsecond of reading, a hundred times what taking a chunk costs
