"""Hugging Face folders for tests, written without the safetensors package."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "uint8": "U8", "int8": "I8", "int64": "I64"}


def safetensors(tensors: Mapping[str, NDArray[Any]], dtypes: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file. `dtypes` names types that NumPy does not have; such tensors are given as bytes."""
    header: dict[str, Any] = {}
    end, parts = 0, []
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        dtype = (dtypes or {}).get(name) or DTYPES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + len(data)]}
        parts.append(data)
        end += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def write_folder(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], *, shards: int = 1
) -> Path:
    """A folder with config.json and the weights in so many shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(tensors))
        return folder
    names = list(tensors)
    where: dict[str, str] = {}
    for number in range(shards):
        mine = names[number::shards]
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        (folder / file).write_bytes(safetensors({name: tensors[name] for name in mine}))
        where |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder
