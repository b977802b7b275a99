"""Special tokens: which ids have a role, and which of them are put around a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...formats.errors import UnsupportedError
from ...formats.gguf import ValueType
from ...runtime.tokenize.kinds import KINDS
from ..checkpoint import CheckpointError
from .table import PREFIX, Keys
from .tokenizer_json import TokenizerJson

# Role -> key. The spelling of "seperator" is the format's.
_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}
_NONE = 0xFFFF_FFFF  # says that there is no such token, where readers would assume one
_STANDS_FOR = {"bos": "cls", "eos": "sep"}  # what BERT and its like have instead


class Special:
    """The roles of a vocabulary. `ids` are its tokens by text; the first file that names a role is heard.

    named    fields of the tokenizer's files, by text; before `numbers`, of config.json, by id; before `own`, those that
             the vocabulary itself says
    count    ids are below it
    folder   for errors: CheckpointError where a token that begins or ends texts is none of the model's, since texts
             would never end. Others may be missing, as padding is that was added for training
    """

    def __init__(
        self, ids: Mapping[str, int], named: Mapping[str, Any], own: Mapping[str, int], numbers: Mapping[str, Any],
        count: int, folder: Path,
    ) -> None:  # fmt: skip
        self._ids, self._folder = ids, folder
        self.texts: dict[str, str] = {}
        for role in (*_KEYS, "cls"):
            given = named.get(f"{role}_token")
            text = _text(given)
            if text and text in ids:  # "" says that there is none
                self.texts[role] = text
            elif given is not None and text != "" and role in ("bos", "eos"):
                raise self._no_token(f"{role}_token", text or given, f"one of its {len(ids):,} tokens")
        for role, instead in _STANDS_FOR.items():
            if role not in self.texts and instead in self.texts:
                self.texts[role] = self.texts[instead]
        valid = {role: i for role, i in numbers.items() if type(i) is int and 0 <= i < count}
        self._numbers = {**own, **valid}
        if "eos" in numbers and "eos" not in self.texts and "eos" not in self._numbers:
            raise self._no_token("eos_token_id", numbers["eos"], f"0 to {count - 1:,}")
        self.adds: dict[str, bool] = {}

    def frame(self, file: TokenizerJson | None, named: Mapping[str, Any]) -> None:
        """What is put around texts: as tokenizer.json says, or else as tokenizer_config.json does."""
        for step in _steps(file.post_processor if file else None):
            match step:
                case {"type": "RobertaProcessing" | "BertProcessing"}:
                    self.adds = {"bos": True, "eos": True, "sep": step["type"] == "RobertaProcessing"}
                case {"type": "TemplateProcessing", "single": list(single)}:
                    self._frame_by_template(single, step.get("pair"))
        for role in ("bos", "eos", "sep"):
            given = named.get(f"add_{role}_token")
            if isinstance(given, bool):
                self.adds.setdefault(role, given)
            elif given is not None:
                raise CheckpointError(
                    "not a flag", path=self._folder, field=f"add_{role}_token", got=given, allowed="true or false"
                )
        if file is not None:  # which leaves nothing to guess
            self.adds = {"bos": False, "eos": False} | self.adds

    def _no_token(self, field: str, got: Any, allowed: str) -> CheckpointError:
        hint = "The tokenizer is of another model than the weights, or was added to without new rows"
        return CheckpointError(
            "no token of the model", path=self._folder, field=field, got=got, allowed=allowed, hint=hint
        )

    def keys(self, kind: str) -> Keys:
        """Ids and flags. A role that this kind of vocabulary would be taken to have, but has not, is denied."""
        found: Keys = {}
        for role, key in _KEYS.items():
            i = self._ids.get(self.texts[role]) if role in self.texts else self._numbers.get(role)
            if i is None and role in KINDS[kind].special:
                i = _NONE
            if i is not None:
                found[PREFIX + key] = (i, ValueType.UINT32)
        return found | {f"{PREFIX}add_{role}_token": value for role, value in self.adds.items()}

    def _frame_by_template(self, single: list[Any], pair: Any) -> None:
        if max(_around(single)) > 1:  # keys put one token on a side, and do so with a file that is embedded, too
            raise UnsupportedError(
                f"{self._folder}: a tokenizer that puts several tokens before or after a text (tokenizer.json, "
                "post_processor) cannot be converted"
            )
        first, last = (_special(single[0]), _special(single[-1])) if len(single) > 1 else (None, None)
        if first is not None or last is not None:
            self.adds |= {"bos": False, "eos": False}
        if first is not None:
            self.texts.setdefault("bos", first)
            self.adds["bos"] = first in (self.texts["bos"], self.texts.get("cls"))
        if last is not None:
            if self.texts.get("eos", last) != last:  # texts end in another way than turns of a chat
                self.texts.setdefault("eot", self.texts["eos"])
            self.texts["eos"] = last
            self.adds["eos"] = True
        between = _between(pair)
        if between:
            separators = {self.texts.get("sep"), self.texts.get("eos")}
            twice = len(between) == 2 and between[1] in separators
            self.adds["sep"] = twice or (last is None and between[0] in separators)


def _around(single: list[Any]) -> tuple[int, int]:
    """How many tokens a template puts before a text, and after it."""
    places = [i for i, item in enumerate(single) if isinstance(item, dict) and "Sequence" in item]
    return (places[0], len(single) - 1 - places[-1]) if places else (0, 0)


def _between(pair: Any) -> list[str | None]:
    """What a template puts between two texts."""
    if not isinstance(pair, list):
        return []
    places = [i for i, item in enumerate(pair) if isinstance(item, dict) and "Sequence" in item]
    return [_special(item) for item in pair[places[0] + 1 : places[1]]] if len(places) == 2 else []


def _special(item: Any) -> str | None:
    match item:
        case {"SpecialToken": {"id": str(text)}}:
            return text
    return None


def _steps(post_processor: Any) -> list[Any]:
    if not isinstance(post_processor, dict):
        return []
    inner = post_processor.get("processors", [post_processor])
    return inner if isinstance(inner, list) else []


def _text(token: Any) -> str | None:
    """A token is named by its text, or by an object that holds it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
