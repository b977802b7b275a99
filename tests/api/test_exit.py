"""A program ends however it likes, whatever is still running: it does not hang, and ends with its own exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each logits processor takes a moment, so that steps are still being run when Python ends.
BEGIN = """
import os, sys, threading, time
import halfbyte

def slowly(history, logits):
    time.sleep(0.005)
    return logits

model = halfbyte.Model.load("stories260k", threads=2)
answer = model.generate("Once upon a time", temperature=0, processors=[slowly])
next(answer)
"""
ENDS = {
    "half read": ("for piece in answer: break", 0),
    "nobody holds the answer": ("del answer", 0),
    "an exception": ("raise SystemError", 1),
    "an exit code": ("sys.exit(3)", 3),
    "an exit in another thread": ("threading.Thread(target=sys.exit, args=(3,)).start()", 0),
    "a daemon that reads": ("threading.Thread(target=answer.read, daemon=True).start()", 0),
    "a session": ("talk = model.session(); told = talk.send('Hello', processors=[slowly]); next(told)", 0),
    "two models": ("other = halfbyte.Model.load('stories260k', threads=2); told = other.generate('A'); next(told)", 0),
    "logits of a daemon": (
        "threading.Thread(target=lambda: [model.logits([1] * 400) for _ in range(9999)], daemon=True).start()\n"
        "time.sleep(0.02)",
        0,
    ),
}
# Teams that no engine closes: one that is idle, and one that runs steps to the end.
TEAM = """
import threading, time
from tests.cpu.test_team import Counter, FUNCTIONS, Team, ensure_compiled

ensure_compiled([*FUNCTIONS, "add"], workers=1)
counter, teams = Counter(64 * 64, calls=20), [Team(3), Team(3)]

def run():
    while True:
        teams[0].run(counter.table, counter.step, counter.cancel)

threading.Thread(target=run, daemon=True).start()
time.sleep(0.05)
"""


def check_end(program: str, code: int) -> None:
    call, root = [sys.executable, "-c", program], Path(__file__).parents[2]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr  # a crash is a negative one


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_while_an_answer_is_being_generated(end: str) -> None:
    line, code = ENDS[end]
    check_end(BEGIN + line, code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_ends_and_its_parent_too() -> None:
    fork = "child = os.fork()\nif not child: sys.exit(5)\n"
    check_end(BEGIN + fork + "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5", 0)


def test_teams_without_an_engine_keep_no_program_from_its_end() -> None:
    check_end(TEAM, 0)
