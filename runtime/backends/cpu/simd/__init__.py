"""Vectors: emitted code (`emit`), vector values in Numba code (`types`, `table`), and functions on them (`math`)."""
