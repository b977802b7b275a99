"""Ops on each element alone. The definition: runtime/ops/elementwise.py. `n` is the number of elements."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ..package import cuda
from .activations import ACTIVATIONS


@cuda.jit
def add(x, y, n, out):  # type: ignore[no-untyped-def]
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        out[i] = x[i] + y[i]


@cuda.jit
def scale(x, factor, n, out):  # type: ignore[no-untyped-def]
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        out[i] = x[i] * factor


@cuda.jit
def softcap(x, cap, n, out):  # type: ignore[no-untyped-def]
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        out[i] = cap * np.float32(math.tanh(x[i] / cap))


@cache
def activation(act: str) -> Any:
    apply = ACTIVATIONS[act]

    @cuda.jit
    def activation_of(x, n, out):  # type: ignore[no-untyped-def]
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            out[i] = apply(x[i])

    return activation_of


@cache
def glu(act: str) -> Any:
    apply = ACTIVATIONS[act]

    @cuda.jit
    def glu_of(gate, up, n, out):  # type: ignore[no-untyped-def]
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            out[i] = apply(gate[i]) * up[i]

    return glu_of
