"""What can be wrong with a plan, found before anything is written."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import InvalidRequest, UnsupportedError
from ...formats.gguf import GGMLType, GGUFTensor
from ...formats.quants import CODECS, NotFiniteError
from .importance import Importance
from .plan import Planned
from .recipes import Kind

# The bits of an exponent that is all ones. NumPy has no bfloat16; to it these are integers.
_EXPONENTS = {"<f4": ("<u4", 0x7F800000), "<f2": ("<u2", 0x7C00)}
_BFLOAT16 = ("<u2", 0x7F80)
ALLOW = ". To go on all the same: allow_nonfinite (--allow-nonfinite)"


def check_plan(planned: list[Planned], importance: Importance | None, *, allow_requantize: bool) -> None:
    """InvalidRequest or UnsupportedError name the tensor for which the plan cannot be carried out as it was asked."""
    multiplied = [one.tensor.name for one in planned if one.kind not in (Kind.EMBEDDING, Kind.OUTPUT)]
    if importance is not None and multiplied and importance.columns.keys().isdisjoint(multiplied):
        raise InvalidRequest("the importance matrix is of another model: it knows none of these tensors")
    for one in planned:
        if one.is_copied:
            continue
        tensor, what = one.tensor, f"{one.tensor.path}: tensor {one.tensor.name!r}"
        if tensor.type not in CODECS:
            raise UnsupportedError(f"{what} is {tensor.type.name}, which cannot become {one.type.name}")
        if tensor.type.block_size > 1 and not allow_requantize:
            raise InvalidRequest(
                f"{what} is {tensor.type.name} already; making it {one.type.name} loses more than from the original "
                "weights. Quantize those, or allow it: allow_requantize (--allow-requantize)"
            )
        if columns_of(one, importance) is None and one.needs_importance:
            more = " (`halfbyte imatrix` makes one)" if importance is None else ", and the given one says nothing of it"
            raise InvalidRequest(f"{what} would become {one.type.name}, which needs an importance matrix{more}")


def columns_of(one: Planned, importance: Importance | None) -> NDArray[np.float32] | None:
    """The importance of a tensor's columns, float32 [experts, cols], or None. InvalidRequest if it is of other columns.

    Embeddings are looked up, not multiplied: what a file has for them counts only if it fits.
    """
    given = None if importance is None else importance.columns.get(one.tensor.name)
    if given is None:
        return None
    ne = one.tensor.ne
    wanted = ne[0] * math.prod(ne[2:])
    if given.size == wanted:
        return np.ascontiguousarray(given, np.float32).reshape(-1, ne[0])
    if one.kind is Kind.EMBEDDING:
        return None
    raise InvalidRequest(
        f"{one.tensor.path}: tensor {one.tensor.name!r}: the importance matrix has {given.size} numbers for it, "
        f"not {wanted}: it is of another model"
    )


def require_finite(tensor: GGUFTensor, type_: GGMLType, first_row: int, rows: NDArray[np.uint8]) -> None:
    """NotFiniteError for NaN or infinity among weights, uint8 [rows, row_bytes] of a type."""
    if type_ not in CODECS:
        return
    for row in np.flatnonzero(_suspects(type_, rows)):
        weights = CODECS[type_].decode(rows[row : row + 1])[0]
        for column in np.flatnonzero(~np.isfinite(weights))[:1]:
            where, value = f"{tensor.path}: tensor {tensor.name!r}", float(weights[column])
            raise NotFiniteError(type_.name, first_row + int(row), int(column), value, where, ALLOW)


def _suspects(type_: GGMLType, rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool [rows]: is a float of its blocks, such as a scale, NaN or infinite? Or a weight, if blocks have no float."""
    codec = CODECS[type_]
    blocks = np.ascontiguousarray(rows).view(codec.block)
    fields = {name: _EXPONENTS.get(codec.block[name].str) for name in codec.block.names or ()}
    found = [(blocks[name], how) for name, how in fields.items() if how is not None]
    if type_ is GGMLType.BF16:
        found = [(blocks["x"], _BFLOAT16)]
    if not found:
        return np.array([not np.isfinite(weights).all() for weights in codec.decode(rows)])
    bad = np.zeros(len(rows), np.bool_)
    for values, (dtype, exponent) in found:
        bad |= ((values.view(dtype) & exponent) == exponent).any(axis=1)
    return bad
