"""GGUF: a single file with metadata and tensors."""

from __future__ import annotations

from .metadata import Metadata, MetadataScope
from .reader import GGUFFile
from .tensors import GGUFTensor
from .types import GGMLType, ValueType

__all__ = ["GGMLType", "GGUFFile", "GGUFTensor", "Metadata", "MetadataScope", "ValueType"]
