"""Checkpoints in FP8: weights of eight bits, F8_E4M3 or F8_E5M2, and beside each tensor a smaller one of scales.

    W [n, k]  with  W_scale_inv [ceil(n / 128), ceil(k / 128)]    a scale for each block (DeepSeek, Qwen3-FP8)
              or    W_scale [n, 1] or [n]                         one for each row (compressed-tensors, fbgemm)
              or    W_scale [1] or []                             one for all (ModelOpt, compressed-tensors)

A weight is its code's value times its scale, under either name. Scales of activations are not needed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ..formats.errors import UnsupportedError
from ..formats.gguf import GGMLType
from ..formats.stored import StoredTensor, to_float32
from .checkpoint import Checkpoint, CheckpointError
from .config import Config
from .rows import Floats, Rows, computed_by_row, stored

EIGHT_BITS: Final = ("F8_E4M3", "F8_E5M2")
FLOATS: Final = ("F64", "F32", "F16", "BF16", *EIGHT_BITS)  # what weights are; whole numbers are codes of something
SUFFIXES: Final = ("_scale_inv", "_scale")
BLOCK: Final = (128, 128)  # rows and columns, where config.json says nothing
MODELOPT: Final = "hf_quant_config.json"
METHODS: Final = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt")
_OF_ACTIVATIONS = re.compile(r"\.(input|output|activation|[qkv]|prob)_scale(_inv|_ub)?$")


@dataclass(frozen=True)
class Scales:
    """The scales of a checkpoint.

    by_weight    by the name of the tensor that they are for; `names` are their own
    block        rows and columns of a block, where config.json says that there is a scale for each; else None
    is_declared  whether config.json says that weights are FP8, or some have a scale: then each has one
    """

    by_weight: Mapping[str, StoredTensor]
    block: tuple[int, int] | None
    is_declared: bool

    @functools.cached_property
    def names(self) -> frozenset[str]:
        return frozenset(scale.name for scale in self.by_weight.values())

    @staticmethod
    def of(checkpoint: Checkpoint) -> Scales:
        """UnsupportedError for weights that are quantized in another way."""
        tensors = checkpoint.tensors
        named = {name + suffix: name for name, one in tensors.items() if one.dtype in EIGHT_BITS for suffix in SUFFIXES}
        found = {named[name]: one for name, one in tensors.items() if name in named}
        config = _config(checkpoint)
        return Scales(found, _block(config), _declared(config) or bool(found))

    def takes(self, name: str) -> bool:
        """Whether a tensor is scales, and no weights."""
        return name in self.names or _OF_ACTIVATIONS.search(name) is not None

    def multiplied(self, tensor: StoredTensor) -> Rows:
        """The weights, float32; `auto` keeps them as BF16, what models of such checkpoints are computed in."""
        rows, scale = stored(tensor), self.by_weight.get(tensor.name)
        if scale is not None:
            rows = computed_by_row(rows, _multiplier(tensor, scale, self.block))
        elif self.is_declared:
            raise CheckpointError("its scale is missing", path=tensor.path, field=tensor.name)
        return replace(rows, kept=GGMLType.BF16)


def _config(checkpoint: Checkpoint) -> Config:
    """What the folder says about how its weights are quantized: in config.json, or ModelOpt in a file of its own."""
    whole = Config(checkpoint.config, checkpoint.path / "config.json")
    if "quantization_config" in whole or not checkpoint.find(MODELOPT):
        return whole.inner("quantization_config")
    found = Config(checkpoint.require_json(MODELOPT), checkpoint.path / MODELOPT).inner("quantization")
    return Config({"quant_method": "modelopt", **found.fields}, found.path, "quantization.")


def _declared(config: Config) -> bool:
    """Whether config.json says that weights are FP8. UnsupportedError where it says something else about them."""
    if not config.fields:
        return False
    method = config.text("quant_method", "")
    groups = config.inner("config_groups")
    formats = [groups.inner(name).inner("weights") for name in groups.fields]
    others = [one for one in formats if one.fields.get("type") != "float" or one.fields.get("num_bits") != 8]
    if method not in METHODS or others or not config.text("quant_algo", "FP8").startswith("FP8"):
        raise UnsupportedError(
            f"{config.path}: its weights are quantized already ({method or 'quantization_config'}), and not to FP8, "
            "which is the one such form that is read; convert the folder that they were made of"
        )
    return True


def _block(config: Config) -> tuple[int, int] | None:
    if "weight_block_size" not in config:
        return None
    height, width = found = config.numbers("weight_block_size", 2)
    if min(found) < 1 or not (height.is_integer() and width.is_integer()):
        raise config.refuse("weight_block_size", found, "two whole numbers above zero")
    return int(height), int(width)


def _multiplier(
    tensor: StoredTensor, scale: StoredTensor, block: tuple[int, int] | None
) -> Callable[[Floats, int], Floats]:
    """(rows, number of the first) -> these rows times their scales. Rows are counted through all experts."""
    *lead, n, k = (1, *tensor.shape)[-max(2, len(tensor.shape)):]
    height, width = _extent(tensor, scale, (*lead, n, k), block)
    values = to_float32(scale.raw, scale.dtype)
    if scale.dtype not in (*FLOATS, "F8_E8M0") or not np.isfinite(values).all():
        raise CheckpointError("not a scale: finite numbers are needed", path=scale.path, field=scale.name)
    grid, columns = values.reshape(-1, -(-k // width)), np.arange(k) // width
    each = -(-n // height)  # rows of the grid for each expert

    def multiply(rows: Floats, first: int) -> Floats:
        expert, row = np.divmod(np.arange(first, first + len(rows)), n)
        found: Floats = rows * grid[expert * each + row // height][:, columns]
        return found

    return multiply


def _extent(
    tensor: StoredTensor, scale: StoredTensor, shape: tuple[int, ...], declared: tuple[int, int] | None
) -> tuple[int, int]:
    """Rows and columns that one scale is for. CheckpointError where there are not as many scales as that takes.

    Where blocks are declared, a scale for a whole row or tensor is that of a larger checkpoint's block, cut off.
    """
    *lead, n, k = shape
    height, width = declared or BLOCK
    in_blocks = (*lead, -(-n // height), -(-k // width))
    known = {in_blocks: (height, width)}
    if declared is None:
        whole = dict.fromkeys([(*lead, 1, 1), (*lead, 1), (*lead,)], (n, k))
        known = whole | dict.fromkeys([(*lead, n), (*lead, n, 1)], (1, k)) | known
    if (found := known.get(tuple(scale.shape))) is None:
        raise CheckpointError(
            f"scales of the shape {tuple(scale.shape)} do not fit {tensor.name!r} of the shape {tuple(tensor.shape)}",
            path=scale.path, field=scale.name,
            allowed=f"{in_blocks}" + ("" if declared else ", one for each row, or one"),
        )  # fmt: skip
    return found
