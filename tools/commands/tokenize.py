"""`halfbyte tokenize`: how a model splits text, and back."""

from __future__ import annotations

import re

import click

from ...runtime import hub
from .. import console
from ..progress import ProgressLine
from ..prompt import Text, read_prompt


@click.command()
@click.argument("model")
@click.argument("text", type=Text(), required=False)
@click.option("--ids", "ids_only", is_flag=True, help="Write the ids alone, on one line.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.option("--special", is_flag=True, help='Read "<|im_end|>" and the like as the control tokens they spell.')
@click.option("--no-bos", is_flag=True, help="Add nothing at the start and the end of the text.")
@click.option("--decode", metavar="IDS", help="Write the text of these ids, separated by spaces or commas.")
def command(
    model: str, text: str | None, ids_only: bool, as_json: bool, special: bool, no_bos: bool, decode: str | None
) -> None:
    """Show the tokens of TEXT, from the argument or a pipe.

    MODEL is a GGUF file, which may hold a vocabulary only, or a name that `pull` knows. No weights are read.
    """
    from ...runtime.tokenize import load_tokenizer

    with ProgressLine() as progress:
        tokenizer = load_tokenizer(hub.resolve(model, progress=progress))
    if decode is not None:
        decoded = tokenizer.decode(_parse_ids(decode), skip_special=not special)
        if as_json:
            console.write_json({"text": decoded})
        else:
            console.say(decoded)
        return
    ids = tokenizer.encode(read_prompt(text), add_special=not no_bos, parse_special=special)
    if as_json:
        pieces = [tokenizer.token_text(token) for token in ids]
        console.write_json({"count": len(ids), "ids": ids, "pieces": pieces})
    elif ids_only:
        console.say(" ".join(map(str, ids)))
    else:
        console.write_table([(str(token), tokenizer.token_text(token)) for token in ids])
        console.note(f"{len(ids)} tokens")


def _parse_ids(text: str) -> list[int]:
    words = re.split(r"[\s,]+", text.strip(" \t\r\n,[]"))
    try:
        return [int(word) for word in words if word]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers", param_hint="--decode") from error
