"""The safetensors format: a bounds-checked, zero-copy reader with the verdicts of the reference implementation."""

from __future__ import annotations

from .errors import SafetensorsError
from .reader import SafetensorsFile

__all__ = ["SafetensorsError", "SafetensorsFile"]
