"""tokenizer.model: SentencePiece vocabularies, merged by score (Llama's) or the most probable cut (Unigram, T5's)."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from typing import Any

from ...formats.errors import TokenizerError, UnsupportedError
from ...formats.gguf import ValueType
from ...runtime.tokenize.charsmap import check_charsmap
from ..checkpoint import Checkpoint, CheckpointError
from .added import put_added, put_all_added
from .bpe import space_prefix
from .protobuf import Message
from .table import BYTE, NORMAL, PREFIX, UNKNOWN, Keys, Table
from .tokenizer_json import TokenizerJson

NAMES = ("tokenizer.model", "spiece.model")
_KINDS = {1: "t5", 2: "llama"}  # TrainerSpec.model_type -> tokenizer.ggml.model
_ID_FIELDS = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}  # of TrainerSpec, with defaults


def sentence_pieces(
    checkpoint: Checkpoint, name: str, file: TokenizerJson | None, config: Mapping[str, Any], room: int
) -> tuple[Table, Keys, bool, dict[str, int]]:
    """(tokens, keys, whether they say what tokenizer.json says, ids of roles that the model names)."""
    path = checkpoint.path / name
    message = Message(Checkpoint.read(path), path)
    table = Table(path, room)
    parts: dict[int, dict[int, int | bytes]] = {2: {}, 3: {}}
    count = 0
    for number, value in message:
        if number == 1:
            _put_piece(table, count, message.inner(value).last())
            count += 1
        elif number in parts:
            parts[number] = message.inner(value).last()
    if not count:
        raise CheckpointError("a SentencePiece model without pieces", path=path)
    trainer, normalizer = parts[2], parts[3]
    kind = _KINDS.get(_number(trainer, 3, 1))
    if kind is None or _number(trainer, 24, 0) or not _number(normalizer, 5, 1):
        raise UnsupportedError(f"{path}: only Unigram and BPE with spaces as U+2581 before words can be converted")
    put_all_added(table, checkpoint, file, config, spaces=True)
    given = config.get("add_prefix_space")
    prefix = given if kind == "llama" and isinstance(given, bool) else bool(_number(normalizer, 3, 1))
    keys = _keys(kind, normalizer, prefix)
    plain = file is None or all(token.plain for token in file.added)
    same_spaces = file is None or kind == "t5" or space_prefix(file) == prefix
    roles = {role: _signed(_number(trainer, *field)) for role, field in _ID_FIELDS.items()}
    return table, keys, plain and same_spaces, {role: i for role, i in roles.items() if 0 <= i < count}


def unigram(file: TokenizerJson, room: int) -> tuple[Table, Keys, bool]:
    """A Unigram vocabulary of tokenizer.json. The engine of `tokenizers` cuts unknown text in a way of its own."""
    table = Table(file.path, room)
    given = file.model.fields.get("vocab")
    if not isinstance(given, list):
        raise file.model.refuse("vocab", given, "a list of pairs")
    unknown = file.model.fields.get("unk_id")
    for i, piece in enumerate(given):
        match piece:
            case [str(text), float() | int() as score] if math.isfinite(score) and abs(score) < 1e30:
                table.put(i, text, UNKNOWN if i == unknown else NORMAL, float(score), said_in=f"model.vocab[{i}]")
            case _:
                raise file.model.refuse(f"vocab[{i}]", piece, "a text and a number")
    put_added(table, file, spaces=True)
    keys: Keys = {
        PREFIX + "model": "t5",
        PREFIX + "pre": "default",
        PREFIX + "add_space_prefix": True,
        PREFIX + "remove_extra_whitespaces": True,
    }
    return table, keys | _charsmap(_precompiled(file), file), False


def _put_piece(table: Table, i: int, piece: Mapping[int, int | bytes]) -> None:
    text, score, kind = piece.get(1, b""), piece.get(2, bytes(4)), piece.get(3, NORMAL)
    said_in = f"pieces[{i}]"
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4 or kind not in range(1, BYTE + 1):
        raise table.refuse(said_in, piece, "a text, a score and a type from 1 to 6")
    value = struct.unpack("<f", score)[0]
    if not math.isfinite(value):
        raise table.refuse(said_in, value, "a finite score")
    try:
        table.put(i, text.decode(), int(kind), value, said_in=said_in)
    except UnicodeDecodeError:
        raise table.refuse(said_in, text, "UTF-8") from None


def _keys(kind: str, normalizer: Mapping[int, int | bytes], prefix: bool) -> Keys:
    """For Llama's kind only what readers would not assume."""
    keys: Keys = {PREFIX + "model": kind, PREFIX + "pre": "default"}
    removes = bool(_number(normalizer, 4, 1))
    if kind != "llama" or not prefix:
        keys[PREFIX + "add_space_prefix"] = prefix
    if kind != "llama" or removes:
        keys[PREFIX + "remove_extra_whitespaces"] = removes
    charsmap = normalizer.get(2, b"")
    return keys | (_charsmap(charsmap, None) if isinstance(charsmap, bytes) else {})


def _precompiled(file: TokenizerJson) -> bytes:
    """The character map of the normalizer, wherever it stands in the sequence."""
    normalizer = file.normalizer if isinstance(file.normalizer, dict) else {}
    steps = normalizer.get("normalizers") if isinstance(normalizer.get("normalizers"), list) else [normalizer]
    for step in steps or []:
        match step:
            case {"type": "Precompiled", "precompiled_charsmap": str(text)}:
                try:
                    return base64.b64decode(text, validate=True)
                except ValueError:  # no base64, or no ASCII
                    raise file.root.refuse("normalizer", text, "base64") from None
    return b""


def _charsmap(blob: bytes, file: TokenizerJson | None) -> Keys:
    """CheckpointError, in the words of the runtime, for a map that leads out of itself."""
    try:
        check_charsmap(blob)
    except TokenizerError as error:
        raise CheckpointError(str(error), path=file.path if file else None) from None
    return {PREFIX + "precompiled_charsmap": (list(blob), ValueType.UINT8)} if blob else {}


def _number(fields: Mapping[int, int | bytes], number: int, default: int) -> int:
    value = fields.get(number, default)
    return value if isinstance(value, int) else default


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
