"""A real model that ends too early: a typed error wherever it is cut, whoever reads it, and no file is left (AT-06)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import halfbyte
import pytest
from halfbyte.formats.errors import ModelFileError
from halfbyte.formats.gguf import GGUFFile
from halfbyte.formats.gguf.errors import TensorDataError
from halfbyte.tools.commands.inspect import command as inspect_command

MODEL = Path(halfbyte.__file__).parent / "runtime/assets/stories260k.gguf"
WHOLE = MODEL.read_bytes()
HEADER = min(tensor.offset for tensor in GGUFFile.from_buffer(WHOLE).tensors.values())
DATA_CUTS = sorted(random.Random(6).sample(range(HEADER, len(WHOLE)), 200))
FILE_CUTS = [*range(0, HEADER, 97), *DATA_CUTS]  # for what takes milliseconds


def open_cut(path: Path) -> None:
    GGUFFile.open(path)


def inspect_cut(path: Path) -> None:
    """The command itself, but for the way it shows an error."""
    inspect_command.main([str(path), "--json", "--tensors"], standalone_mode=False)


def load_cut(path: Path) -> None:
    halfbyte.Model.load(path, backend="reference")


def load_tokenizer_cut(path: Path) -> None:
    halfbyte.load_tokenizer(path)


@pytest.fixture
def cuts(tmp_path: Path) -> Iterator[Iterator[tuple[Path, int]]]:
    """The same file, shorter every time; afterwards nothing else may lie beside it."""
    path = tmp_path / "model.gguf"
    path.write_bytes(WHOLE)

    def shorten() -> Iterator[tuple[Path, int]]:
        for cut in reversed(FILE_CUTS):
            with open(path, "r+b") as file:
                file.truncate(cut)
            yield path, cut

    yield shorten()
    assert list(tmp_path.iterdir()) == [path]


def test_every_byte_of_the_header_and_200_of_the_data() -> None:
    whole = memoryview(WHOLE)
    for cut in (*range(HEADER), *DATA_CUTS):
        with pytest.raises(ModelFileError) as caught:
            GGUFFile.from_buffer(whole[:cut])
        found = caught.value
        assert found.offset is not None
        assert found.offset <= cut or (isinstance(found, TensorDataError) and found.offset == HEADER), (cut, found)


@pytest.mark.parametrize("read", [open_cut, inspect_cut, load_cut, load_tokenizer_cut])
def test_every_way_to_read_a_file(read, cuts, capsys: pytest.CaptureFixture[str]) -> None:
    for path, cut in cuts:
        with pytest.raises(ModelFileError) as caught:
            read(path)
        assert str(path) in str(caught.value), cut
    assert capsys.readouterr().out == ""
