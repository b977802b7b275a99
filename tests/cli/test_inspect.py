"""`halfbyte inspect`: what it says, and that hostile files cannot use it against the terminal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.tools.describe import describe, group_of

from ..hostile.fuzz import ENTRY_POINTS, fuzz

TEMPLATE = "{% for m in messages %}\x1b]52;c;ZXZpbA==\x07{{ m.content }}{% endfor %}"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Valid GGUF whose every string tries to control the terminal, of an architecture nobody knows."""
    path = tmp_path / "evil.gguf"
    writer = GGUFWriter(path)
    writer.add("general.architecture", "evil\x1b[2J")
    writer.add("general.name", "\x1b]0;owned\x07 \u202egnp.exe\r\x9b31m é")
    writer.add("general.license", "mit\nLicence  forged")
    writer.add("tokenizer.chat_template", TEMPLATE)
    writer.add("tokenizer.ggml.tokens", ["a\x1b", "b"])
    writer.add("general.tags", ["\x1b[1m", "\u2066"])
    writer.add("evil\x1b[2J.context_length", -5)
    writer.add_tensor("blk.0.attn_q.\x1b[5m", (3, 32), GGMLType.Q8_0)
    writer.add_tensor("odd", (5,), GGMLType.F32)
    with writer.open():
        writer.write_tensor("blk.0.attn_q.\x1b[5m", np.zeros((3, 34), np.uint8))
        writer.write_tensor("odd", np.zeros(20, np.uint8))
    return path


def assert_no_control(text: str) -> None:
    assert not [char for char in text if (ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160]
    assert not set(text) & set("\u202e\u2066\u2028")


@pytest.mark.parametrize("options", [[], ["--tensors"], ["--json"], ["--json", "--tensors"]])
def test_no_control_character_reaches_the_terminal(options: list[str], hostile: Path, halfbyte: Any) -> None:
    done = halfbyte("inspect", hostile, *options)
    assert done.returncode == 0
    assert_no_control(done.stdout + done.stderr)
    assert "\\x1b" in done.stdout or "\\u001b" in done.stdout


def test_a_hostile_file_name_in_an_error_is_escaped(halfbyte: Any) -> None:
    done = halfbyte("inspect", "evil\x1b[2J\n.gguf")
    assert done.returncode == 2
    assert_no_control(done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_console_encoding_works(encoding: str, hostile: Path, halfbyte: Any) -> None:
    done = halfbyte("inspect", hostile, "--json", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 0
    table = halfbyte("tokenize", "stories260k", "日本 é", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert table.returncode == 0


def test_json_says_what_the_file_says(hostile: Path, halfbyte: Any) -> None:
    about = json.loads(halfbyte("inspect", hostile, "--json", "--tensors").stdout)
    assert about["architecture"] == "evil\x1b[2J"
    assert about["chat_templates"]["default"] == {
        "sha256": hashlib.sha256(TEMPLATE.encode()).hexdigest(),
        "length": len(TEMPLATE),
    }
    assert about["shape"] == {"context": -5}
    assert about["parameters"] == 3 * 32 + 5
    assert about["tensor_bytes"] == 3 * 34 + 20
    assert about["groups"]["attention"]["bits_per_weight"] == 8.5
    assert about["types"]["F32"]["parameters"] == 5
    assert about["tokenizer"]["tokens"] == 2
    assert [t["shape"] for t in about["tensor_list"]] == [[3, 32], [5]]
    assert about["metadata"]["general.tags"]["value"] == ["\x1b[1m", "\u2066"]


def test_the_shipped_model(halfbyte: Any) -> None:
    done = halfbyte("inspect", "stories260k")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line]
    table = {words[0]: words[1] for words in lines if len(words) == 2}
    assert table["Architecture"] == "llama"
    assert table["Parameters"] == "260,032 in 47 tensors, 32.00 bits per weight"
    assert table["Context"] == "512"
    assert "\x1b" not in done.stdout


def test_a_vocabulary_without_tensors(vocabulary: Path, halfbyte: Any) -> None:
    about = json.loads(halfbyte("inspect", vocabulary, "--json").stdout)
    assert about["kind"] == "vocabulary"
    assert about["parameters"] == 0
    assert about["bits_per_weight"] is None
    assert about["tokenizer"]["kind"] == "gpt2"
    assert halfbyte("inspect", vocabulary).returncode == 0


def test_values_of_unexpected_types_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    writer = GGUFWriter(path)
    writer.add("general.architecture", 7)
    writer.add("general.name", True)
    writer.add("tokenizer.chat_template", 1.5)
    writer.add("tokenizer.ggml.tokens", "not a list")
    writer.add("tokenizer.ggml.model", ["a", "b"])
    with writer.open():
        pass
    with GGUFFile.open(path) as gguf:
        about = describe(gguf)
    assert about["architecture"] is None
    assert about["name"] is None
    assert about["chat_templates"] == {}
    json.dumps(about)


def test_split_models_are_shown_whole(tmp_path: Path, halfbyte: Any) -> None:
    writer = GGUFWriter(tmp_path / "big.gguf", split_max_tensors=1)
    writer.add("general.architecture", "llama")
    for name in ("a", "b"):
        writer.add_tensor(name, (4,), GGMLType.F32)
    with writer.open():
        for name in ("a", "b"):
            writer.write_tensor(name, np.zeros(16, np.uint8))
    shard = next(tmp_path.glob("big-00002-of-*.gguf"))
    about = json.loads(halfbyte("inspect", shard, "--json").stdout)
    assert about["split"]["count"] == len(about["split"]["files"]) == len(list(tmp_path.glob("big-*.gguf")))
    assert about["tensors"] == 2


def test_no_findings_in_3000_mutated_files() -> None:
    report = fuzz(ENTRY_POINTS["inspect"], 77, range(3000))
    assert not report.findings, report.table()
    assert report.verdicts["loaded"] > 50, "some files must get as far as the description"


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("token_embd.weight", "embedding"),
        ("blk.12.attn_q.weight", "attention"),
        ("blk.0.attn_q_norm.weight", "norm"),
        ("blk.3.ffn_down.weight", "feed-forward"),
        ("blk.3.ffn_down_exps.weight", "experts"),
        ("blk.3.ffn_gate_inp.weight", "experts"),
        ("output.weight", "output"),
        ("output_norm.weight", "norm"),
        ("blk.1.ssm_in.weight", "recurrent"),
        ("rope_freqs.weight", "attention"),
        ("v.patch", "other"),
    ],
)
def test_groups(name: str, group: str) -> None:
    assert group_of(name) == group
