"""Session: history, reuse of what was computed, forks."""

from __future__ import annotations

import pytest
from halfbyte import InvalidRequest, Model

PLAIN = {"temperature": 0, "max_tokens": 12}
pytestmark = pytest.mark.filterwarnings("ignore")


def test_history_grows_by_what_was_said(model: Model):
    session = model.session(messages=[{"role": "system", "content": "Be brief."}])
    answer = session.send("Hi", **PLAIN).read()
    assert session.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": answer},
    ]
    expected = model.chat([*session.messages, {"role": "user", "content": "And?"}], **PLAIN).read()
    assert session.send("And?", **PLAIN).read() == expected
    assert len(session.messages) == 5


def test_a_later_turn_computes_only_what_is_new(model: Model):
    session = model.session()
    first = session.send("Tell me a story about a dog and a cat", **PLAIN)
    first.read()
    second = session.send("More", **PLAIN)
    second.read()
    assert second.usage.cached_tokens > first.usage.prompt_tokens  # the question and the answer


def test_messages_are_copies(model: Model):
    session = model.session(messages=[{"role": "system", "content": "a"}])
    session.messages[0]["content"] = "b"
    session.messages.clear()
    assert session.messages == [{"role": "system", "content": "a"}]


def test_forks_are_independent(model: Model):
    session = model.session()
    session.send("Hi", **PLAIN).read()
    twin = session.fork()
    assert twin.messages == session.messages
    twin.send("And?", **PLAIN).read()
    assert len(twin.messages) == 4 and len(session.messages) == 2


def test_a_cancelled_answer_joins_as_far_as_it_was_read(model: Model):
    session = model.session()
    with session.send("Hi", temperature=0) as answer:
        piece = next(answer)
    assert session.messages[-1] == {"role": "assistant", "content": piece}
    assert session.send("Hi", **PLAIN).read()


def test_an_answer_nobody_holds_is_cancelled(model: Model):
    session = model.session()
    for _ in session.send("Hi", temperature=0):
        break
    assert [m["role"] for m in session.messages] == ["user", "assistant"]
    session.send("Hi", temperature=0)  # dropped before its first word: as if it had not been asked
    assert [m["role"] for m in session.messages] == ["user", "assistant"]


def test_a_failed_answer_takes_its_question_back(model: Model):
    session = model.session()

    def broken(*args):
        raise RuntimeError("processor")

    with pytest.raises(Exception, match="processor"):
        session.send("Hi", processors=[broken]).read()
    assert session.messages == []


def test_one_answer_at_a_time(model: Model):
    session = model.session()
    answer = session.send("Hi", temperature=0)
    with pytest.raises(InvalidRequest, match="still being generated"):
        session.send("Hello?")
    with pytest.raises(InvalidRequest, match="still being generated"):
        session.fork()
    answer.close()
    session.send("Hello?", **PLAIN).read()


def test_reset_goes_back_to_the_beginning(model: Model):
    first = [{"role": "system", "content": "a"}]
    session = model.session(messages=first)
    answer = session.send("Hi", temperature=0)
    session.reset()
    assert answer.finish_reason == "cancelled" and session.messages == first
