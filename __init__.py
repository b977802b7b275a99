"""Halfbyte: run and quantize language models in GGUF format from pure Python.

    import halfbyte

    with halfbyte.Model.load("stories260k") as model:
        for piece in model.generate("Once upon a time", max_tokens=64):
            print(piece, end="")

Names are loaded when they are first used: importing the package brings no other module. So it costs no time, and the
command (`__main__.py`) is there to answer Ctrl-C before anything takes any.
"""

TYPE_CHECKING = False  # type checkers take it for typing's, which would take milliseconds
if TYPE_CHECKING:
    from typing import Any

    from .converters.convert import convert
    from .converters.quantize import quantize
    from .formats.errors import (
        Cancelled,
        ContextOverflow,
        HalfbyteError,
        InvalidRequest,
        ModelFileError,
        ResourceError,
        TemplateError,
        TokenizerError,
        UnsupportedError,
    )
    from .runtime.backends.base import CancelFlag
    from .runtime.engine.errors import ExecutionError, ModelClosed
    from .runtime.engine.generate import Token
    from .runtime.engine.generation import Generation, Usage
    from .runtime.engine.sampling import SamplingParams
    from .runtime.hub import DownloadError
    from .runtime.model import Model
    from .runtime.session import Session
    from .runtime.tokenize import Tokenizer, load_tokenizer

__version__ = "0.1.0"

__all__ = [
    "CancelFlag",
    "Cancelled",
    "ContextOverflow",
    "DownloadError",
    "ExecutionError",
    "Generation",
    "HalfbyteError",
    "InvalidRequest",
    "Model",
    "ModelClosed",
    "ModelFileError",
    "ResourceError",
    "SamplingParams",
    "Session",
    "TemplateError",
    "Token",
    "Tokenizer",
    "TokenizerError",
    "UnsupportedError",
    "Usage",
    "__version__",
    "convert",
    "load_tokenizer",
    "quantize",
]

_HOME = {
    "converters.convert": ("convert",),
    "converters.quantize": ("quantize",),
    "formats.errors": (
        "Cancelled",
        "ContextOverflow",
        "HalfbyteError",
        "InvalidRequest",
        "ModelFileError",
        "ResourceError",
        "TemplateError",
        "TokenizerError",
        "UnsupportedError",
    ),
    "runtime.backends.base": ("CancelFlag",),
    "runtime.engine.errors": ("ExecutionError", "ModelClosed"),
    "runtime.engine.generate": ("Token",),
    "runtime.engine.generation": ("Generation", "Usage"),
    "runtime.engine.sampling": ("SamplingParams",),
    "runtime.hub": ("DownloadError",),
    "runtime.model": ("Model",),
    "runtime.session": ("Session",),
    "runtime.tokenize": ("Tokenizer", "load_tokenizer"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def _load(name: str) -> "Any":
    from importlib import import_module

    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
