"""Options of the commands that write models, and what they turn into."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..formats.errors import InvalidRequest

F = TypeVar("F", bound=Callable[..., Any])


class FilePath(click.Path):
    """The name of a file: one that ends with a slash is that of a folder, which `Path` would not tell any more."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.endswith(("/", os.sep)):
            self.fail(f"{value!r} is the name of a folder; give that of a file", param, ctx)
        return super().convert(value, param, ctx)


_OPTIONS = (
    click.option("-o", "--output", type=FilePath(),
                 help="Default: named like the model with the type behind it, .gguf, in this folder."),
    click.option("--overwrite", is_flag=True, help="Replace the output if it is there."),
    click.option("--imatrix", "importance", type=click.Path(path_type=Path),
                 help="What errors of each column cost (.dat or GGUF)."),
    click.option("--search", default="reference", metavar="NAME", help="best: a lower error than llama.cpp has."),
    click.option("--pure", is_flag=True, help="The recipe's own type for every matrix, without exceptions."),
    click.option("--tensor-type", "overrides", multiple=True, metavar="REGEX=TYPE", help="By name; repeatable."),
    click.option("--output-type", metavar="TYPE", help="For output.weight, or the embedding where it is both."),
    click.option("--embedding-type", metavar="TYPE", help="For token_embd.weight."),
    click.option("--split-max-size", metavar="SIZE", help="Begin another file before one has more: 2G, 500M."),
    click.option("--allow-nonfinite", is_flag=True, help="Allow NaN and infinity: zero where a type has neither."),
    click.option("--threads", type=click.IntRange(1),
                 help="Default: one for each physical core; at most all processors."),
    click.option("--dry-run", is_flag=True, help="Check everything, show the plan and the size, and write nothing."),
    click.option("--json", "as_json", is_flag=True, help="Write one JSON object, with each tensor's type."),
)  # fmt: skip
_AS_THEY_ARE = (
    "overwrite", "importance", "search", "pure", "output_type", "embedding_type", "allow_nonfinite", "verify",
    "threads",
)  # fmt: skip


def writing_options(command: F) -> F:
    """--output, --dry-run and --json, and the options of `chosen_writing` but --verify, which each command declares."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen_writing(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments for `quantize` and `convert`. `values` are a command's parameters."""
    return {name: values[name] for name in _AS_THEY_ARE} | {
        "overrides": [_override(text) for text in values["overrides"]],
        "split_max_bytes": _size_of(values["split_max_size"]),
    }


def _override(text: str) -> tuple[str, str]:
    pattern, sign, name = text.rpartition("=")
    if not sign or not pattern:
        raise InvalidRequest(f"--tensor-type {text!r} is not REGEX=TYPE, such as ffn_down=Q6_K")
    return pattern, name


def _size_of(text: str | None) -> int | None:
    """Bytes: 2G is two billion, as in llama-gguf-split."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,15})([KMGkmg]?)", text, re.ASCII)
    if match is None:
        raise InvalidRequest(f"--split-max-size {text!r} is not a size, such as 2G or 500M")
    return int(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2].upper()]
