"""GGUF: one file that holds a model's metadata and tensors.

A file, version 2 or 3, in little or big endian (all integers unsigned; a string is a u64 length and UTF-8):

    "GGUF" | version u32 | n_tensors u64 | n_kv u64
    n_kv times       key string | value type u32 | value
    n_tensors times  name string | n_dims u32 | ne u64[n_dims] | type u32 | offset u64
    zeros up to a multiple of general.alignment (32 unless set)
    tensor data, each tensor padded to the alignment; offsets count from here

Reading, in the order of the data:

    source    map the file, or explain why not          sniff    what a file that is not GGUF is
    cursor    bounded reads of untrusted bytes          limits   every bound, with its reason
    values    metadata values, decoded when asked       tensors  shapes, sizes, zero-copy data
    header    all of the above into a validated header  split    shards and the keys that tie them
    metadata  typed access                              reader   GGUFFile
    kinds     tensors that files store as bytes         container  how they appear as what they stand for
    hollow    a model without its weights

Writing: `encode` (values to bytes), `plan` (exact sizes and offsets before the first byte), `pieces` (data of any form
to bytes), `durable` (.partial, fsync, rename; `reserve`: its space), `output` (order and completeness), `writer`
(GGUFWriter); where work that was stopped goes on: `journal` (what is whole), `checksum`, `resume` (whether it is); and
`packing` and `nested` make the bytes and keys of tensors that files have no type for.

Files are hostile until proven otherwise: sizes are exact Python ints, a length is compared with the bytes that remain
before it is used, and each way to be wrong has its own class in `errors` with file, offset, field, value and bound.
Opening allocates no more than about 4 times the header and 16 MB.
"""

from __future__ import annotations

from .hollow import hollow
from .metadata import Metadata, MetadataScope
from .reader import GGUFFile
from .tensors import GGUFTensor
from .types import GGMLType, ValueType
from .writer import GGUFWriter

__all__ = ["GGMLType", "GGUFFile", "GGUFTensor", "GGUFWriter", "Metadata", "MetadataScope", "ValueType",
           "hollow"]
