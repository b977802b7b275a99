"""The `halfbyte` command: find the subcommand, run it, turn every failure into one line and an exit code.

Starting must be fast, so this module imports click and nothing else of weight.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from .. import __version__
from ..formats.errors import HalfbyteError
from . import console
from .commands import COMMANDS
from .stopping import Terminated

EXIT_BUG, EXIT_USAGE, EXIT_FILE, EXIT_RESOURCE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 4, 130, 143

EPILOG = """\b
Exit codes:
  0    done
  1    a bug in Halfbyte
  2    wrong use: arguments, names, a request that cannot fit
  3    a damaged or unreadable file
  4    not enough memory or disk, or a folder or output that cannot be written
  5    a valid file or request that this version does not support
  130  interrupted
  143  terminated

\b
First steps:
  halfbyte run smollm2 "Why is the sky blue?"
  halfbyte run stories260k "Once upon a time"      (ships with Halfbyte: no network)
"""


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f".commands.{cmd_name.replace('-', '_')}", __package__).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="halfbyte", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; allowed anywhere.")
def cli(debug: bool) -> None:
    """Run language models in GGUF format from pure Python."""


def main(arguments: Sequence[str] | None = None) -> None:
    """What the console script calls. Never returns: it ends the process with a documented exit code."""
    console.prepare()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    rest = [word for word in options if word != "--debug"] + arguments[len(options) :]
    try:
        # not cli.main(): it answers Ctrl-C itself
        with cli.make_context("halfbyte", rest or ["--help"]) as context:
            cli.invoke(context)
        sys.stdout.flush()  # a full disk or a closed pipe shows here, not at interpreter exit
        code = 0
    except BaseException as error:
        code = _explain(error, debug=debug)
        if code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
            _leave_at_once(code)
        try:
            sys.stdout.flush()
        except OSError:  # what a full disk did not take: Python would try again at its end, and change the exit code
            console.discard_output()
    sys.exit(code)


def _leave_at_once(code: int) -> None:
    """End the process without waiting for kernels or compilers in flight: files are written under temporary names and
    renamed, so there is nothing they could leave half done, and whoever pressed Ctrl-C wants the prompt back.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _explain(error: BaseException, *, debug: bool) -> int:
    """Write what went wrong and return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        console.discard_output()
        return 0  # `halfbyte ... | head` has what it wanted
    try:
        if debug and not isinstance(error, click.exceptions.Exit):
            import traceback

            console.note("".join(traceback.format_exception(error)).rstrip())
        return _report(error)
    except BrokenPipeError:
        console.discard_output()
        return _report(error)  # nobody reads it, but the exit code is the error's


def _report(error: BaseException) -> int:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        # a terminal has just echoed ^C
        console.note("\ninterrupted" if console.is_terminal(sys.stderr) else "interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, Terminated):
        console.note("terminated")
        return EXIT_TERMINATED
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        console.error(error.format_message() + hint)
        return EXIT_USAGE
    if isinstance(error, HalfbyteError):
        console.error(str(error))
        return error.exit_code
    if isinstance(error, MemoryError):
        console.error(f"not enough memory{f': {error}' if str(error) else ''}; use a smaller --context or model")
        return EXIT_RESOURCE
    if isinstance(error, OSError) and error.errno == errno.EBADF and not error.filename:
        console.error("standard output is closed: there is nowhere to write the answer")
        return EXIT_RESOURCE
    if isinstance(error, OSError):
        console.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EXIT_RESOURCE if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT) else EXIT_FILE
    console.error(f"{type(error).__name__}: {error}. This is a bug in Halfbyte; `halfbyte --debug ...` shows where")
    return EXIT_BUG
