"""tekken.json: Mistral's vocabularies of bytes, listed by rank, after a block of special tokens."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from ...formats.gguf import ValueType
from ...runtime.tokenize.bytelevel import BYTE_OF
from ..checkpoint import Checkpoint, CheckpointError
from ..config import Config
from .structure import pre_name
from .table import CONTROL, NORMAL, PREFIX, Keys, Table

NAME = "tekken.json"
MAX_TOKEN_BYTES = 512
_CHARS = {byte: char for char, byte in BYTE_OF.items()}
# Special tokens by rank, where a file of a version before v11 does not list them: https://github.com/mistralai/mistral-common
UNLISTED = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_UNLISTED_IN = ("v1", "v2", "v3", "v7")
_ROLES = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}


def tekken(checkpoint: Checkpoint, room: int) -> tuple[Table, Keys, bool, dict[str, int]]:
    """(tokens, keys, True, ids of roles). Merges are not stored: each way to make a token of two others is one."""
    path = checkpoint.path / NAME
    root = Config(checkpoint.require_json(NAME), path)
    settings = root.inner("config")
    n_special = settings.count("default_num_special_tokens")
    n_tokens = settings.count("default_vocab_size", low=n_special + 256)
    if n_tokens > room:
        raise settings.refuse("default_vocab_size", n_tokens, f"up to {room:,}, the size of the model's vocabulary")
    split = {"type": "Split", "pattern": {"Regex": settings.text("pattern")}, "behavior": "Isolated", "invert": False}
    name = pre_name(split, ignore_merges=True)
    if name is None:
        raise settings.refuse("pattern", settings.fields.get("pattern"), "a pattern that this version knows")
    table = Table(path, room)
    _put_special(table, root, n_special)
    ranks = _ranks(root, n_tokens - n_special)
    for token, rank in ranks.items():
        table.put(n_special + rank, _text(token), NORMAL, said_in=f"vocab[{rank}]")
    merges = [f"{_text(left)} {_text(right)}" for left, right in _merges(ranks)]
    keys: Keys = {
        PREFIX + "model": "gpt2",
        PREFIX + "pre": name,
        PREFIX + "merges": (merges, ValueType.STRING),
        PREFIX + "add_bos_token": True,
        PREFIX + "add_eos_token": False,
    }
    ids = table.ids()
    return table, keys, True, {role: ids[text] for role, text in _ROLES.items() if text in ids}


def _put_special(table: Table, root: Config, count: int) -> None:
    """Special tokens by rank. Ranks without a name are reserved."""
    for rank in range(count):
        table.put(rank, f"<SPECIAL_{rank}>", CONTROL, said_in="special_tokens")
    for token in _special(root, count):
        match token:
            case {"rank": int(rank), "token_str": str(text)} if 0 <= rank < count:
                table.put(rank, text, CONTROL, said_in="special_tokens")
            case _:
                raise root.refuse("special_tokens", token, f"a rank below {count:,} and a text")


def _special(root: Config, count: int) -> list[Any]:
    """Ranks and texts of special tokens, as the file lists them or as its version has them."""
    given = root.fields.get("special_tokens")
    if given is None and root.inner("config").text("version", "") in _UNLISTED_IN:
        return [{"rank": rank, "token_str": text} for rank, text in enumerate(UNLISTED[:count])]
    if not isinstance(given, list):
        raise root.refuse("special_tokens", given, f"a list; only files of {', '.join(_UNLISTED_IN)} go without")
    return given


def _ranks(root: Config, count: int) -> dict[bytes, int]:
    """Bytes of each token -> rank, ascending; single bytes come first."""
    given = root.fields.get("vocab")
    if not isinstance(given, list) or len(given) < count:
        raise root.refuse("vocab", type(given).__name__, f"a list of at least {count:,}")
    ranks: dict[bytes, int] = {}
    for rank, entry in enumerate(given[:count]):
        token = _decoded(entry, rank)
        if token is None or token in ranks or (rank < 256) != (len(token) == 1):
            raise CheckpointError(
                "no token of its rank", path=root.path, field=f"vocab[{rank}]", got=entry,
                allowed="bytes in base64 that no other rank has, single ones first",
            )  # fmt: skip
        ranks[token] = rank
    return ranks


def _decoded(entry: Any, rank: int) -> bytes | None:
    match entry:
        case {"rank": int(number), "token_bytes": str(text)} if number == rank and len(text) < 2 * MAX_TOKEN_BYTES:
            try:
                return base64.b64decode(text, validate=True) or None
            except ValueError:  # no base64, or no ASCII
                return None
    return None


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """In the order of the tokens that they make; those of one token by the ranks of its parts."""
    for token in ranks:
        ways = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        yield from sorted(
            ((left, right) for left, right in ways if left in ranks and right in ranks),
            key=lambda way: (ranks[way[0]], ranks[way[1]]),
        )


def _text(token: bytes) -> str:
    return "".join(_CHARS[byte] for byte in token)
