"""Argument structs: what a kernel is given, as NumPy record types that Python fills in and kernels read by field name.

Addresses are uint64, sizes int64. Rows of activations are contiguous: `[rows, cols]` float32 unless said otherwise.
The number of rows is not in the arguments, because it changes with every step: kernels compute it from the step record
as `n_tokens` or `n_outputs` (field `on_outputs`) times `repeat`.
`queue` is where threads take work from each other (kernels/share.py); the executor fills it in, 0 is none.
"""

from __future__ import annotations

import numpy as np

from .features import target

_PTR = "u8"
_INT = "i8"


def _struct(**fields: str) -> np.dtype:
    return np.dtype(list(fields.items()), align=True)


# The step: written once per step by the executor, read by every kernel.
STEP = _struct(
    n_tokens=_INT,
    n_outputs=_INT,
    n_sequences=_INT,
    pages_per_sequence=_INT,  # row length of the page table
    tokens=_PTR,  # int32 [n_tokens]
    positions=_PTR,  # int32 [n_tokens]
    sequence=_PTR,  # int32 [n_tokens]
    pages=_PTR,  # int32 [n_sequences, pages_per_sequence]
    outputs=_PTR,  # int32 [n_outputs]
    cancel=_PTR,  # int64, non-zero when the step is to stop
    scratch=_PTR,  # private memory: thread t owns scratch[t * scratch_bytes : (t + 1) * scratch_bytes]
    scratch_bytes=_INT,
)

# Activations as int8 for products of rows, in packets of 256 columns (linear/packets.py): where the parts of a packet
# are. Of each lane: its scale, minus the sum of its codes, the sum of its activations, and minus the sum of the codes
# in the first two vectors. A packet is an odd number of cache lines, so that those of several tokens do not compete for
# the same places of the first-level cache.
PACKET_PARTS = {"codes": 0, "scale": 256, "neg": 320, "sum": 384, "neg_first": 448}
PACKET_COLS, PACKET_BYTES = 256, 576


def packets_bytes(rows: int, cols: int) -> int:
    """Size of the packets of so many rows."""
    return rows * -(-cols // PACKET_COLS) * PACKET_BYTES


# The same for products of panels, in one array of whole tiles of tokens, see linear/act.py.
PACKED_BYTES = 64  # for each token and 32 columns


def tiled(tokens: int) -> int:
    """Tokens of whole tiles of a product of panels."""
    tile = target().isa.gemm_tile[1]
    return -(-tokens // tile) * tile


_ROWS = {"cols": _INT, "repeat": _INT, "on_outputs": _INT}

_PRODUCT = {
    "w": _PTR, "row_bytes": _INT, "n": _INT, "bias": _PTR, "residual": _PTR, "out": _PTR, "x": _PTR, **_ROWS,
    "limit": _INT,  # rows up to which linear_rows does the work, above which the others do; -1: one a sequence
    "queue": _PTR,
}  # fmt: skip

_ARGS: dict[str, np.dtype] = {
    # x [rows, cols] -> x ~ scale * (code + zero): for each 32 columns int8 codes, and scale, minus the sum
    # of codes, and terms of corrections
    "quantize": _struct(x=_PTR, packed=_PTR, **_ROWS),
    # The same in packets
    "quantize_packets": _struct(x=_PTR, packets=_PTR, **_ROWS),
    # x [rows, cols] -> bfloat16 tiles, see linear/brain.py: what x rounds to, and what the rounding dropped
    "brain": _struct(x=_PTR, high=_PTR, low=_PTR, **_ROWS),
    # x [rows, cols] -> bfloat16 in the same tiles of tokens as int8, see linear/pairs.py
    "pack_pairs": _struct(x=_PTR, packed=_PTR, **_ROWS),
    # out [rows, n] = residual [rows, n] + (activations [rows, cols] times weight [n, cols] + bias); residual and bias
    # may be absent (0), and residual is not out. For products of rows, x are packets where the weight is quantized
    "linear_rows": _struct(**_PRODUCT),
    "linear_gemm": _struct(**_PRODUCT, packed=_PTR),
    "linear_pairs": _struct(**_PRODUCT, packed=_PTR),
    "linear_tiles": _struct(**_PRODUCT, high=_PTR, low=_PTR),
    # out [rows, n] = act(activations times gate + gate_bias) * (activations times up + up_bias); out as float32, as
    # int8, or both: what is not wanted has the address 0
    "linear_glu": _struct(
        gate=_PTR, up=_PTR, row_bytes=_INT, n=_INT, gate_bias=_PTR, up_bias=_PTR, out=_PTR, packets=_PTR, x=_PTR,
        **_ROWS, queue=_PTR,
    ),
    # rows by token id, by position, or always the first: sources 0, 1, 2, in the order of ops/embed.py
    "embed": _struct(w=_PTR, row_bytes=_INT, n=_INT, out=_PTR, source=_INT, factor="f4", cols=_INT),
    "rms_norm": _struct(x=_PTR, weight=_PTR, out=_PTR, eps="f4", heads=_INT, **_ROWS),
    # the norm of whole rows as int8, and as float32 if out is not 0
    "rms_norm_quantize": _struct(x=_PTR, weight=_PTR, out=_PTR, packets=_PTR, eps="f4", **_ROWS),
    "layer_norm": _struct(x=_PTR, weight=_PTR, bias=_PTR, out=_PTR, eps="f4", **_ROWS),
    "add": _struct(x=_PTR, y=_PTR, out=_PTR, **_ROWS),
    "scale": _struct(x=_PTR, out=_PTR, factor="f4", **_ROWS),
    "glu": _struct(gate=_PTR, up=_PTR, out=_PTR, **_ROWS),
    "activation": _struct(x=_PTR, out=_PTR, **_ROWS),
    "softcap": _struct(x=_PTR, out=_PTR, cap="f4", **_ROWS),
    "take_rows": _struct(x=_PTR, out=_PTR, cols=_INT),
    # x [rows, n_head * head_dim] rotated by positions; inv_freq float32 [n_rot / 2]
    "rope": _struct(
        x=_PTR, out=_PTR, inv_freq=_PTR, mscale="f4", n_head=_INT, head_dim=_INT, n_rot=_INT, neox=_INT,
    ),
    # key and value rows into the pages of one layer
    "kv_store": _struct(
        k=_PTR, v=_PTR, keys=_PTR, values=_PTR, n_head_kv=_INT, key_dim=_INT, value_dim=_INT,
        counters=_PTR,  # of attention_decode, or 0
    ),
    "attention": _struct(
        q=_PTR, keys=_PTR, values=_PTR, out=_PTR, n_head=_INT, n_head_kv=_INT, key_dim=_INT, value_dim=_INT,
        scale="f4", window=_INT, softcap="f4", queue=_PTR,
        whole=_INT,  # of attention alone: tokens see their whole text, not only what came before them
        packets=_PTR, partials=_PTR, counters=_PTR,  # of attention_decode alone: out as int8 or 0, states, parts done
    ),
    # logits [n_tokens, n_expert] -> ids int32 [n_tokens, n_used], weights [n_tokens, n_used]
    "moe_route": _struct(
        logits=_PTR, ids=_PTR, weights=_PTR, n_expert=_INT, n_used=_INT, normalize=_INT, factor="f4", on_outputs=_INT,
    ),
    # row r of out [n_tokens * n_used, n] uses expert ids[r] of weight [n_expert, n, cols]; `shared`: x has one row a
    # token
    "expert_rows": _struct(
        w=_PTR, row_bytes=_INT, n=_INT, n_expert=_INT, bias=_PTR, out=_PTR, ids=_PTR, n_used=_INT, shared=_INT,
        x=_PTR, cols=_INT, on_outputs=_INT, queue=_PTR,
    ),
    "expert_combine": _struct(y=_PTR, weights=_PTR, out=_PTR, n_used=_INT, cols=_INT, on_outputs=_INT),
    # n batches of 16 groups of x float32 [..., cols] to blocks; with an importance `columns` float32 [cols] and `power`
    # float32 of each row; for lattice types `points` (see points.py). `bad` becomes 1 where something cannot be encoded
    "encode": _struct(x=_PTR, out=_PTR, columns=_PTR, power=_PTR, points=_PTR, bad=_PTR, n=_INT, cols=_INT),
    # what the machine can do at most (floors.py): read blocks of PROBE_BLOCK bytes; `rounds` of multiply-adds
    "probe_read": _struct(at=_PTR, blocks=_INT, out=_PTR),
    "probe_int8": _struct(x=_PTR, out=_PTR, rounds=_INT),
    "probe_float": _struct(x=_PTR, out=_PTR, rounds=_INT),
    "probe_pairs": _struct(x=_PTR, out=_PTR, rounds=_INT),
    "probe_tiles": _struct(x=_PTR, out=_PTR, rounds=_INT),
}  # fmt: skip

# Products of rows take so many tokens and rows at once. Their private memory: the last blocks of a matrix, copied where
# whole packets' worth would go beyond it; and for each row a vector of sums for each token, and behind those the
# products, in a line of their own (linear/part.py).
SEVERAL, ROWS_AT_ONCE = 8, 4
TAIL_BYTES, PRODUCTS_AT = 512, SEVERAL * 64
SUMS_BYTES = PRODUCTS_AT + 64
ROW_SCRATCH_BYTES = TAIL_BYTES + ROWS_AT_ONCE * SUMS_BYTES
GATED_ROWS = 32  # rows of one block of linear_glu
GATED_SCRATCH_BYTES = ROW_SCRATCH_BYTES + 4 * 2 * GATED_ROWS * SEVERAL
GROUP_SCRATCH_BYTES = 4 * 32  # one group of columns, for rms_norm_quantize

# Encoders take so many groups of weights at once, with a line of memory for each weight, its cost and its code, and
# others for what they search; IQ1_S needs most.
GROUPS, LINE_BYTES, ENCODE_LINES = 16, 64, 400
ENCODE_SCRATCH_BYTES = LINE_BYTES * ENCODE_LINES

OCT = 8  # rows of a panel that are transposed at once
ROW_SPACE = 256  # bytes of one unpacked row before it is transposed


def gemm_scratch_bytes(cols: int) -> int:
    """Private memory of a product of panels (linear/gemm.py): tile, first values, units, row buffers, lines, panel."""
    isa = target().isa
    registers, tile = isa.gemm_tile
    rows = isa.lanes * registers
    lines = 4 * 4 * rows * (cols // 16 + 1)
    return 4 * rows * (tile + 2) + OCT * ROW_SPACE + lines + 4 * rows * cols + 256


_ARGS["attention_blocks"] = _ARGS["attention_decode"] = _ARGS["attention"]

# Products of tiles work on slabs: so many rows and columns of a weight unpacked, for so many tokens.
SLAB_ROWS, SLAB_COLS, SLAB_TOKENS = 256, 256, 512

# Private memory of a product of tiles (linear/tiles.py): the high and low parts of a slab, which may be almost twice as
# wide as the others, the sums, and 16 biases for each 16 rows.
TILE_SCRATCH_BYTES = 2 * 2 * SLAB_ROWS * 2 * SLAB_COLS + 4 * SLAB_ROWS * SLAB_TOKENS + 4 * SLAB_ROWS + 64


# Attention works on tiles: as many tokens of one sequence as make TILE_ROWS query rows of one key/value head.
TILE_ROWS = 64
PROMPT_ROWS = 512  # the same of prompts in tile registers, where widening a page costs more than multiplying with it
PANEL = 8  # query rows of one microkernel

# Decode splits the pages that a token sees into parts of at least so many, and at most so many parts, in steps of up to
# so many tokens. Eight pages of 64 dims are 64 KB of keys and values; merging their states reads less than one of them.
PART_PAGES, MOST_PARTS, SPLIT_TOKENS = 8, 16, 8


def state_bytes(n_head: int, n_head_kv: int, value_dim: int) -> int:
    """Size of the state of one key/value head after some pages (kernels/attention_decode.py)."""
    return (4 * (n_head // n_head_kv) * (-(-value_dim // 16) * 16 + 17) + 60) // 64 * 64


def partials_bytes(n_head: int, n_head_kv: int, value_dim: int) -> int:
    """Shared memory for the states of all parts of a step."""
    return SPLIT_TOKENS * n_head_kv * MOST_PARTS * state_bytes(n_head, n_head_kv, value_dim)


def decode_kernel(n_head: int, n_head_kv: int, value_dim: int, kv_type: str) -> str:
    """The attention kernel for generated tokens, by the query rows of a token and key/value head, and what pages hold.

    Rounded up to a microkernel; 0 where there are more, or values that are not whole vectors: see `attend_to`.
    """
    fitting = [rows for rows in (1, 2, 4, PANEL) if n_head // n_head_kv <= rows and value_dim % 16 == 0]
    return f"attention_decode.{fitting[0] if fitting else 0}.{kv_type}"


def rope_scratch_bytes(n_rot: int) -> int:
    """Private memory that each thread needs for `rope`: frequencies, cosines and sines of one token."""
    return 4 * 5 * (-(-n_rot // 32) * 16) + 64


def scratch_bytes(n_head: int, n_head_kv: int, key_dim: int, value_dim: int) -> int:
    """Private memory that each thread needs for `attention`."""
    rows = -(-max(TILE_ROWS, n_head // n_head_kv) // PANEL) * PANEL
    width = -(-value_dim // 16) * 16
    per_row = key_dim + width + 16 + 1  # query, output, sum (a vector of parts), maximum
    per_panel = PANEL * 32 + PANEL  # scores, corrections
    page = 32 * (key_dim + width)  # a page of keys and of values, widened
    state = state_bytes(n_head, n_head_kv, value_dim)
    return state + 4 * (rows * per_row + per_panel + page) + 8 * 64  # each part starts on a cache line


PROBE_BLOCK = 256
PROBE_RING = 64 * 64  # bytes that the multiply-adds read again and again, and PROBE_RING / 4 behind them


def probe_tile() -> tuple[int, int]:
    """Registers of a, registers of b: one round of a probe multiplies each with each, into as many accumulators."""
    return (2, 8) if target().isa.lanes == 16 or target().isa.dot == "sdot" else (2, 5)  # 32 registers, or 16


def prompt_attention_bytes(key_dim: int, value_dim: int) -> int:
    """Private memory that each thread needs for `attention_blocks`."""
    rows, keys = PROMPT_ROWS, 128
    operands = 2 * 2 * (rows + keys) * key_dim + 4 * rows * value_dim + 2 * 2 * keys * value_dim
    return operands + 4 * 32 * keys + 2 * 2 * 32 * keys + (64 + 4) * rows + 64 + 2 * 64


def args_of(family: str) -> np.dtype:
    """The argument struct of a kernel family."""
    return _ARGS[family]
