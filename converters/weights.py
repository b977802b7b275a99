"""The weights of a checkpoint as rows of floats, those of eight bits multiplied with the scales beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .checkpoint import Checkpoint, CheckpointError
from .fp8 import EIGHT_BITS, FLOATS, Scales
from .rows import Rows, stored


def weights(checkpoint: Checkpoint, ignored: Sequence[str] = ()) -> dict[str, Rows]:
    """All tensors but those whose name one of the regular expressions is found in, and scales.

    CheckpointError names a tensor of other numbers, or with a scale that does not fit; UnsupportedError a way to
    quantize that is not read.
    """
    scales, found = Scales.of(checkpoint), dict[str, Rows]()
    for name, tensor in checkpoint.tensors.items():
        if scales.takes(name) or any(re.search(pattern, name) for pattern in ignored):
            continue
        if tensor.dtype not in FLOATS:
            problem = f"numbers of the type {tensor.dtype} are no weights"
            raise CheckpointError(problem, path=tensor.path, field=name)
        found[name] = scales.multiplied(tensor) if tensor.dtype in EIGHT_BITS else stored(tensor)
    return found
