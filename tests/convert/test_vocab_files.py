"""Every file that a tokenizer may come in, what becomes of it, and what is said of broken ones."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.converters.checkpoint import CheckpointError
from halfbyte.converters.vocab import unusable_templates
from halfbyte.converters.vocab.agreement import disagreements
from halfbyte.formats.errors import UnsupportedError
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.tokenize import tokenizer_from_metadata
from halfbyte.runtime.tokenize.sentence import model_proto
from halfbyte.runtime.tokenize.vocabulary import HUGGINGFACE_KEY, read_vocabulary
from tokenizers import AddedToken, Tokenizer, processors

from . import vocabularies
from .vocabularies import converted, made, metadata_of, write_made, write_tokenizer

KEY = "tokenizer.ggml."
STORIES = Path(__file__).parents[2] / "runtime" / "assets" / "stories260k.gguf"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


def _pieces(*, removes_spaces: bool = False) -> bytes:
    """The tokenizer.model of the model in the wheel."""
    with GGUFFile.open(STORIES) as file:
        pieces = model_proto(read_vocabulary(file.metadata), bpe=True)
    # The runtime puts the space before a text itself; the original leaves it to the library.
    return pieces + _field(3, _field(1, b"x") + bytes([0x18, 1, 0x20, removes_spaces, 0x28, 1]))


def test_sentence_pieces_are_what_llama_cpp_makes_of_them(tmp_path: Path) -> None:
    with GGUFFile.open(STORIES) as file:
        theirs = {key: value for key, value in file.metadata.items() if key.startswith(KEY)}
    named = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": False}
    folder = write_tokenizer(tmp_path, {"tokenizer.model": _pieces(), "tokenizer_config.json": named})
    ours = metadata_of(folder, 512)
    del theirs[KEY + "add_space_prefix"]  # true, as for all of this kind
    for key, value in theirs.items():
        assert np.array_equal(ours[key], value), key
    assert not set(ours) - set(theirs) - {KEY + "unknown_token_id"}


def test_tokens_that_other_files_add_to_sentence_pieces(tmp_path: Path) -> None:
    decoder = {
        "510": {"content": "<|turn|>", "special": False},
        "511": {"content": "\u2581\u2581x", "special": False},
        "512": {"content": "<end>", "special": True},
    }
    files = {"tokenizer.model": _pieces(), "tokenizer_config.json": {"added_tokens_decoder": decoder}}
    folder = write_tokenizer(tmp_path, files | {"added_tokens.json": {"<old>": 513}})
    metadata = metadata_of(folder, 516)
    assert metadata[KEY + "tokens"][510:] == ["<|turn|>", "  x", "<end>", "<old>", "[PAD514]", "[PAD515]"]
    types = [CONTROL, USER_DEFINED, CONTROL, USER_DEFINED, UNUSED, UNUSED]
    assert metadata[KEY + "token_type"][510:].tolist() == types
    assert metadata_of(folder, 513)[KEY + "tokens"][510:] == ["<|turn|>", "  x", "<end>"]  # as in Gemma's folders
    with pytest.raises(CheckpointError, match="vocabulary"):
        metadata_of(folder, 511)


def test_spaces_of_sentence_pieces(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    for removes in (False, True):
        pieces = _pieces(removes_spaces=removes)
        ours = converted(write_tokenizer(tmp_path, {"tokenizer.model": pieces}), 512)
        theirs = SentencePieceProcessor(model_proto=pieces)
        for text in ("once upon", "  once   upon  ", "", " ", "a"):
            assert ours.encode(text, add_special=False) == theirs.encode(text), (text, removes)


IDS = ("unknown_token_id", "bos_token_id", "eos_token_id", "seperator_token_id", "padding_token_id")


def test_a_list_of_words_equals_its_tokenizer_json(tmp_path: Path) -> None:
    whole = metadata_of(write_made(tmp_path / "json", "wordpiece"), 1300)
    vocab = json.loads(made("wordpiece"))["model"]["vocab"]
    lines = "\n".join(sorted(vocab, key=vocab.get)) + "\n"
    for named in (vocabularies.NAMED["wordpiece"], {"do_lower_case": whole[KEY + "normalizer.lowercase"]}):
        files = {"vocab.txt": lines, "tokenizer_config.json": named}
        listed = metadata_of(write_tokenizer(tmp_path / "txt", files), 1300)
        for key in ("model", "tokens", "token_type", "normalizer.lowercase", *IDS):
            assert np.array_equal(whole[KEY + key], listed[KEY + key]), key
    assert "##" not in "".join(whole[KEY + "tokens"])
    framed = {key: whole[KEY + f"add_{key}_token"] for key in ("bos", "eos", "sep")}
    assert framed == {"bos": True, "eos": True, "sep": False}


TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _tekken(**settings: Any) -> dict[str, Any]:
    tokens = [bytes([i]) for i in range(256)] + [b"th", b"the", b" the", b"unused"]
    vocab = [{"rank": i, "token_bytes": base64.b64encode(token).decode()} for i, token in enumerate(tokens)]
    special = [{"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(["<unk>", "<s>", "</s>"])]
    config = {"pattern": TEKKEN_PATTERN, "default_vocab_size": 264, "default_num_special_tokens": 5} | settings
    return {"config": config, "vocab": vocab, "special_tokens": special}


def test_tekken(tmp_path: Path) -> None:
    metadata = metadata_of(write_tokenizer(tmp_path, {"tekken.json": _tekken()}), 270)
    assert metadata[KEY + "pre"] == "tekken"
    assert metadata[KEY + "merges"] == ["t h", "th e", "\u0120 the"]
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("the the") == [1, 5 + 257, 5 + 258]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 2, 0)


def test_tekken_without_a_list_has_that_of_its_version(tmp_path: Path) -> None:
    content = _tekken(version="v3")
    del content["special_tokens"]
    tokenizer = tokenizer_from_metadata(metadata_of(write_tokenizer(tmp_path, {"tekken.json": content}), 270))
    assert tokenizer.encode("</s>[INST][/INST]", add_special=False, parse_special=True) == [2, 3, 4]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 2, 0)
    for version in ("v11", ""):
        content["config"]["version"] = version
        with pytest.raises(CheckpointError, match=r"special_tokens.*missing|missing.*special_tokens"):
            metadata_of(write_tokenizer(tmp_path, {"tekken.json": content}), 270)


@pytest.mark.parametrize(
    "settings",
    [{"pattern": "x"}, {"default_vocab_size": 10_000}, {"default_num_special_tokens": -1}, {"default_vocab_size": 269}],
)
def test_broken_tekken(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tekken\.json"):
        metadata_of(write_tokenizer(tmp_path, {"tekken.json": _tekken(**settings)}), 270)


def test_roles_and_frames(tmp_path: Path) -> None:
    content = json.loads(made("gpt2"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}],
        "special_tokens": {},
    }
    named = {"eos_token": {"content": "<tool>"}, "add_bos_token": True, "pad_token": "nowhere"}
    files = {"tokenizer.json": content, "tokenizer_config.json": named}
    folder = write_tokenizer(tmp_path, files | {"config.json": {"pad_token_id": 7, "bos_token_id": 9999}})
    metadata = metadata_of(folder, 1600)
    assert metadata[KEY + "eos_token_id"] == 1  # what the template puts there
    assert metadata[KEY + "eot_token_id"] == metadata[KEY + "tokens"].index("<tool>")
    assert metadata[KEY + "padding_token_id"] == 7
    assert KEY + "bos_token_id" not in metadata
    assert (metadata[KEY + "add_bos_token"], metadata[KEY + "add_eos_token"]) == (False, True)


def test_chat_templates(tmp_path: Path) -> None:
    several = [{"name": "default", "template": "one"}, {"name": "tool use", "template": "two"}]
    tokenizer = converted(_with_template(tmp_path / "list", several), 1600)
    assert (tokenizer.chat_template(), tokenizer.chat_template("tool_use")) == ("one", "two")
    folder = _with_template(tmp_path / "files", None)
    write_tokenizer(folder, {"chat_template.jinja": "main", "additional_chat_templates/rag.jinja": "more"})
    metadata = metadata_of(folder, 1600)
    assert metadata["tokenizer.chat_template"] == "main"
    assert metadata["tokenizer.chat_template.rag"] == "more"
    assert metadata["tokenizer.chat_templates"] == ["rag"]
    both = write_tokenizer(_with_template(tmp_path / "both", several), {"chat_template.jinja": "main"})
    metadata = metadata_of(both, 1600)
    assert metadata["tokenizer.chat_template"] == "main"  # as in transformers
    assert metadata["tokenizer.chat_template.tool_use"] == "two"
    twice = [{"name": "tool use", "template": "one"}, {"name": "tool_use", "template": "two"}]
    for wrong in (5, [5], [{"name": "x"}], "x" * (1 << 20) + "x", twice):
        with pytest.raises(CheckpointError, match="template"):
            metadata_of(_with_template(tmp_path / "wrong", wrong), 1600)


def test_templates_that_chat_will_refuse_are_told(tmp_path: Path) -> None:
    """They are kept: another program may be able to use them."""
    several = [{"name": "default", "template": "{% for %}"}, {"name": "rag", "template": "{{ 1 }}"},
               {"name": "tools", "template": "{{ x"}]  # fmt: skip
    found = unusable_templates(metadata_of(_with_template(tmp_path, several), 1600))
    assert [text.partition(" ")[0] for text in found] == ["tokenizer.chat_template", "tokenizer.chat_template.tools"]
    assert all("`halfbyte chat` will refuse it" in text for text in found)


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, _json())
    n = json.loads(made("gpt2"))["added_tokens"][-1]["id"] + 1
    metadata_of(folder, 2 * n)
    with pytest.raises(CheckpointError, match=r"embeddings of.*another model's"):
        metadata_of(folder, 2 * n + 1)
    with pytest.raises(CheckpointError, match=r"embeddings of 8,192.*another model's"):
        metadata_of(folder, 8192)


def _with_template(folder: Path, template: Any) -> Path:
    return write_tokenizer(
        folder, {"tokenizer.json": made("gpt2"), "tokenizer_config.json": {"chat_template": template}}
    )


def _json(name: str = "gpt2", **model: Any) -> dict[str, str]:
    content = json.loads(made(name))
    content["model"] |= model
    return {"tokenizer.json": json.dumps(content)}


def _added(*tokens: Any) -> dict[str, str]:
    return {"tokenizer.json": json.dumps(json.loads(made("gpt2")) | {"added_tokens": list(tokens)})}


def _field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


BROKEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no object": {"tokenizer.json": "[]"},
    "no tokens": _json(vocab={}),
    "tokens in a list": _json(vocab=["a"]),
    "an id twice": _json(vocab={"a": 0, "b": 0}),
    "a negative id": _json(vocab={"a": -1}),
    "an id that is a text": _json(vocab={"a": "0"}),
    "an id that is a list": _json(vocab={"a": [0]}),
    "an added id that is a list": _added({"content": "x", "id": [0]}),
    "an older added id that is a list": {"tokenizer.model": _pieces(), "added_tokens.json": {"x": [5]}},
    "an added token that is a list": _added({"content": ["x"], "id": 0}),
    "a huge id": _json(vocab={"a": 1 << 40}),
    "a long token": _json(vocab={"a" * 5000: 0}),
    "a merge of three": _json(merges=["a b c"]),
    "a merge of one": _json(merges=[["a"]]),
    "a merge of strangers": _json(merges=["\u0120 \u4f60"]),
    "merges in an object": _json(merges={}),
    "an added token that is none": _added(5),
    "an added token without id": _added({"content": "x"}),
    "an added token in the place of another": _added({"content": "x", "id": 5}),
    "a token twice": _added({"content": "!", "id": 1550}),
    "a model that is no object": {"tokenizer.json": json.dumps({"model": 5})},
    "a score that is none": _json("unigram", vocab=[["a", "b"]]),
    "a map that is no base64": {
        "tokenizer.json": json.dumps(
            json.loads(made("unigram")) | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}}
        )
    },
    "no pieces": {"tokenizer.model": b""},
    "a cut off piece": {"tokenizer.model": b"\x0a\x7f\x0a"},
    "an endless number": {"tokenizer.model": b"\xff" * 20},
    "groups": {"tokenizer.model": b"\x0b\x0c"},
    "a piece that is a number": {"tokenizer.model": b"\x08\x01"},
    "a piece that is no text": {"tokenizer.model": _field(1, _field(1, b"\xff"))},
    "a score of NaN": {"tokenizer.model": _field(1, _field(1, b"a") + b"\x15" + struct.pack("<f", float("nan")))},
    "a type of 9": {"tokenizer.model": _field(1, _field(1, b"a") + b"\x18\x09")},
    "a list without special tokens": {"vocab.txt": "a\nb\n"},
    "special tokens that are none": {"vocab.txt": "a\n[UNK]\n", "tokenizer_config.json": {
        f"{role}_token": ["[UNK]"] for role in ("unk", "sep", "pad", "cls", "mask")}},
    "added tokens in a list": {"tokenizer.model": _pieces(), "added_tokens.json": [5]},
    "a decoder of no numbers": {
        "tokenizer.model": _pieces(), "tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "y"}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_broken_tokenizers(what: str, tmp_path: Path) -> None:
    """One error, which names the folder or the file."""
    folder = write_tokenizer(tmp_path, BROKEN[what])
    with pytest.raises(CheckpointError, match=folder.name):
        metadata_of(folder, 1600)


def test_kinds_that_cannot_be_converted(tmp_path: Path) -> None:
    for files in (_json(type="WordLevel"), _json(end_of_word_suffix="</w>"), {"tokenizer.model": _words()}):
        with pytest.raises(UnsupportedError, match=tmp_path.name):
            metadata_of(write_tokenizer(tmp_path, files), 1600)
        for name in files:
            (tmp_path / name).unlink()


def _words() -> bytes:
    """A SentencePiece model of whole words."""
    return _field(1, _field(1, b"a")) + _field(2, b"\x18\x03")


def test_too_many_tokens_for_the_model(tmp_path: Path) -> None:
    folder = write_made(tmp_path, "gpt2")
    count = len(json.loads(made("gpt2"))["model"]["vocab"]) + 2
    assert len(metadata_of(folder, count)[KEY + "tokens"]) == count
    assert HUGGINGFACE_KEY not in metadata_of(folder, count)
    with pytest.raises(CheckpointError, match="vocabulary"):
        metadata_of(folder, count - 3)


@pytest.mark.parametrize("name", ["gpt2", "unknown"])  # by keys, and by the embedded file
def test_added_tokens_beyond_the_rows_are_left_out(name: str, tmp_path: Path) -> None:
    """As in Gemma's folders of text models. One that ends texts is missed."""
    content = json.loads(made(name))
    count = 1 + max(token["id"] for token in content["added_tokens"])
    content["added_tokens"].append(content["added_tokens"][0] | {"content": "<image>", "id": count})
    folder = write_tokenizer(tmp_path, {"tokenizer.json": content})
    tokenizer = converted(folder, count)
    assert tokenizer.vocab_size == count
    assert count not in tokenizer.encode("an <image> here", parse_special=True)
    assert disagreements([folder / "tokenizer.json"], tokenizer)[1] == []
    assert converted(folder, count + 1).encode("<image>", add_special=False, parse_special=True) == [count]
    write_tokenizer(folder, {"tokenizer_config.json": {"eos_token": "<image>"}})
    with pytest.raises(CheckpointError, match="'eos_token': no token of the model"):
        metadata_of(folder, count)


@pytest.mark.parametrize(
    ("eos", "wanted"), [([99_999, 0], 0), ([-1, 7], 7), (-1, None), ([], None), ([-1], None), (None, None), (1, 1)]
)
def test_the_first_end_of_texts_that_the_model_has(eos: Any, wanted: int | None, tmp_path: Path) -> None:
    """And what says that there is none: -1, an empty list, and "" as the text of a token."""
    named = {"eos_token": "", "bos_token": {"content": ""}}
    files = {"config.json": {"eos_token_id": eos, "bos_token_id": eos}, "tokenizer_config.json": named}
    metadata = metadata_of(write_tokenizer(tmp_path, _json() | files), 1600)
    ends = metadata.get(KEY + "eos_token_id")
    assert (None if ends == 0xFFFF_FFFF else ends) == wanted


@pytest.mark.parametrize("single", ["<|begin|> <|end|> $A", "$A <|end|> <|begin|>"])
@pytest.mark.parametrize("name", ["gpt2", "unknown"])
def test_several_tokens_on_a_side_of_a_text(name: str, single: str, tmp_path: Path) -> None:
    engine = Tokenizer.from_str(made(name))
    engine.no_padding()
    special = [("<|begin|>", 0), ("<|end|>", 1)]
    for template in ("<|begin|> $A <|end|>", single):
        engine.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
        folder = write_tokenizer(tmp_path, {"tokenizer.json": engine.to_str()})
        if template == single:
            with pytest.raises(UnsupportedError, match="several tokens before or after"):
                metadata_of(folder, 1600)
        else:
            assert converted(folder, 1600).encode("a") == engine.encode("a").ids


def _token(content: str, **rules: Any) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "special": False} | rules


def test_tokens_that_other_files_add_to_a_list_of_words(tmp_path: Path) -> None:
    vocab = json.loads(made("wordpiece"))["model"]["vocab"]
    n, lines = len(vocab), "\n".join(sorted(vocab, key=vocab.get)) + "\n"
    newtok = _token("newtok", normalized=False)
    decoder = {"0": _token("[PAD]", special=True), str(n): newtok, str(n + 1): _token("[ENT]", special=True)}
    files = {"vocab.txt": lines, "tokenizer_config.json": {"added_tokens_decoder": decoder}}
    folder = write_tokenizer(tmp_path, files | {"added_tokens.json": {"newtok": n, "[OLD]": n + 2, "[FAR]": n + 3}})
    metadata = metadata_of(folder, n + 3)
    assert metadata[KEY + "tokens"][n:] == ["newtok", "[ENT]", "[OLD]"]
    assert metadata[KEY + "token_type"][n:].tolist() == [USER_DEFINED, CONTROL, USER_DEFINED]
    engine = Tokenizer.from_str(made("wordpiece"))
    engine.add_tokens([AddedToken("newtok", normalized=False), AddedToken("[ENT]", special=True, normalized=False)])
    for text in ("a newtok here", "x [ENT] y newtok[ENT]", "[MASK] the"):
        assert tokenizer_from_metadata(metadata).encode(text, parse_special=True) == engine.encode(text).ids


def test_added_words_that_texts_in_any_case_mean(tmp_path: Path) -> None:
    """BERT's texts become lower case before words are looked for, and so do words that were added without a rule."""
    files = {"vocab.txt": "a\n[UNK]\n[CLS]\n[SEP]\n"}
    decoder = {"4": _token("newtok", normalized=True)}
    for more in ({"added_tokens.json": {"newtok": 4}}, {"tokenizer_config.json": {"added_tokens_decoder": decoder}}):
        with pytest.raises(UnsupportedError, match="texts in any case mean"):
            metadata_of(write_tokenizer(tmp_path, files | more), 5)
        (tmp_path / next(iter(more))).unlink()
    cased = {"tokenizer_config.json": {"do_lower_case": False}, "added_tokens.json": {"newtok": 4}}
    assert metadata_of(write_tokenizer(tmp_path, files | cased), 5)[KEY + "tokens"][4] == "newtok"


def test_a_role_of_an_added_token(tmp_path: Path) -> None:
    files = {"vocab.txt": "a\n[UNK]\n[CLS]\n", "added_tokens.json": {"[SEP]": 3}}
    metadata = metadata_of(write_tokenizer(tmp_path, files), 4)
    assert (metadata[KEY + "eos_token_id"], metadata[KEY + "token_type"][3]) == (3, CONTROL)


@pytest.mark.parametrize("rule", ["lstrip", "rstrip", "single_word"])
@pytest.mark.parametrize(("name", "n"), [("tokenizer.model", 512), ("vocab.txt", 2)])
def test_added_tokens_that_keys_cannot_say(name: str, n: int, rule: str, tmp_path: Path) -> None:
    files = {name: _pieces() if name == "tokenizer.model" else "a\n[UNK]\n"}
    named = {"added_tokens_decoder": {str(n): _token("<|turn|>", **{rule: True})}}
    folder = write_tokenizer(tmp_path, files | {"tokenizer_config.json": named})
    with pytest.raises(UnsupportedError, match=rf"added_tokens_decoder\.{n}: .*{rule}.*without tokenizer\.json"):
        metadata_of(folder, n + 1)
    assert len(metadata_of(folder, n)[KEY + "tokens"]) == n  # has no row for it
