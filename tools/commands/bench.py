"""`halfbyte bench`: tokens per second on this machine."""

from __future__ import annotations

import click

from .. import console
from ..options import LoadChoices, loading_options, open_model
from ..progress import ProgressLine


@click.command()
@click.argument("model")
@click.option("--prompt-tokens", type=click.IntRange(1), default=512, show_default=True, help="Length of the prompt.")
@click.option("--gen-tokens", type=click.IntRange(1), default=32, show_default=True, help="Tokens to generate.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs; the median is reported.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(
    model: str,
    prompt_tokens: int,
    gen_tokens: int,
    repeat: int,
    threads: int | None,
    context: int | None,
    backend: str,
    as_json: bool,
) -> None:
    """Measure how fast MODEL reads a prompt and writes an answer.

    Random tokens, one uncounted run to warm up, medians of --repeat runs. The context is as long as needed.
    """
    from ..bench import measure

    choices = LoadChoices(threads, context or prompt_tokens + gen_tokens + 1, backend)
    with open_model(model, choices) as loaded, ProgressLine() as progress:
        speeds = measure(
            loaded,
            prompt_tokens=prompt_tokens,
            gen_tokens=gen_tokens,
            repeat=repeat,
            on_run=lambda number: progress("measuring", number, repeat),
        )
        result = {
            "model": loaded.name or model,
            "architecture": loaded.architecture,
            "backend": loaded.backend,
            "threads": loaded.threads,
            "prompt_tokens": prompt_tokens,
            "gen_tokens": gen_tokens,
            "repeats": repeat,
            "prompt_tps": speeds.prompt_tps,
            "decode_tps": speeds.decode_tps,
            "prompt_tps_runs": speeds.prompt,
            "decode_tps_runs": speeds.decode,
        }
    if as_json:
        console.write_json(result)
        return
    console.write_table(
        [
            ("Model", f"{result['model']} ({result['architecture']})"),
            ("Runs on", f"{result['backend']}, {result['threads']} threads"),
            ("Prompt", f"{speeds.prompt_tps:.1f} tokens/s ({prompt_tokens} tokens, median of {repeat})"),
            ("Decode", f"{speeds.decode_tps:.1f} tokens/s ({gen_tokens} tokens, median of {repeat})"),
        ]
    )
