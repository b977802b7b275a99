"""The error of sampling, in a file of its own because both sampling.py and its steps raise it."""

from __future__ import annotations

from ...formats.errors import HalfbyteError


class SamplingError(HalfbyteError, ValueError):
    """A sampling parameter, the logits or a logits processor's result is unusable."""
