"""`halfbyte embed`: vectors of texts."""

from __future__ import annotations

import click

from .. import console
from ..options import LoadChoices, loading_options, open_model
from ..prompt import Text, read_stdin

POOLINGS = ("mean", "cls", "last", "none")


@click.command()
@click.argument("model")
@click.argument("texts", nargs=-1, type=Text(), metavar="[TEXT]...")
@click.option(
    "--pooling", type=click.Choice(POOLINGS), help="How a text's tokens become one vector (default: the model's way)."
)
@click.option("--no-normalize", is_flag=True, help="Leave vectors as long as they are.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(
    model: str,
    texts: tuple[str, ...],
    pooling: str | None,
    no_normalize: bool,
    loading: LoadChoices,
    as_json: bool,
) -> None:
    """Write the embedding of each TEXT, one line of numbers each.

    Without TEXT, or for "-", each line of standard input is a text. MODEL must be an embedding model such as BERT.
    """
    given = _read_texts(texts)
    with open_model(model, loading) as loaded:
        vectors = loaded.embed(given, pooling=pooling, normalize=not no_normalize)
        name, way = loaded.name or model, pooling or loaded.pooling
    if as_json:
        rows = [[float(number) for number in row] for row in vectors]
        console.write_json({"model": name, "pooling": way, "normalized": not no_normalize, "embeddings": rows})
    else:
        for row in vectors:
            console.say(" ".join(f"{number:.8g}" for number in row))


def _read_texts(texts: tuple[str, ...]) -> list[str]:
    if texts and texts != ("-",):
        return list(texts)
    lines = read_stdin().split("\n")
    if lines == [""]:
        raise click.UsageError("no text: give one as an argument, or lines through a pipe", click.get_current_context())
    return lines
