"""The error of sampling parameters, in a file of its own because both sampling.py and its steps raise it."""

from __future__ import annotations

from ...formats.errors import InvalidRequest


class SamplingError(InvalidRequest):
    """A sampling parameter or a stop string is unusable."""
