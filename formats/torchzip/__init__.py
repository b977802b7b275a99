"""PyTorch checkpoints, read by an allow-list: nothing in them is imported or run, and torch is not needed."""

from __future__ import annotations

from .errors import TorchFileError
from .reader import TorchFile

__all__ = ["TorchFile", "TorchFileError"]
