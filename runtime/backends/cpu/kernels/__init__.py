"""Every kernel of the CPU backend. Importing a module registers its kernels; only the compiler process does that."""

from __future__ import annotations


def register_all() -> None:
    from . import elementwise, norm  # noqa: F401
    from .linear import act, embed, experts, gemm, rows  # noqa: F401
