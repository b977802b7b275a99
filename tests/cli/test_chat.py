"""`halfbyte chat` through a pipe and, on POSIX, at a pseudo terminal."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

REFERENCE = ("--backend", "reference")
OPTIONS = ("--temperature", "0", "--max-tokens", "6", *REFERENCE)


def test_lines_of_a_pipe_are_answered_in_order(halfbyte: Any) -> None:
    done = halfbyte("chat", "stories260k", *OPTIONS, stdin="Hello\n\n/stats\nAgain \\\nand again\n/stats\n")
    assert done.returncode == 0
    assert len(done.stdout.strip().splitlines()) >= 2
    assert "2 messages in the conversation" in done.stderr
    assert "4 messages in the conversation" in done.stderr
    assert "ChatML" in done.stderr
    assert "> " not in done.stdout


def test_exit_leaves_at_once(halfbyte: Any) -> None:
    done = halfbyte("chat", "stories260k", *OPTIONS, stdin="/exit\nHello\n")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_conversation_is_sent_again(halfbyte: Any) -> None:
    stdin = "Hello\n/stats\nAgain\n/stats\n/undo\n/retry\n/stats\n"
    done = halfbyte("chat", "stories260k", *OPTIONS, stdin=stdin)
    first, second, third = (int(line.split()[0]) for line in done.stderr.splitlines() if "prompt tokens" in line)
    assert first < second
    assert third == first, "after /undo, /retry asks the first question again"
    answers = done.stdout.splitlines()
    assert answers[0] == answers[-1]


def test_a_wrong_command_does_not_end_a_script_but_an_error_does(halfbyte: Any) -> None:
    stdin = '/frobnicate\n/save ~nosuchuser/x\n/load "a"b"\n/set max_tokens 99999\nHello\nnever\n'
    done = halfbyte("chat", "stories260k", *OPTIONS, stdin=stdin)
    assert "error: there is no command /frobnicate" in done.stderr
    assert done.stderr.count("names no file") == 2
    assert "do not fit into a context" in done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_line_that_is_not_utf8_ends_a_script_after_the_answers_before_it(halfbyte: Any) -> None:
    done = halfbyte("chat", "stories260k", *OPTIONS, stdin="\ufeffHellö\n".encode() + b"bad \xff\nnever\n")
    assert done.returncode == 2
    assert done.stdout.count("\n") == 1
    assert done.stderr.endswith("error: standard input is not UTF-8 text (line 2); convert it first\n")


def test_the_system_text_is_sent(halfbyte: Any) -> None:
    done = halfbyte("chat", "stories260k", "--system", "dog " * 20, *OPTIONS, stdin="Hi\n/stats\n/system\nHi\n/stats\n")
    with_system, without = (int(line.split()[0]) for line in done.stderr.splitlines() if "prompt tokens" in line)
    assert with_system > without + 15


class Terminal:
    """A program at a pseudo terminal: what a person would see and type."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        import pty

        self.master, slave = pty.openpty()
        self.child = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**env, "TERM": "dumb"}, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, *, since: int = 0, timeout: float = 60) -> int:
        """Read until `text` appears after position `since`; the position behind it."""
        end = time.monotonic() + timeout
        while text not in self.seen[since:]:
            assert time.monotonic() < end, f"no {text!r} in {self.seen[since:]!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:  # Linux says so when the child has closed the terminal
                    assert text in self.seen[since:], f"closed before {text!r}: {self.seen[since:]!r}"
        return self.seen.index(text, since) + len(text)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        time.sleep(0.2)  # a prompt is on the screen a moment before readline listens to signals
        self.child.send_signal(signal.SIGINT)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    if sys.platform == "win32":
        pytest.skip("no pseudo terminals here")
    endless = ("--temperature", "3", "--top-p", "1", "--min-p", "0", "--top-k", "0")
    program = Terminal([sys.executable, "-m", "halfbyte", "chat", "stories260k", *endless, *REFERENCE], environment)
    yield program
    program.close()


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Terminal) -> None:
    at = terminal.wait_for("> ")
    terminal.type("Once\n")
    at = terminal.wait_for("Once\r\n", since=at)
    at = terminal.wait_for("plain completion\r\n", since=at)  # the model has no template, which comes first
    at = terminal.wait_for(" ", since=at)  # the answer has begun: it takes some tenths of a second
    begin = time.monotonic()
    terminal.interrupt()
    at = terminal.wait_for("[stopped]", since=at)
    at = terminal.wait_for("> ", since=at)
    assert time.monotonic() - begin < 2.0, "0.3 s on an idle machine; here with room for a busy one"
    terminal.type("/stats\n")
    at = terminal.wait_for("cancelled; 2 messages", since=at)  # what was said so far is remembered
    at = terminal.wait_for("> ", since=at)
    terminal.interrupt()
    at = terminal.wait_for("Ctrl-C again", since=at)
    terminal.wait_for("> ", since=at)
    terminal.interrupt()
    assert terminal.child.wait(30) == 130


def test_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.child.wait(30) == 0


def test_an_error_does_not_end_a_conversation(terminal: Terminal) -> None:
    at = terminal.wait_for("> ")
    terminal.type("/set max_tokens 99999\n")
    at = terminal.wait_for("> ", since=terminal.wait_for("max_tokens = 99999", since=at))
    terminal.type("Once\n")
    at = terminal.wait_for("error: ", since=at)
    terminal.wait_for("> ", since=at)


def test_a_retry_that_fails_keeps_what_was_said(terminal: Terminal) -> None:
    at = terminal.wait_for("> ")
    terminal.type("/set max_tokens 3\n")
    at = terminal.wait_for("> ", since=terminal.wait_for("max_tokens = 3", since=at))
    terminal.type("/set temperature 0\n")
    at = terminal.wait_for("> ", since=terminal.wait_for("temperature = 0", since=at))
    terminal.type("Hello\n")
    at = terminal.wait_for("> ", since=terminal.wait_for("Hello\r\n", since=at))
    terminal.type("/set max_tokens 99999\n")
    at = terminal.wait_for("> ", since=terminal.wait_for("max_tokens = 99999", since=at))
    terminal.type("/retry\n")
    at = terminal.wait_for("> ", since=terminal.wait_for("error: ", since=at))
    terminal.type("/stats\n")
    terminal.wait_for("2 messages", since=at)
