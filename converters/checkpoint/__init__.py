"""Hugging Face folders: their files by safe names, their JSON read strictly, their tensors as views of mapped files.

    paths.py    which files may be opened: those of the folder, and none that only pretend to be
    folder.py   the folder: config.json, tokenizer files, weights in one file or in shards

Nothing in a folder is ever imported or run.
"""

from __future__ import annotations

from .folder import Checkpoint
from .paths import CheckpointError

__all__ = ["Checkpoint", "CheckpointError"]
