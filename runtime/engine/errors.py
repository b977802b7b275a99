"""What can go wrong with a request, beyond the errors every room shares.

    HalfbyteError
    |-- ModelClosed      the model was closed before or while the request ran
    |-- ExecutionError   a step failed for a reason of its own (`__cause__`); the engine goes on with other requests
        |-- LogitsError  the logits of a step, or what a processor made of them, cannot be sampled from
"""

from __future__ import annotations

from ...formats.errors import HalfbyteError


class ModelClosed(HalfbyteError):
    """The model was closed; the request got no further."""


class ExecutionError(HalfbyteError):
    """A step, a sampler or a logits processor failed; the original exception is `__cause__`."""

    exit_code = 1


class LogitsError(ExecutionError):
    """The model's logits, or what a logits processor made of them, cannot be sampled from; the message says why."""
