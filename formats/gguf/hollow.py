"""A model without its weights: names and shapes, which is all that building and checking its graph takes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .reader import GGUFFile
from .tensors import GGUFTensor
from .types import GGMLType


@dataclass(frozen=True, slots=True)
class HollowTensor(GGUFTensor):
    """A matrix of zeros that take no memory."""

    whole: GGUFTensor

    @property
    def data(self) -> NDArray[np.uint8]:
        """See GGUFTensor; all of it is zero."""
        return np.broadcast_to(np.uint8(0), (*self.shape[:-1], self.row_bytes))

    @property
    def made_of(self) -> GGMLType | None:
        return self.whole.made_of


def hollow(model: GGUFFile) -> GGUFFile:
    """The same model, of which only vectors are read: some of them, as factors of rotation, decide what is computed.

    It lives as long as `model`, which is the one to close.
    """
    made = copy.copy(model)
    made.tensors = MappingProxyType({name: _emptied(tensor) for name, tensor in model.tensors.items()})
    return made


def _emptied(tensor: GGUFTensor) -> GGUFTensor:
    if len(tensor.ne) == 1:
        return tensor
    t = tensor
    return HollowTensor(t.name, t.type, t.ne, t.offset, t.n_bytes, t.byte_order, t._source, tensor)
