"""Launches of attention (see lower.py): keys and values into their pages, states of parts, and what they come to."""

from __future__ import annotations

import numpy as np

from ...graph.ir import Node
from ...graph.plan import Buffer
from .allocate import Array
from .kernels import attention
from .lower import Lowering, Place, Run
from .lower_linear import at_once
from .now import Now
from .simt import WARP, WARPS, blocks

PROMPT_ROWS = 8  # query rows of a warp
SPLIT_TOKENS, PARTS = 8, 2 if WARPS == 1 else 32  # generated tokens at once, and parts of the pages they see
_F4 = np.float32


def lower_attention(low: Lowering, node: Node) -> None:
    if _is_rotated_here(low, node):
        _rotate_and_store(low, node)
    else:
        _kv_store(low, node)
    a = node.attrs
    q, pages = low.buffer(node.inputs[0]), low.layers[a["layer"]]
    n_head, group, value_dim = a["n_head"], a["n_head"] // a["n_head_kv"], a["value_dim"]
    tile = tile_tokens(node) if low.prompt else 1
    own = PROMPT_ROWS if low.prompt else at_once(group)
    slices, parts = -(-tile * group // own), 1 if low.prompt else PARTS
    most = low.max_tokens if low.prompt else min(SPLIT_TOKENS, low.max_tokens)
    states = Buffer(f"{node.name}.states", 4 * parts * most * n_head * (value_dim + 2))
    kernel = attention.attention(own, a["key_dim"], value_dim)
    shape = (n_head, a["n_head_kv"], _F4(a["scale"]), _F4(a["softcap"]), a["window"])
    where, tiles_of = low.inputs, low.inputs.tiles_of(tile, a["causal"])
    value = node.outputs[0]
    merges_codes = value_dim % 32 == 0 and not low.reads_floats(value)
    outs, types = (low.codes(value), (np.int8, _F4, _F4)) if merges_codes else ((low.buffer(value),), (_F4,))
    merge, heads = (attention.merge_quantized, (n_head,)) if merges_codes else (attention.merge, ())

    def bind(place: Place) -> Run:
        query, kept = place(q, _F4), place(states, _F4)
        to = [place(buffer, type_) for buffer, type_ in zip(outs, types, strict=True)]
        keys, values = low.pages.keys[a["layer"]], low.pages.values[a["layer"]]

        def run(now: Now) -> None:
            n_tiles = now.tiles(tile, a["causal"])
            step = n_tiles if low.prompt else most
            for first in range(0, n_tiles, step):
                count = min(step, n_tiles - first)
                tokens = now.n_tokens if low.prompt else count
                items = count * a["n_head_kv"] * slices * parts
                kernel[blocks(-(-items // WARPS)), (WARP, WARPS), now.stream](
                    query, keys, values, kept, tiles_of, first, count, slices, parts, *shape, where.positions,
                    where.sequence, where.pages, where.per_sequence, tokens * n_head,
                )  # fmt: skip
                before = 0 if low.prompt else first * n_head
                merge[blocks(tokens * n_head), WARP, now.stream](
                    kept, parts, value_dim, before, tokens * n_head, *heads, *to
                )

        return run

    low.add((q, pages), (*outs, states), bind)


def tile_tokens(node: Node) -> int:
    """Tokens of a tile of a prompt."""
    group: int = node.attrs["n_head"] // node.attrs["n_head_kv"]
    return max(1, PROMPT_ROWS // group)


def _kv_store(low: Lowering, node: Node) -> None:
    a, where = node.attrs, low.inputs
    k, v = (low.buffer(value) for value in node.inputs[1:])
    pages = low.layers.setdefault(a["layer"], Buffer(f"kv.{a['layer']}", 0))
    shape = a["n_head_kv"], a["key_dim"], a["value_dim"]

    def bind(place: Place) -> Run:
        new_keys, new_values = place(k, _F4), place(v, _F4)
        keys, values = low.pages.keys[a["layer"]], low.pages.values[a["layer"]]

        def run(now: Now) -> None:
            n = now.n_tokens
            attention.kv_store[blocks(n * a["n_head_kv"]), WARP, now.stream](
                new_keys, new_values, keys, values, *shape, where.positions, where.sequence, where.pages,
                where.per_sequence, n,
            )  # fmt: skip

        return run

    low.add((k, v), (pages,), bind)


def rotation(low: Lowering, node: Node) -> tuple[Array, np.float32, int, bool]:
    """What a rope node does to each head: inverse frequencies, mscale, columns that turn, and which go together."""
    a = node.attrs
    frequencies = np.ascontiguousarray(a["inv_freq"], _F4)
    return low.weights.array(frequencies.tobytes(), frequencies), _F4(a["mscale"]), a["n_rot"], a["style"] == "neox"


def stores_rotated(low: Lowering, node: Node) -> bool:
    """Whether a rope node is done by the launch that stores keys and values."""
    readers = low.readers(node.outputs[0])
    return len(readers) == 1 and readers[0].op == "attention" and _is_rotated_here(low, readers[0])


def _is_rotated_here(low: Lowering, node: Node) -> bool:
    """Whether queries and keys of attention are rotated alike, and nobody else reads either."""
    q, k = node.inputs[:2]
    makers = [low.maker(value) for value in (q, k)]
    if q.id == k.id or any(maker is None or maker.op != "rope" for maker in makers):
        return False
    if any(low.readers(value) != [node] or not low.is_own(value) for value in (q, k)):
        return False
    first, second = (dict(maker.attrs) for maker in makers if maker is not None)
    same = all(first[key] == second[key] for key in ("mscale", "n_rot", "style"))
    return same and np.array_equal(first["inv_freq"], second["inv_freq"])


def _rotate_and_store(low: Lowering, node: Node) -> None:
    a, where = node.attrs, low.inputs
    makers = [low.maker(value) for value in node.inputs[:2]]
    q, k = (low.buffer(maker.inputs[0]) for maker in makers if maker is not None)
    turned, v = low.buffer(node.inputs[0]), low.buffer(node.inputs[2])
    pages = low.layers.setdefault(a["layer"], Buffer(f"kv.{a['layer']}", 0))
    shape = a["n_head"], a["n_head_kv"], a["key_dim"], a["value_dim"]
    assert makers[0] is not None
    turns = rotation(low, makers[0])

    def bind(place: Place) -> Run:
        arrays = [place(buffer, _F4) for buffer in (q, k, v, turned)]
        keys, values = low.pages.keys[a["layer"]], low.pages.values[a["layer"]]

        def run(now: Now) -> None:
            n = now.n_tokens
            attention.rotate_and_store[blocks(n * (a["n_head"] + a["n_head_kv"])), WARP, now.stream](
                *arrays, keys, values, *shape, *turns, where.positions, where.sequence, where.pages,
                where.per_sequence, n,
            )  # fmt: skip

        return run

    low.add((q, k, v), (turned, pages), bind)
