"""Which launches are recorded, and what happens where they cannot be. No GPU is needed: nothing is launched."""

from __future__ import annotations

import logging

import pytest
from halfbyte.runtime.backends.cuda import recorded
from halfbyte.runtime.backends.cuda.now import Now
from halfbyte.runtime.backends.cuda.recorded import MOST, Recorder


class Log:
    """What was launched one by one, recorded, launched as a recording, and closed: by numbers of tokens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.singly: list[int] = []
        self.recorded: list[int] = []
        self.together: list[int] = []
        self.closed: list[int] = []
        self.failure, self.tokens = failure, 0
        monkeypatch.setattr(recorded, "SIMULATED", False)
        monkeypatch.setattr(recorded, "recording", self.record)
        self.recorder = Recorder(None)

    def run(self, tokens: int) -> None:
        self.tokens = tokens
        self.recorder.run(Now(tokens, tokens, tokens, (), None), lambda: self.singly.append(tokens))

    def record(self, stream: object, launches: object) -> Made:
        if self.failure is not None:
            raise self.failure
        self.recorded.append(self.tokens)
        return Made(self, self.tokens)


class Made:
    def __init__(self, log: Log, tokens: int) -> None:
        self.log, self.tokens = log, tokens

    def __call__(self) -> None:
        self.log.together.append(self.tokens)

    def close(self) -> None:
        self.log.closed.append(self.tokens)


def test_steps_are_recorded_when_they_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    for tokens in (1, 1, 2, 1):
        log.run(tokens)
    assert log.singly == [1, 2] and log.recorded == [1] and log.together == [1, 1]


def test_recordings_that_were_not_used_for_long_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    for tokens in range(MOST):
        log.run(tokens)
        log.run(tokens)
    log.run(0)
    log.run(MOST)
    log.run(MOST)
    assert log.closed == [1] and log.recorded[-1] == MOST and log.together[-1] == MOST
    log.run(0)
    log.run(1)
    assert log.recorded[-1] == 1 and log.closed == [1, 2]
    log.recorder.close()
    assert len(log.closed) == len(log.recorded) == MOST + 2


def test_a_recording_that_fails_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(monkeypatch, RuntimeError("the driver says no"))
    with caplog.at_level(logging.WARNING):
        for tokens in (1, 1, 1, 2, 2):
            log.run(tokens)
    assert log.singly == [1, 1, 1, 2, 2]
    assert len(caplog.messages) == 1 and "the driver says no" in caplog.messages[0]
