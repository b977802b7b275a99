"""What can go wrong with a request, beyond the errors every room shares.

    HalfbyteError
    |-- InvalidRequest   the arguments contradict themselves (also a ValueError)
    |-- ModelClosed      the model was closed before or while the request ran
    |-- ExecutionError   a step failed for a reason of its own (`__cause__`); the engine goes on with other requests
"""

from __future__ import annotations

from ...formats.errors import HalfbyteError


class InvalidRequest(HalfbyteError, ValueError):
    """A request that can never work, found before any work was done."""


class ModelClosed(HalfbyteError):
    """The model was closed; the request got no further."""


class ExecutionError(HalfbyteError):
    """A step, a sampler or a logits processor failed; the original exception is `__cause__`."""

    exit_code = 1
