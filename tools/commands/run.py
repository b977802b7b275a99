"""`halfbyte run`: one prompt, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...formats.errors import HalfbyteError
from .. import answer, console
from ..options import LoadChoices, chosen_sampling, loading_options, open_model, sampling_options
from ..prompt import Text, read_prompt

if TYPE_CHECKING:
    from ...runtime.engine.generation import Generation
    from ...runtime.model import Model


@click.command()
@click.argument("model")
@click.argument("prompt", type=Text(), required=False)
@click.option("--system", type=Text(), metavar="TEXT", help="Instructions that come before the prompt.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the model's chat format.")
@sampling_options
@click.option("--logprobs", type=click.IntRange(0), metavar="N", help="With --json: N likeliest tokens at each place.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object when the answer is complete.")
@click.option("--verbose", is_flag=True, help="Write the timing line even without a terminal.")
def command(
    model: str,
    prompt: str | None,
    system: str | None,
    raw: bool,
    logprobs: int | None,
    loading: LoadChoices,
    as_json: bool,
    verbose: bool,
    **sampling: Any,
) -> None:
    """Answer PROMPT with MODEL, a GGUF file or a name that `pull` knows.

    Text from a pipe follows PROMPT, or is the prompt; "-" reads standard input alone. Only the answer goes to stdout.

    \b
    halfbyte run smollm2 "Why is the sky blue?"
    cat notes.txt | halfbyte run smollm2 "Summarize this:"
    """
    text = read_prompt(prompt)
    with open_model(model, loading) as loaded:
        options = chosen_sampling(sampling)
        if logprobs is not None:
            options["logprobs"] = logprobs
        generation = _start(loaded, text, system, raw, options)
        if as_json:
            generation.read()
            console.write_json(answer.as_json(generation, loaded.name or model))
        else:
            answer.show(generation)
        if verbose or (answer.has_audience() and not as_json):
            console.note(answer.cost(generation))


def _start(model: Model, text: str, system: str | None, raw: bool, options: dict[str, Any]) -> Generation:
    if not raw and model.tokenizer.chat_template() is not None:
        if not text:
            raise HalfbyteError("the prompt is empty, and so would the message be; --raw continues an empty text")
        messages = [{"role": "system", "content": system}] if system else []
        return model.chat([*messages, {"role": "user", "content": text}], **options)
    if system:
        raise HalfbyteError("--system needs a chat format: this is a plain completion; put the text into the prompt")
    if not raw:
        console.note("note: this model has no chat format; it continues the prompt (--raw hides this note)")
    return model.generate(text, **options)
