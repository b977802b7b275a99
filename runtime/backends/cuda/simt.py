"""What kernels need of a GPU that Numba has no word for: loads at any address, instructions on four bytes at once, and
sums over a warp. Each has a second form for Numba's simulator, which knows none of them.

A warp is 32 threads in a row of `threadIdx.x`. In the simulator a warp meets at `syncthreads`: all threads of a block
must come to `warp_sum`, `warp_max` and `meet` equally often.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .package import SIMULATED, cuda

WARP = 32
WARPS = 1 if SIMULATED else 4  # of a block
THREADS = WARP if SIMULATED else 256  # of a block that works on a row together
MOST_BLOCKS = 1 if SIMULATED else 1 << 16  # of a grid; kernels go round where there is more to do

_on_gpu: Any = cuda.jit(device=True)

if SIMULATED:
    from . import simulated

    def device(function: Any) -> Any:
        """A function that kernels call; one that looks at `cuda` belongs into the file of its kernels.

        The simulator changes what `cuda` means in that file while a kernel runs; this takes it longer than most
        functions take.
        """
        return function

    byte, short, word, half, half_of = (
        simulated.byte, simulated.short, simulated.word, simulated.half, simulated.half_of,
    )  # fmt: skip
    four, put_four, float_of, bits_of = simulated.four, simulated.put_four, simulated.float_of, simulated.bits_of
    word_at, float_at, pair_at = simulated.word_at, simulated.float_at, simulated.pair_at
    four_at, floats_at, brain_pair = simulated.four_at, simulated.floats_at, simulated.brain_pair
    dp4a, prmt, funnel, wrapped = simulated.dp4a, simulated.prmt, simulated.funnel, simulated.wrapped

    @_on_gpu
    def _of_warp(x):  # type: ignore[no-untyped-def]
        """What the threads of a warp gave, float32 [32]. The threads meet once: two boxes are used in turn."""
        boxes = cuda.shared.array((2, 1024), np.float32)
        me = cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y
        box = boxes[simulated.turn()]
        box[me] = x
        cuda.syncthreads()
        return box[me // WARP * WARP : me // WARP * WARP + WARP]

    @_on_gpu
    def warp_sum(x):  # type: ignore[no-untyped-def]
        """The sum over the threads of a warp, in each of them."""
        values = np.array(_of_warp(x), np.float32)
        for distance in (16, 8, 4, 2, 1):  # in the order of a GPU
            values = values[:distance] + values[distance : 2 * distance]
        return values[0]

    @_on_gpu
    def warp_max(x):  # type: ignore[no-untyped-def]
        """The largest over the threads of a warp, in each of them."""
        return np.array(_of_warp(x), np.float32).max()

    @_on_gpu
    def meet():  # type: ignore[no-untyped-def]
        """The threads of a warp see what the others wrote to shared memory before."""
        cuda.syncthreads()

    @_on_gpu
    def _together(words):  # type: ignore[no-untyped-def]
        """(number of a lane, the words of all lanes of its warp), which meet once."""
        boxes = cuda.shared.array((2, 1024, 6), np.int32)
        me = cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y
        box = boxes[simulated.turn()]
        for i in range(len(words)):
            box[me, i] = words[i]
        cuda.syncthreads()
        first = me // WARP * WARP
        return me % WARP, box[first : first + WARP, : len(words)]

    @_on_gpu
    def products_of_16(a, b, c):  # type: ignore[no-untyped-def]
        """See instructions.py."""
        lane, words = _together((*a, *b))
        return simulated.products(lane, words, 1, c)

    @_on_gpu
    def products_of_32(a, b, c):  # type: ignore[no-untyped-def]
        """See instructions.py."""
        lane, words = _together((*a, *b))
        return simulated.products(lane, words, 2, c)

    @_on_gpu
    def products_of_floats(a, b, c):  # type: ignore[no-untyped-def]
        """See instructions.py."""
        lane, words = _together((*a, *b))
        return simulated.products_of_floats(lane, words, c)

    def shared(size: int, dtype: Any) -> Any:
        """A function that gives a kernel an array in shared memory, at an address that is a multiple of 16."""

        @_on_gpu
        def get():  # type: ignore[no-untyped-def]
            return cuda.shared.array(size, dtype)

        return get

else:
    device = _on_gpu
    from .instructions import (
        bits_of,
        brain_pair,
        byte,
        dp4a,
        float_at,
        float_of,
        floats_at,
        four,
        four_at,
        funnel,
        half,
        half_of,
        pair_at,
        prmt,
        products_of_16,
        products_of_32,
        products_of_floats,
        put_four,
        short,
        word,
        word_at,
    )  # fmt: skip

    def shared(size: int, dtype: Any) -> Any:
        """A function that gives a kernel an array in shared memory, at an address that is a multiple of 16."""

        @cuda.jit(device=True, inline="always")
        def get():  # type: ignore[no-untyped-def]
            return cuda.shared.array(size, dtype, alignment=16)

        return get

    @device
    def wrapped(x):  # type: ignore[no-untyped-def]
        """The lowest 32 bits as int32."""
        return np.int32(x)

    @_on_gpu
    def warp_sum(x):  # type: ignore[no-untyped-def]
        """The sum over the threads of a warp, in each of them."""
        for distance in (16, 8, 4, 2, 1):
            x += cuda.shfl_xor_sync(0xFFFFFFFF, x, distance)
        return x

    @_on_gpu
    def warp_max(x):  # type: ignore[no-untyped-def]
        """The largest over the threads of a warp, in each of them."""
        for distance in (16, 8, 4, 2, 1):
            x = max(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, distance))
        return x

    @_on_gpu
    def meet():  # type: ignore[no-untyped-def]
        """The threads of a warp see what the others wrote to shared memory before."""
        cuda.syncwarp()


def shared_bytes(size: int) -> Any:
    return shared(size, np.uint8)


def blocks(count: int) -> int:
    """Of a grid, for `count` of them or more to do."""
    return max(1, min(count, MOST_BLOCKS))


@_on_gpu
def block_sum(x):  # type: ignore[no-untyped-def]
    """The sum over the threads of a block, in each of them."""
    sums = cuda.shared.array(32, np.float32)
    total = warp_sum(x)
    if cuda.threadIdx.x % WARP == 0:
        sums[cuda.threadIdx.x // WARP] = total
    cuda.syncthreads()
    total = np.float32(0.0)
    for k in range(cuda.blockDim.x // WARP):
        total += sums[k]
    cuda.syncthreads()
    return total


__all__ = [
    "THREADS", "WARP", "WARPS", "bits_of", "block_sum", "blocks", "brain_pair", "byte", "device", "dp4a", "float_at",
    "float_of", "floats_at", "four", "four_at", "funnel", "half", "half_of", "meet", "pair_at", "prmt",
    "products_of_16", "products_of_32", "products_of_floats", "put_four", "shared", "shared_bytes", "short", "warp_max",
    "warp_sum", "word", "word_at", "wrapped",
]  # fmt: skip
