"""The loading options that commands share."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from halfbyte.runtime.cache.kv import KV_TYPES
from halfbyte.runtime.loading import BACKENDS
from halfbyte.tools.options import LoadChoices, loading_options


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        ("", LoadChoices()),
        ("--threads 3 --context 77 --backend reference --kv-type f16", LoadChoices(3, 77, "reference", "f16")),
    ],
)
def test_they_become_one_argument(words: str, choices: LoadChoices) -> None:
    seen: list[object] = []

    @click.command()
    @click.argument("model")
    @loading_options
    @click.option("--json", "as_json", is_flag=True)
    def command(model: str, loading: LoadChoices, as_json: bool) -> None:
        seen.extend((model, loading, as_json))

    done = CliRunner().invoke(command, ["m", *words.split(), "--json"])
    assert (done.exit_code, seen) == (0, ["m", choices, True])


def test_they_are_what_the_library_has() -> None:
    command = click.command()(loading_options(lambda loading: None))
    types = {option.name: option.type for option in command.params}
    offered = {name: tuple(type_.choices) for name, type_ in types.items() if isinstance(type_, click.Choice)}
    assert offered == {"backend": tuple(BACKENDS), "kv_type": tuple(KV_TYPES)}
