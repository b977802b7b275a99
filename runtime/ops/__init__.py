"""The op set. Importing this package registers every op; `OPS` maps a name to its `OpSpec`.

embed, take_rows; rms_norm, layer_norm; linear; rope, attention; add, scale, activation, glu, softcap; moe_route,
expert_linear, expert_combine; and what rewrites make of them: linear_add, linear_glu. To add one, declare it in a file
of this folder: the reference backend runs it at once.
"""

from __future__ import annotations

from . import attention, elementwise, embed, fused, linear, moe, norm, rope  # noqa: F401  (importing registers)
from .spec import OPS, REQUIRED, OpError, OpSpec, Shape

__all__ = ["OPS", "REQUIRED", "OpError", "OpSpec", "Shape"]
