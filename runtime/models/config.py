"""Reading hyperparameters from metadata: every number has bounds, every key of the architecture is read or refused."""

from __future__ import annotations

from ...formats.errors import ModelFileError
from ...formats.gguf import GGUFFile

MAX_DIM = 1 << 20  # no model has rows, heads or experts beyond this; keeps derived sizes far from any overflow
MAX_CONTEXT = (1 << 31) - 1  # positions are int32


class Config:
    """The keys of one architecture (`llama.block_count` is read as `block_count`) and the few facts around them.

    `context` is the context length asked for by the caller, None for the one the model was trained with.
    """

    def __init__(self, file: GGUFFile, architecture: str, context: int | None = None) -> None:
        self.file, self.path = file, file.path
        self.architecture, self.context = architecture, context
        self.scope = file.metadata.scope(architecture)

    def count(self, key: str, maximum: int = MAX_DIM, *, minimum: int = 1, default: int | None = None) -> int:
        """A whole number in [minimum, maximum]. Required unless there is a default, which is not checked."""
        value = self.scope.require(key, int) if default is None else self.scope.optional(key, int, None)
        if value is None:
            assert default is not None
            return default
        if not minimum <= value <= maximum:
            raise self.refuse(key, value, f"{minimum} to {maximum}")
        return value

    def number(self, key: str, default: float | None = None, *, low: float = 1e-6, high: float = 1e6) -> float:
        """A number in [low, high], which NaN is not. Required unless there is a default, which is not checked."""
        value = self.scope.require(key, float) if default is None else self.scope.optional(key, float, None)
        if value is None:
            assert default is not None
            return default
        if not low <= value <= high:
            raise self.refuse(key, value, f"{low:g} to {high:g}")
        return value

    def refuse(self, key: str, value: object, allowed: str) -> ModelFileError:
        """The error for a value that cannot be."""
        return ModelFileError(
            "impossible hyperparameter",
            path=self.path,
            field=f"{self.architecture}.{key}",
            got=value,
            allowed=allowed,
            hint="The file is damaged or was converted wrongly",
        )
