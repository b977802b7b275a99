"""The state of `halfbyte chat` and its slash commands. Reading and showing are done elsewhere.

`Conversation` holds the messages and the options; `run_command` changes them and returns what to say about it.
Files of conversations are those of `saved.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import saved
from .options import SAMPLING
from .saved import CommandError, Message

HELP = """\
/help              show this
/reset             forget the conversation, keep the system text
/system TEXT       set the system text and forget the conversation; without TEXT: remove it
/undo              forget the last question and its answer
/retry             answer the last question again; the old answer stays until the new one begins
/save FILE         write the conversation as JSON
/load FILE         read one back
/set KEY VALUE     change a sampling option (temperature, top_p, seed, max_tokens, ...); /set alone shows them
/stats             tokens and speed of the last answer
/exit              leave (Ctrl-D does too)
A line that begins with // is sent with one slash less. A \\ at the end of a line continues it on the next.
Ctrl-C stops an answer."""


class Leave(Exception):
    """The user asked to end the program."""


class Retry(Exception):
    """The last question is to be answered again."""


@dataclass
class Conversation:
    """Messages in order, the system message first if there is one; sampling options; facts about the last answer."""

    system: str = ""
    messages: list[Message] = field(default_factory=list)  # without the system message
    options: dict[str, Any] = field(default_factory=dict)
    stats: str = "nothing has been answered yet"

    def all_messages(self) -> list[Message]:
        """The system message, if there is one, and the others."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.messages]

    def with_question(self, text: str) -> list[Message]:
        """The messages to send for a new question; nothing is remembered yet."""
        return [*self.all_messages(), {"role": "user", "content": text}]

    def remember(self, question: str, answer: str) -> None:
        """Keep a question with its answer, whole or stopped; one without any answer never happened."""
        if answer:
            self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def take_back(self) -> str:
        """Remove the last question and all that followed; return the question."""
        for i in range(len(self.messages) - 1, -1, -1):
            if self.messages[i]["role"] == "user":
                question = self.messages[i]["content"]
                del self.messages[i:]
                return question
        raise CommandError("there is no question to go back to")

    @contextmanager
    def retried(self) -> Iterator[str]:
        """Take back the last question, to be answered inside the block; without a new answer all stays as it was."""
        before = list(self.messages)
        question = self.take_back()
        n_left = len(self.messages)
        try:
            yield question
        finally:
            if len(self.messages) == n_left:
                self.messages = before


def run_command(conversation: Conversation, line: str) -> str:
    """Carry out a line that begins with "/"; what to tell the user. Raises CommandError, Leave, Retry."""
    name, _, argument = line[1:].partition(" ")
    if name not in _COMMANDS:
        raise CommandError(f"there is no command /{name}; /help lists them")
    return _COMMANDS[name](conversation, argument.strip())


def _help(conversation: Conversation, argument: str) -> str:
    return HELP


def _exit(conversation: Conversation, argument: str) -> str:
    raise Leave


def _retry(conversation: Conversation, argument: str) -> str:
    raise Retry


def _reset(conversation: Conversation, argument: str) -> str:
    conversation.messages.clear()
    return "the conversation starts anew"


def _system(conversation: Conversation, argument: str) -> str:
    conversation.system = argument
    conversation.messages.clear()
    return "system text set; the conversation starts anew" if argument else "system text removed"


def _undo(conversation: Conversation, argument: str) -> str:
    question = conversation.take_back()
    return f"forgot: {question[:60]}{'...' if len(question) > 60 else ''}"


def _stats(conversation: Conversation, argument: str) -> str:
    return f"{conversation.stats}; {len(conversation.messages)} messages in the conversation"


def _set(conversation: Conversation, argument: str) -> str:
    key, _, value = argument.partition(" ")
    key, value = key.replace("-", "_"), value.strip()
    if not key:
        return "\n".join(f"{name} = {conversation.options.get(name, '(default)')}" for name in SAMPLING)
    if key not in SAMPLING:
        raise CommandError(f"there is no option {key!r}; known: {', '.join(SAMPLING)}")
    if value in ("", "default"):
        conversation.options.pop(key, None)
        return f"{key} is at its default"
    try:
        number = SAMPLING[key][0](value)
    except ValueError:
        kind = "a whole number" if SAMPLING[key][0] is int else "a number"
        raise CommandError(f"{key} needs {kind}, not {value!r}") from None
    _check(key, number)
    conversation.options[key] = number
    return f"{key} = {conversation.options[key]}"


def _check(key: str, number: Any) -> None:
    from ..runtime.engine.sampling import SamplingError, SamplingParams  # NumPy, as in saved.py

    try:
        if key != "max_tokens":
            SamplingParams(**{key: number})
        elif number < 1:
            raise CommandError("max_tokens must be at least 1")
    except SamplingError as error:
        raise CommandError(str(error)) from None


def _save(conversation: Conversation, argument: str) -> str:
    path = saved.named(argument, "/save FILE")
    saved.write(path, conversation.all_messages())
    return f"{len(conversation.messages)} messages written to {path}"


def _load(conversation: Conversation, argument: str) -> str:
    path = saved.named(argument, "/load FILE")
    messages = saved.read(path)
    conversation.system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else ""
    conversation.messages = messages
    return f"{len(messages)} messages read from {path}"


_COMMANDS: dict[str, Callable[[Conversation, str], str]] = {
    "help": _help,
    "reset": _reset,
    "system": _system,
    "undo": _undo,
    "retry": _retry,
    "save": _save,
    "load": _load,
    "set": _set,
    "stats": _stats,
    "exit": _exit,
    "quit": _exit,
}
