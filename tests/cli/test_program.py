"""The program around the commands: help, start-up, exit codes, streams."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from halfbyte.formats import errors
from halfbyte.tools import cli, console
from halfbyte.tools.commands import COMMANDS

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and permissions")
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def test_help_lists_every_command_and_the_exit_codes(halfbyte: Any) -> None:
    done = halfbyte("--help")
    assert done.returncode == 0
    assert not done.stderr
    for word in (*COMMANDS, "130  interrupted", "smollm2"):
        assert word in done.stdout


def test_without_arguments_there_is_help(halfbyte: Any) -> None:
    done = halfbyte()
    assert done.returncode == 0
    assert done.stdout == halfbyte("--help").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, halfbyte: Any) -> None:
    done = halfbyte(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: halfbyte {name}")


def test_the_table_of_commands_is_the_folder() -> None:
    files = {path.stem.replace("_", "-") for path in Path(cli.__file__).parent.joinpath("commands").glob("[!_]*.py")}
    assert files == set(COMMANDS)


def test_help_starts_fast_and_without_numba(halfbyte: Any) -> None:
    code = (
        "import sys; sys.argv = ['halfbyte', '--help']\n"
        "from halfbyte.tools.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('numba', 'llvmlite', 'numpy', 'rich', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    best = min(_seconds(lambda: halfbyte("--help")) for _ in range(3))
    assert best < 1.5, "0.3 s on an idle machine; here with room for a busy one"


def _seconds(action: Any) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["frobnicate"], 2, "No such command"),
        (["inspect"], 2, "Missing argument"),
        (["inspect", "no-such-file.gguf"], 2, "no such file"),
        (["inspect", "smolm2"], 2, "did you mean 'smollm2'"),
        (["run", "stories260k", "hi", "--max-tokens", "x"], 2, "'x' is not a valid integer"),
        (["run", "stories260k"], 2, "no prompt"),
        (["chat", "stories260k", "--threads", "0"], 2, "--threads"),
        (["tokenize", "stories260k", "--decode", "1 x"], 2, "whole numbers"),
        (["perplexity", "stories260k"], 2, "--text"),
        (["pull"], 2, "which model"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments: list[str], code: int, message: str, halfbyte: Any) -> None:
    done = halfbyte(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f", ""),
    ],
)
def test_a_damaged_file_is_exit_code_3(data: bytes, message: str, halfbyte: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(data)
    done = halfbyte("inspect", tmp_path / "broken.gguf")
    assert done.returncode == 3
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(halfbyte: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"x")
    done = halfbyte("inspect", tmp_path / "broken.gguf", "--debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.HalfbyteError("x"), 2),
        (errors.ContextOverflow(9, 8), 2),
        (click.UsageError("x"), 2),
        (errors.ModelFileError("x"), 3),
        (PermissionError(13, "Permission denied", "f"), 3),
        (errors.ResourceError("x"), 4),
        (MemoryError(), 4),
        (OSError(28, "No space left on device"), 4),
        (errors.UnsupportedError("x"), 5),
        (errors.Cancelled("x"), 130),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (TypeError("x"), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._explain(error, debug=False) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_the_documented_exit_codes_are_these(halfbyte: Any) -> None:
    docs = Path(__file__).parents[2].joinpath("docs", "cli.md").read_text(encoding="utf-8")
    for line in cli.EPILOG.split("\n\n")[0].splitlines()[2:]:
        code = line.split()[0]
        assert f"| {code} |" in docs
    for name in COMMANDS:
        assert f"halfbyte {name}" in docs


@POSIX
def test_a_closed_pipe_is_no_error(environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m halfbyte inspect stories260k --tensors --json"
    shell = f"{command} | head -c 10 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "0\n"
    assert done.stderr == ""


@POSIX
def test_an_error_that_nobody_reads_has_its_exit_code(environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "halfbyte", "inspect", "nowhere.gguf"]
    done = subprocess.run(command, stdout=writing, stderr=writing, env=environment, check=False)
    os.close(writing)
    assert done.returncode == 2


@FULL
def test_a_full_disk_is_exit_code_4(environment: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "halfbyte", "inspect", "stories260k"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == 4
    assert "No space left" in done.stderr


@FULL
@pytest.mark.parametrize(("arguments", "code"), [("tokenize stories260k hi", 0), ("run nope hi", 2), ("run", 2)])
def test_remarks_that_a_full_disk_does_not_take_change_no_exit_code(
    arguments: str, code: int, environment: dict[str, str]
) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "halfbyte", *arguments.split()]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, env=environment, check=False)
    assert done.returncode == code


@POSIX
def test_closed_standard_streams_do_not_crash(environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m halfbyte tokenize stories260k --ids Once <&- 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "1 403\n"


@POSIX
@pytest.mark.parametrize("arguments", ["inspect stories260k --json", "run stories260k Once --max-tokens 3", "--help"])
def test_an_answer_that_a_closed_stdout_does_not_take(arguments: str, environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m halfbyte {arguments} >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 4, done.stderr
    assert done.stderr.endswith("error: standard output is closed: there is nowhere to write the answer\n")


@POSIX
def test_a_closed_stdout_without_an_answer_is_no_error(environment: dict[str, str]) -> None:
    command = f"echo /exit | {sys.executable} -m halfbyte chat stories260k --backend reference >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


CONSOLE_SCRIPT = "import sys; from {} import {} as main; sys.exit(main())"  # what pip writes


@pytest.mark.parametrize("way", ["-m", "script"])
def test_ctrl_c_is_answered_while_modules_are_loaded(way: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Here while click is: that is the first one, and as long as Python itself starts there is nobody to answer."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8")
    entry = re.search(r'^halfbyte = "(.+):(.+)"$', text, re.MULTILINE)
    assert entry is not None
    start = ["-m", "halfbyte"] if way == "-m" else ["-c", CONSOLE_SCRIPT.format(*entry.groups())]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, *start, "--help"], capture_output=True, text=True, env={**environment, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_json_is_plain_ascii_and_strict(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_json({"text": "é\x1b\u202e", "bad": [float("inf"), float("nan")], "good": 1.5})
    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text) == {"text": "é\x1b\u202e", "bad": [None, None], "good": 1.5}


def test_python_dash_m_is_the_console_script(halfbyte: Any) -> None:
    assert halfbyte("--version").stdout.startswith("halfbyte ")
