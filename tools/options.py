"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from .progress import ProgressLine
from .prompt import Text

if TYPE_CHECKING:
    from ..runtime.model import Model

Progress = Callable[[str, int, int], None]  # stage, done, total
F = TypeVar("F", bound=Callable[..., Any])

# option -> type and help; the defaults are those of the library, so that there is one place that says them
SAMPLING: dict[str, tuple[type, str]] = {
    "max_tokens": (int, "Most tokens to write (default: until the model ends or the context is full)."),
    "temperature": (float, "0 always takes the likeliest token (default 0.8)."),
    "top_k": (int, "Choose among the K likeliest tokens, 0: all (default 40)."),
    "top_p": (float, "Choose among the likeliest tokens that share this probability (default 0.95)."),
    "min_p": (float, "Leave out tokens less likely than this part of the likeliest (default 0.05)."),
    "repeat_penalty": (float, "Above 1 discourages repetition (default 1.0)."),
    "seed": (int, "Makes the answer repeatable."),
}


def sampling_options(command: F) -> F:
    """The options of SAMPLING and --stop, in that order."""
    command = click.option(
        "--stop", type=Text(), multiple=True, metavar="TEXT", help="End the answer before this text; repeatable."
    )(command)
    for name, (type_, text) in reversed(SAMPLING.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=type_, help=text)(command)
    return command


def loading_options(command: F, *, context_help: str = "Tokens of prompt and answer (default: up to 8192).") -> F:
    """The options of LoadChoices, which the command gets as `loading`."""

    @functools.wraps(command)
    def collected(*args: Any, **values: Any) -> Any:
        chosen = {field.name: values.pop(field.name) for field in dataclasses.fields(LoadChoices)}
        return command(*args, loading=LoadChoices(**chosen), **values)

    kv_type = click.option(
        "--kv-type",
        type=click.Choice(["f16", "f32"]),
        help="How keys and values are kept; f32 is exact and takes twice the memory (default: f16; f32 of F32 models "
        "and of reference).",
    )
    backend = click.option(
        "--backend",
        type=click.Choice(["cpu", "reference"]),
        default="cpu",
        help="reference: plain NumPy, slow, the definition of what is right.",
    )
    context = click.option("--context", type=click.IntRange(1), help=context_help)
    threads = click.option("--threads", type=click.IntRange(1), help="Default: one for each physical core.")
    gpu_layers = click.option(
        "--gpu-layers", "-ngl", callback=_layers, default="0", metavar="N",
        help="Put the last N layers on the GPU; all; auto: as many as fit (default: 0).",
    )  # fmt: skip
    split = click.option(
        "--tensor-split", callback=_shares, metavar="A,B,...", help="Shares of several GPUs in these layers."
    )
    place = click.option(
        "--place", multiple=True, metavar="PATTERN=DEVICE",
        help="Where weights of such names go: cpu or cuda:N, for example 'ffn_.*_exps=cpu'; repeatable.",
    )  # fmt: skip
    options = (threads, context, kv_type, backend, gpu_layers, split, place)
    return cast(F, functools.reduce(lambda made, option: option(made), reversed(options), collected))


def _layers(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    """A number of layers, or a word."""
    if value not in ("all", "auto") and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number of layers nor all nor auto", ctx, param)
    return int(value) if value.isdecimal() else value


def _shares(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(share) for share in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers like 3,1", ctx, param) from None


def window_options(command: F) -> F:
    """The same for a command that reads a text in windows of --context tokens."""
    return loading_options(command, context_help="Tokens of a window of the text (default: 512).")


@dataclass(frozen=True)
class LoadChoices:
    """What the loading options said; None is the library's default."""

    threads: int | None = None
    context: int | None = None
    backend: str = "cpu"
    kv_type: str | None = None
    gpu_layers: int | str = 0
    tensor_split: tuple[float, ...] = ()
    place: tuple[str, ...] = ()


def chosen_sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments for `Model.generate`: only what the user gave. `values` are a command's parameters."""
    given = {name: values[name] for name in SAMPLING if values.get(name) is not None}
    return {**given, "stop": list(values["stop"])} if values.get("stop") else given


def load_model(name: str, choices: LoadChoices, progress: Progress) -> Model:
    """Download, if need be, and load. The download runs on this, the main thread, so that Ctrl-C cleans up after it."""
    from ..runtime import hub
    from ..runtime.loading import LoadOptions
    from ..runtime.model import Model  # imports NumPy and, for the CPU backend, Numba

    LoadOptions(**vars(choices))  # what cannot be is refused before a download
    path = hub.resolve(name, progress=progress)
    return Model.load(path, **vars(choices), progress=progress)


@contextlib.contextmanager
def open_model(name: str, choices: LoadChoices) -> Iterator[Model]:
    """A loaded model, with a progress line on a terminal while it loads; closed at the end.

    After Ctrl-C it is not closed: that would wait for the kernels in flight, and the process is about to end.
    """
    with ProgressLine() as progress:
        model = load_model(name, choices, progress)
    try:
        yield model
    except KeyboardInterrupt:
        raise
    except BaseException:
        model.close()
        raise
    model.close()
