"""A model's weights as float32 in a file of their own: programs that round what quantized weights are multiplied with
round nothing there.
"""

from __future__ import annotations

from pathlib import Path

from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.formats.quants import decode

from .common import cache_dir, note


def widened(path: Path) -> Path:
    """The file, written if it is not there yet; it is four to eight times as large."""
    out = cache_dir() / f"float32-{path.stem}.gguf"
    if out.exists():
        return out
    note(f"writing {out.name}")
    with GGUFFile.open(path) as file:
        writer = GGUFWriter(out)
        writer.add_all(file.metadata, exclude=("general.file_type", "general.quantization_version"))
        for name, tensor in file.tensors.items():
            writer.add_tensor(name, tensor.ne[::-1], GGMLType.F32)
        with writer.open():
            for name, tensor in file.tensors.items():
                writer.write_tensor(name, decode(tensor.data, tensor.type))
    return out
