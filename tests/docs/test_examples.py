"""What the documents show is true: Python blocks run, transcripts are what the program prints, commands parse."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import halfbyte
import pytest
from halfbyte.tools.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOCAL = {"smollm2": "stories260k"}  # models that would be downloaded, and what stands in for them


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of every fenced block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def shell_lines(page: Path) -> Iterator[str]:
    """Lines of blocks, and commands in running text that name no placeholder."""
    yield from re.findall(r"`(halfbyte [a-z][^`\[]*)", page.read_text(encoding="utf-8"))
    for language, content in blocks(page):
        if language == "console":
            yield from (line[2:] for line in content.splitlines() if line.startswith("$ "))
        elif language in ("", "sh"):
            yield from content.splitlines()


def commands(line: str) -> Iterator[list[str]]:
    """The words of each `halfbyte` command of a shell line."""
    words = shlex.split(line, comments=True)
    while words:
        end = next((i for i, word in enumerate(words) if word in ("|", "&&", ">", "<")), len(words))
        if words[0] == "halfbyte":
            yield words[1:end]
        words = words[end + 1 :]


def parse(arguments: list[str]) -> None:
    """Check that a command and its options exist; values are not opened or fetched."""
    with cli.make_context("halfbyte", list(arguments)) as context:
        command = cli.get_command(context, arguments[0])
        assert command is not None, arguments
        with click.Context(command) as inner:
            command.make_parser(inner).parse_args(arguments[1:])


COMMANDS = [(name(page), words) for page in PAGES for line in shell_lines(page) for words in commands(line)]


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda x: x if isinstance(x, str) else shlex.join(x))
def test_commands_exist(page: str, words: list[str]) -> None:
    parse(words)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert len(COMMANDS) > 20
    line = 'cat x | halfbyte run m "a b" > y && halfbyte doctor  # why'
    assert list(commands(line)) == [["run", "m", "a b"], ["doctor"]]
    with pytest.raises(click.NoSuchOption):
        parse(["run", "smollm2", "--nonsense"])
    with pytest.raises(AssertionError):
        parse(["nonsense"])


PYTHON = [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]


@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in order, as one program; a `text` block is what the Python block before it prints."""
    load, load_tokenizer = halfbyte.Model.load, halfbyte.load_tokenizer
    monkeypatch.setattr(halfbyte.Model, "load", lambda model, **options: load(LOCAL.get(model, model), **options))
    monkeypatch.setattr(halfbyte, "load_tokenizer", lambda model: load_tokenizer(LOCAL.get(model, model)))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    printed = io.StringIO()
    for language, content in blocks(page):
        if language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(content, name(page), "exec"), scope)
        elif language == "text":
            assert printed.getvalue() == content


def transcripts(page: Path) -> Iterator[tuple[str, str]]:
    """(command, what is printed) of console blocks, for the commands that work with no network."""
    for language, content in blocks(page):
        if language == "console":
            for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                if printed.strip() and not any(model in command for model in LOCAL):
                    yield command, printed


TRANSCRIPTS = [entry for page in PAGES for entry in transcripts(page)]


@pytest.mark.parametrize(("command", "printed"), TRANSCRIPTS, ids=[command for command, _ in TRANSCRIPTS])
def test_transcripts(command: str, printed: str, tmp_path: Path) -> None:
    """Lines may be broken elsewhere: a document is narrower than the program's lines."""
    (words,) = commands(command)
    program = [sys.executable, "-m", "halfbyte", *words]
    done = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path, check=False)
    found = (done.stdout + done.stderr).decode("utf-8")
    assert found.split() == printed.split()


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 3
