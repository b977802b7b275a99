"""`halfbyte chat`: a conversation at the terminal, or through a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...formats.errors import HalfbyteError
from .. import answer, console
from ..chat import Conversation, Leave, Retry, run_command
from ..lines import LineReader
from ..options import LoadChoices, chosen_sampling, loading_options, open_model, sampling_options
from ..prompt import Text
from ..saved import CommandError

if TYPE_CHECKING:
    from ...runtime.engine.generation import Generation
    from ...runtime.model import Model


@click.command()
@click.argument("model")
@click.option("--system", type=Text(), metavar="TEXT", default="", help="Instructions for the whole conversation.")
@sampling_options
@loading_options
def command(model: str, system: str, loading: LoadChoices, **sampling: Any) -> None:
    """Talk with MODEL, a GGUF file or a name that `pull` knows.

    The conversation is remembered until it no longer fits the context. Ctrl-C stops an answer; Ctrl-D, /exit, or
    Ctrl-C twice at the prompt leaves. /help lists the commands. Lines from a pipe are answered one after the other.
    """
    conversation = Conversation(system=system, options=chosen_sampling(sampling))
    with open_model(model, loading) as loaded:
        lines = LineReader()
        if lines.is_interactive:
            console.note(f"{loaded.name or model}. /help for help, Ctrl-D to leave.")
        Repl(loaded, conversation, lines).run()


class Repl:
    """Reads, answers, and survives: an error or a Ctrl-C ends one answer, not the conversation."""

    def __init__(self, model: Model, conversation: Conversation, lines: LineReader) -> None:
        self.model, self.conversation, self.lines = model, conversation, lines

    def run(self) -> None:
        """Until the input ends or the user leaves."""
        warned = False  # a Ctrl-C at the prompt has been answered with advice
        while True:
            try:
                line = self.lines.read()
            except EOFError:
                break
            except KeyboardInterrupt:
                if warned or not self.lines.is_interactive:
                    raise
                warned = True
                console.note("\n(Ctrl-C again or Ctrl-D to leave)")
                continue
            warned = False
            try:
                self._handle(line)
            except Leave:
                break
            except KeyboardInterrupt:
                if not self.lines.is_interactive:
                    raise
                console.note("[stopped]")
            except HalfbyteError as error:
                # a person reads it and goes on; a script must learn of it through the exit code
                if not self.lines.is_interactive and not isinstance(error, CommandError):
                    raise
                console.error(str(error))
        if self.lines.is_interactive:
            console.note("")

    def _handle(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            try:
                console.note(run_command(self.conversation, line))
            except Retry:
                with self.conversation.retried() as question:
                    self._answer(question)
        elif line:
            self._answer(line.removeprefix("/") if line.startswith("//") else line)

    def _answer(self, question: str) -> None:
        generation = self.model.chat(self.conversation.with_question(question), **self.conversation.options)
        try:
            answer.show(generation)
        except KeyboardInterrupt:
            generation.close()
            self._remember(question, generation)  # what was said so far is part of the conversation
            raise
        self._remember(question, generation)
        self.model.read_ahead(self.conversation.all_messages())

    def _remember(self, question: str, generation: Generation) -> None:
        self.conversation.stats = answer.cost(generation)
        self.conversation.remember(question, generation.text)
