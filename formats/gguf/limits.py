"""Bounds on what a GGUF file may claim. Each is far above every real file and low enough to be harmless."""

from __future__ import annotations

# Largest real headers (a 262k vocabulary with 500k merges) are near 20 MB. The bound keeps a sparse file of
# terabytes from keeping the parser busy.
MAX_HEADER_BYTES = 256 << 20

# Real files hold under 200 keys. Each costs about 350 bytes of Python objects, so parsing stays below 16 MB.
MAX_KEYS = 1 << 15

# The most real tensors are near 47,000 (256 experts times 61 layers, one tensor per expert and matrix).
MAX_TENSORS = 1 << 16

# The GGUF specification: keys have at most 2**16 - 1 bytes.
MAX_KEY_BYTES = (1 << 16) - 1

# ggml stores names in char[64] with a terminating NUL.
MAX_TENSOR_NAME_BYTES = 63

MAX_DIMS = 4

# Sizes must fit the signed 64-bit arithmetic of kernels and of NumPy.
MAX_INT64 = (1 << 63) - 1

DEFAULT_ALIGNMENT = 32

# 1 MiB: above every page size that files are aligned to (4, 16, 64 KiB). Padding is written out in full, so an
# unbounded alignment would let a 200-byte file ask the writer for gigabytes.
MAX_ALIGNMENT = 1 << 20

# Smallest encodings, used to refuse counts before any loop: key length, type and a 1-byte value; and name length,
# n_dims, type and offset.
MIN_KEY_BYTES = 8 + 4 + 1
MIN_TENSOR_BYTES = 8 + 4 + 4 + 8

# split.count is a UINT16.
MAX_SHARDS = (1 << 16) - 1
