"""`halfbyte tokenize`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from halfbyte.runtime.hub import ASSETS
from halfbyte.runtime.tokenize import load_tokenizer

from tests.builders import split

STORIES = ASSETS / "stories260k.gguf"


def test_the_table_and_the_count(halfbyte: Any) -> None:
    done = halfbyte("tokenize", "stories260k", "Once upon a time")
    assert done.stdout.splitlines()[0].split() == ["1", "<s>"]
    assert done.stderr == "5 tokens\n"


def test_json_ids_and_library_agree(halfbyte: Any, vocabulary: Path) -> None:
    text = "Hello, wörld <|endoftext|>\n\tx"
    expected = load_tokenizer(vocabulary).encode(text)
    found = json.loads(halfbyte("tokenize", vocabulary, text, "--json").stdout)
    assert found["ids"] == expected
    assert found["count"] == len(expected) == len(found["pieces"])
    assert halfbyte("tokenize", vocabulary, text, "--ids").stdout.split() == [str(i) for i in expected]


def test_any_shard_of_a_split_model(halfbyte: Any, tmp_path: Path) -> None:
    shards = split(STORIES, tmp_path / "m", 20)
    assert len(shards) == 3
    for shard in shards:
        assert halfbyte("tokenize", shard, "Once upon a time", "--ids").stdout == "1 403 407 261 378\n"


def test_special_tokens_only_when_asked(halfbyte: Any, vocabulary: Path) -> None:
    plain = halfbyte("tokenize", vocabulary, "<|endoftext|>", "--ids").stdout.split()
    special = halfbyte("tokenize", vocabulary, "<|endoftext|>", "--ids", "--special").stdout.split()
    assert len(plain) > 1
    assert special == ["50256"]


def test_no_bos(halfbyte: Any) -> None:
    with_bos = halfbyte("tokenize", "stories260k", "hi", "--ids").stdout.split()
    assert halfbyte("tokenize", "stories260k", "hi", "--ids", "--no-bos").stdout.split() == with_bos[1:]


@pytest.mark.parametrize("ids", ["403,407", "403 407", "[403, 407]"])
def test_decode(ids: str, halfbyte: Any) -> None:
    assert halfbyte("tokenize", "stories260k", "--decode", ids).stdout == "Once upon\n"
    assert json.loads(halfbyte("tokenize", "stories260k", "--decode", ids, "--json").stdout) == {"text": "Once upon"}


@pytest.mark.parametrize("ids", ["99999", "-5"])
def test_an_id_outside_the_vocabulary(ids: str, halfbyte: Any) -> None:
    done = halfbyte("tokenize", "stories260k", "--decode", ids)
    assert done.returncode == 2
    assert "vocabulary of 512" in done.stderr


def test_an_empty_text_is_one(halfbyte: Any, vocabulary: Path) -> None:
    done = halfbyte("tokenize", "stories260k", "")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["1", "<s>"], "1 tokens\n")
    assert json.loads(halfbyte("tokenize", vocabulary, "", "--json").stdout) == {"count": 0, "ids": [], "pieces": []}


def test_a_pipe(halfbyte: Any) -> None:
    piped = halfbyte("tokenize", "stories260k", "--ids", stdin="\ufeffOnce upon a time\r\n")
    assert piped.stdout == halfbyte("tokenize", "stories260k", "--ids", "Once upon a time").stdout


def test_a_pipe_that_is_not_text(halfbyte: Any) -> None:
    done = halfbyte("tokenize", "stories260k", "-", stdin=b"abc\xff")
    assert done.returncode == 2
    assert "not UTF-8 text (byte 3)" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are bytes elsewhere")
def test_an_argument_is_utf8_whatever_the_locale(environment: dict[str, str]) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "halfbyte", "tokenize", "stories260k", "--json"]
    texts = [*command, "\u00e9\u2603".encode()]
    first, second = (subprocess.check_output(texts, env={**environment, **extra}) for extra in ({}, plain))
    assert first == second
    for words in (["tokenize", "stories260k"], ["run", "stories260k"], ["chat", "stories260k", "--system"]):
        command = [sys.executable, "-m", "halfbyte", *words, b"a\xffb"]
        wrong = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert wrong.returncode == 2 and "is not UTF-8" in wrong.stderr
