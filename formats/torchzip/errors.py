"""What can be wrong with a PyTorch checkpoint.

ModelFileError
|-- TorchFileError
    |-- TorchArchiveError    no zip archive as PyTorch writes it: damaged, compressed, parts missing
    |-- TorchPickleError     its description of tensors is damaged, or asks for something that is no tensor
    |-- TorchTensorError     a tensor does not lie inside its storage
"""

from __future__ import annotations

from ..errors import ModelFileError


class TorchFileError(ModelFileError):
    """Base of everything that can be wrong inside a PyTorch checkpoint."""


class TorchArchiveError(TorchFileError):
    """The zip archive is damaged or not laid out as PyTorch does it."""


class TorchPickleError(TorchFileError):
    """The pickle is damaged, or holds something else than tensors in plain containers."""


class TorchTensorError(TorchFileError):
    """A tensor's shape, strides and offset reach beyond its storage."""
