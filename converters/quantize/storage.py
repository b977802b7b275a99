"""What a file has for the tensors of a plan: types of bitsandbytes are stored in other ways (formats/gguf/kinds.py).

    native            as bytes that keys describe; other programs list such a file, and refuse to run it
    q8_0-reversible   as Q8_0 that every program runs, and Halfbyte turns back into four bits
    bf16              as the weights that the codes stand for
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import InvalidRequest
from ...formats.gguf import GGMLType, Metadata
from ...formats.gguf.container import PackedTensor
from ...formats.gguf.kinds import INT8_KEY, KINDS, PREFIX, TOKENIZER, Kind, reversible_key
from ...formats.gguf.nested import dynamic_map
from ...formats.gguf.packing import Stored, container_keys, pack_nested, stored_form, unpack_nested
from ...formats.quants import codec_for, decode
from ...formats.quants.reversible import to_q8_0
from .plan import BF16, NATIVE, NF4_FORMS, REVERSIBLE, Planned

Rows = NDArray[np.uint8]
_SOURCE = "halfbyte quantize"


def stored_tensors(one: Planned) -> list[Stored]:
    """What is declared for a tensor."""
    return stored_form(one.name, one.tensor.shape, one.stored_type)


def keys_for(planned: Sequence[Planned], metadata: Metadata) -> dict[str, object]:
    """The keys that say how tensors are stored, where that needs to be said; of what is copied, as the source says."""
    logical = [Stored(one.name, one.stored_type, one.tensor.shape) for one in planned]
    keys = container_keys(logical, _SOURCE)
    rows = metadata.optional(INT8_KEY, list, [])
    lists = {INT8_KEY: [o.name for o in planned if o.type is GGMLType.INT8 or (o.is_copied and o.tensor.name in rows)]}
    for codes in ("nf4", "fp4"):
        lists[reversible_key(codes)] = [one.name for one in planned if _is_reversible(one, codes)]
    return keys | {key: names for key, names in lists.items() if names}


def _is_reversible(one: Planned, codes: str) -> bool:
    """Whether a tensor of Q8_0 is made of such codes."""
    kind = one.tensor.made_of if one.is_copied else one.type if one.nf4_as == REVERSIBLE else None
    return kind in KINDS and KINDS[kind].codes == codes


def is_own_key(key: str) -> bool:
    """Whether a key is about the tensors of the old file: how they are stored, were searched for or checked."""
    return key.startswith(PREFIX) and not key.startswith(TOKENIZER)


def stored_pieces(one: Planned, pieces: Iterable[Rows]) -> Iterator[tuple[str, Iterable[Rows]]]:
    """Names and bytes of what is declared, from rows of the planned type. They have to be taken in order."""
    kind, name = KINDS.get(one.type), one.name
    if kind is None:
        yield name, pieces
    elif not kind.nested:
        yield name, (_converted(rows, kind, one.nf4_as) for rows in pieces)
    else:
        bytes_, companion = _nested(one, kind, pieces)
        if one.nf4_as == NATIVE:
            yield name, [bytes_]
            yield kind.nested_name(name), [companion.view(np.uint8)]
        else:
            yield name, [_converted(unpack_nested(bytes_, kind, companion, dynamic_map()), kind, one.nf4_as)]


def _nested(one: Planned, kind: Kind, pieces: Iterable[Rows]) -> tuple[Rows, NDArray[np.float32]]:
    """All of a tensor: the offset of its absmaxes is their mean. What is copied keeps the codes that it has."""
    rows = np.concatenate([*pieces])
    tensor = one.tensor
    levels = tensor.levels if one.is_copied and isinstance(tensor, PackedTensor) else None
    if isinstance(tensor, PackedTensor) and levels is not None and np.array_equal(levels, dynamic_map()):
        return tensor.raw, tensor.nested
    return pack_nested(rows, kind)


def _converted(rows: Rows, kind: Kind, nf4_as: str) -> Rows:
    if nf4_as == REVERSIBLE:
        return to_q8_0(rows, kind)
    return codec_for(GGMLType.BF16).encode(decode(rows, kind.type)) if nf4_as == BF16 else rows


def check_forms(planned: Sequence[Planned], nf4_as: str) -> None:
    """InvalidRequest for a form that there is not, and where codes could not be told back."""
    if nf4_as not in NF4_FORMS:
        raise InvalidRequest(f"nf4_as={nf4_as!r}: one of {', '.join(map(repr, NF4_FORMS))} is needed")
    for one in planned:
        if nf4_as == REVERSIBLE and one.type in KINDS and KINDS[one.type].block < 64:
            raise InvalidRequest(
                f"{one.name!r}: blocks of 32 cannot be told back from Q8_0, only blocks of 64 and more; store them "
                "natively (nf4_as)"
            )
