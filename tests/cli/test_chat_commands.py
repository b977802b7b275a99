"""The slash commands of `halfbyte chat`, without a model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from halfbyte.tools.chat import HELP, Conversation, Leave, Retry, run_command
from halfbyte.tools.options import SAMPLING
from halfbyte.tools.saved import MAX_FILE, CommandError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices and links with names")


@pytest.fixture
def conversation() -> Conversation:
    talk = Conversation(system="Be brief.")
    talk.remember("One?", "Yes.")
    talk.remember("Two?", "No.")
    return talk


def test_a_question_comes_after_everything_that_was_said(conversation: Conversation) -> None:
    assert [m["content"] for m in conversation.with_question("Three?")] == [
        "Be brief.",
        "One?",
        "Yes.",
        "Two?",
        "No.",
        "Three?",
    ]
    assert len(conversation.messages) == 4, "asking remembers nothing: the answer may fail"


def test_an_answer_that_never_came_is_not_remembered(conversation: Conversation) -> None:
    conversation.remember("Three?", "")
    assert len(conversation.messages) == 4


def test_reset_keeps_the_system_text(conversation: Conversation) -> None:
    run_command(conversation, "/reset")
    assert conversation.messages == []
    assert conversation.system == "Be brief."


def test_system(conversation: Conversation) -> None:
    run_command(conversation, "/system  Rhyme always. ")
    assert (conversation.system, conversation.messages) == ("Rhyme always.", [])
    run_command(conversation, "/system")
    assert conversation.with_question("x") == [{"role": "user", "content": "x"}]


def test_undo_and_its_end(conversation: Conversation) -> None:
    assert "Two?" in run_command(conversation, "/undo")
    assert [m["content"] for m in conversation.messages] == ["One?", "Yes."]
    run_command(conversation, "/undo")
    with pytest.raises(CommandError, match="no question"):
        run_command(conversation, "/undo")


def test_retry_and_exit_are_signals(conversation: Conversation) -> None:
    with pytest.raises(Retry):
        run_command(conversation, "/retry")
    assert conversation.take_back() == "Two?"
    for line in ("/exit", "/quit"):
        with pytest.raises(Leave):
            run_command(conversation, line)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, CommandError])
def test_a_retry_that_fails_before_its_first_word_changes_nothing(
    failure: type[BaseException], conversation: Conversation
) -> None:
    before = list(conversation.messages)
    with pytest.raises(failure), conversation.retried() as question:
        assert question == "Two?"
        assert len(conversation.with_question(question)) == 4, "the old answer is not sent"
        conversation.remember(question, "")
        raise failure
    assert conversation.messages == before


def test_a_retry_replaces_the_old_answer(conversation: Conversation) -> None:
    with pytest.raises(KeyboardInterrupt), conversation.retried() as question:
        conversation.remember(question, "Perha")  # stopped, but begun
        raise KeyboardInterrupt
    assert [m["content"] for m in conversation.messages] == ["One?", "Yes.", "Two?", "Perha"]


@pytest.mark.parametrize("name", ["talk.json", "with space.json", "'with space.json'"])
def test_save_and_load(name: str, conversation: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    conversation.remember("Zürich \ud800?", "日本")
    run_command(conversation, f"/save {name}")
    again = Conversation()
    run_command(again, f"/load {name}")
    assert (again.system, again.messages[:-2]) == (conversation.system, conversation.messages[:-2])
    assert again.messages[-1]["content"] == "日本"
    assert [path.name for path in tmp_path.iterdir()] == [name.strip("'")]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not a saved conversation"),
        ("3", "expected a list"),
        ('{"messages": {}}', "expected a list"),
        ('[{"role": "root", "content": "x"}]', "message 0"),
        ('[{"role": "user", "content": 3}]', "content"),
        ('[{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]', "only the first"),
        ("[" * 100_000, "not a saved conversation"),
    ],
)
def test_a_wrong_file_changes_nothing(document: str, message: str, conversation: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(document, encoding="utf-8")
    before = json.dumps(conversation.messages)
    with pytest.raises(CommandError, match=message):
        run_command(conversation, f"/load {path}")
    assert json.dumps(conversation.messages) == before


WRONG_NAMES = ("", " ~nosuchuser/x", ' "it"s"', ' "a"b"', " a\0b", " " + "x" * 5000, " .")


@pytest.mark.parametrize(
    "line",
    [
        "/load /no/such/file",
        "/save /no/such/folder/file",
        *(c + name for c in ("/save", "/load") for name in WRONG_NAMES),
    ],
)
def test_file_errors_are_told(line: str, conversation: Conversation) -> None:
    with pytest.raises(CommandError):
        run_command(conversation, line)


@POSIX
@pytest.mark.parametrize("name", ["pipe", "link to pipe", "link to device"])
@pytest.mark.parametrize("command", ["/save", "/load"])
def test_pipes_and_devices_are_left_alone(command: str, name: str, conversation: Conversation, tmp_path: Path) -> None:
    """/dev/zero has no end, a pipe without a writer no beginning, and neither may become a file.

    The device has a link only: run by root, a /save that is wrong would take it away from the whole machine.
    """
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to pipe").symlink_to("pipe")
    (tmp_path / "link to device").symlink_to("/dev/zero")
    path = tmp_path / name
    before = path.lstat().st_mode
    with pytest.raises(CommandError, match="not a regular file"):
        run_command(conversation, f"{command} {path}")
    assert path.lstat().st_mode == before
    assert len(conversation.messages) == 4


@POSIX
def test_a_file_is_read_to_its_bound_whatever_size_it_says(conversation: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    with open(path, "wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(CommandError, match="longer than"):
        run_command(conversation, f"/load {path}")


@POSIX
def test_a_link_stays_one(conversation: Conversation, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "folder" / "talk.json"
    link.symlink_to(target)
    for _ in range(2):  # the file is new, then replaced
        run_command(conversation, f"/save {link}")
        assert link.is_symlink()
        assert len(json.loads(target.read_text(encoding="utf-8"))["messages"]) == 5
    assert [path.name for path in target.parent.iterdir()] == ["talk.json"]


def test_what_lies_where_the_file_is_written_first_stays(conversation: Conversation, tmp_path: Path) -> None:
    other = tmp_path / "talk.json.partial"
    other.write_text("of somebody else", encoding="utf-8")
    with pytest.raises(CommandError, match="something else is there"):
        run_command(conversation, f"/save {tmp_path / 'talk.json'}")
    assert other.read_text(encoding="utf-8") == "of somebody else"
    other.write_text('{\n "messages": [\n  {"role"', encoding="utf-8")  # what a crash of ours leaves
    run_command(conversation, f"/save {tmp_path / 'talk.json'}")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]


def test_set(conversation: Conversation) -> None:
    assert run_command(conversation, "/set temperature 0.5") == "temperature = 0.5"
    assert run_command(conversation, "/set max-tokens 7") == "max_tokens = 7"
    assert conversation.options == {"temperature": 0.5, "max_tokens": 7}
    shown = run_command(conversation, "/set")
    assert "temperature = 0.5" in shown
    assert "seed = (default)" in shown
    run_command(conversation, "/set temperature default")
    assert conversation.options == {"max_tokens": 7}


@pytest.mark.parametrize("option", ["speed 3", "seed 1.5", "top_p high", "top_p 2", "max_tokens 0"])
def test_a_wrong_option_changes_nothing(option: str, conversation: Conversation) -> None:
    with pytest.raises(CommandError):
        run_command(conversation, f"/set {option}")
    assert conversation.options == {}


def test_unknown_commands_point_to_help(conversation: Conversation) -> None:
    with pytest.raises(CommandError, match="/help"):
        run_command(conversation, "/frobnicate now")
    assert run_command(conversation, "/help") == HELP
    assert "messages" in run_command(conversation, "/stats")


def test_every_sampling_option_is_one_of_the_model() -> None:
    import inspect

    from halfbyte.runtime.model import Model

    assert set(SAMPLING) <= set(inspect.signature(Model.generate).parameters)
