"""Activation functions. The definition: runtime/ops/elementwise.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..simt import device

_MOST = np.float32(88.0)  # e^88 is the largest float32 of its kind


@device
def sigmoid(x):  # type: ignore[no-untyped-def]
    return np.float32(1.0) / (np.float32(1.0) + np.float32(math.exp(min(-x, _MOST))))


@device
def silu(x):  # type: ignore[no-untyped-def]
    return x / (np.float32(1.0) + np.float32(math.exp(min(-x, _MOST))))


@device
def gelu(x):  # type: ignore[no-untyped-def]
    return np.float32(0.5) * x * (np.float32(1.0) + np.float32(math.erf(x * np.float32(math.sqrt(0.5)))))


@device
def gelu_tanh(x):  # type: ignore[no-untyped-def]
    inner = np.float32(math.sqrt(2.0 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (np.float32(1.0) + np.float32(math.tanh(inner)))


ACTIVATIONS: dict[str, Any] = {"sigmoid": sigmoid, "silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}
