"""`halfbyte bench`: tokens per second on this machine, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .. import console
from ..options import LoadChoices, loading_options, open_model
from ..progress import ProgressLine

if TYPE_CHECKING:
    from ...runtime.model import Model
    from ..bench import Speeds


@click.command()
@click.argument("model")
@click.option("--prompt-tokens", type=click.IntRange(1), default=512, show_default=True, help="Length of the prompt.")
@click.option("--gen-tokens", type=click.IntRange(1), default=32, show_default=True, help="Tokens to generate.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs; the median is reported.")
@click.option("--profile", "with_profile", is_flag=True, help="Show the time of each op and tensor, and its floor.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(
    model: str,
    prompt_tokens: int,
    gen_tokens: int,
    repeat: int,
    with_profile: bool,
    loading: LoadChoices,
    as_json: bool,
) -> None:
    """Measure how fast MODEL reads a prompt and writes an answer.

    Random tokens, one uncounted run to warm up, medians of --repeat runs. The context is as long as needed.
    """
    choices = replace(loading, context=loading.context or prompt_tokens + gen_tokens + 1)
    wanted = {"prompt_tokens": prompt_tokens, "gen_tokens": gen_tokens, "repeat": repeat}
    with open_model(model, choices) as loaded, ProgressLine() as progress:
        run = _profile if with_profile else _measure
        show, result = run(loaded, loaded.name or model, wanted, lambda number: progress("measuring", number, repeat))
    if as_json:
        console.write_json(result)
    else:
        show()


Shown = tuple[Callable[[], None], dict[str, Any]]  # how to write it for a person, and for a program


def _measure(model: Model, name: str, wanted: dict[str, int], on_run: Callable[[int], None]) -> Shown:
    from ..bench import measure

    speeds = measure(model, **wanted, on_run=on_run)
    result = _result(model, name, wanted, speeds)

    def show() -> None:
        repeat = wanted["repeat"]
        console.write_table(
            [
                ("Model", f"{name} ({result['architecture']})"),
                ("Runs on", f"{result['backend']}, {result['threads']} threads"),
                ("Prompt", f"{speeds.prompt_tps:.1f} tokens/s ({wanted['prompt_tokens']} tokens, median of {repeat})"),
                ("Decode", f"{speeds.decode_tps:.1f} tokens/s ({wanted['gen_tokens']} tokens, median of {repeat})"),
            ]
        )

    return show, result


def _profile(model: Model, name: str, wanted: dict[str, int], on_run: Callable[[int], None]) -> Shown:
    from .. import profile_view
    from ..profile import profile

    report = profile(model, **wanted, on_run=on_run)
    result = {**_result(model, name, wanted, report.speeds), "profile": report.as_dict()}
    threads = "1 thread" if model.threads == 1 else f"{model.threads} threads"
    heading = f"{name} ({model.architecture}) on {model.backend}, {threads}"
    return lambda: profile_view.show(report, heading), result


def _result(model: Model, name: str, wanted: dict[str, int], speeds: Speeds) -> dict[str, Any]:
    return {
        "model": name,
        "architecture": model.architecture,
        "backend": model.backend,
        "threads": model.threads,
        "prompt_tokens": wanted["prompt_tokens"],
        "gen_tokens": wanted["gen_tokens"],
        "repeats": wanted["repeat"],
        "prompt_tps": speeds.prompt_tps,
        "decode_tps": speeds.decode_tps,
        "prompt_tps_runs": speeds.prompt,
        "decode_tps_runs": speeds.decode,
    }
