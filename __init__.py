"""Halfbyte: run, convert and quantize language models from pure Python."""

from __future__ import annotations

from .version import __version__

__all__ = ["__version__"]
