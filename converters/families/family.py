"""What a family of checkpoints is to the converter: names, keys, and what happens to its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..checkpoint import Checkpoint, CheckpointError
from ..config import Config
from ..rows import Rows, same, stacked
from ..weights import weights

Keys = dict[str, Any]  # metadata keys without the architecture in front
Tensors = dict[str, Rows]  # by GGUF name
Change = Callable[[Rows, Config], Rows]
# One stored tensor that becomes several: GGUF stem -> rows of it.
Split = Callable[[Rows, Config], Mapping[str, Rows]]


def _none(c: Config) -> Tensors:
    return {}


def _no_biases(c: Config) -> Sequence[str]:
    return ()


def _no_keys(checkpoint: Checkpoint, c: Config) -> Keys:
    return {}

MIXED = "A part is missing, or config.json is another model's: download the whole folder again"

@dataclass(frozen=True)
class Family:
    """A table row for each family. Names are stems: "{i}" is the layer, "{e}" the expert, ".weight" or ".bias" follow.

    architecture  general.architecture
    keys          config.json -> metadata
    names         stem in the checkpoint -> stem in GGUF, or a whole name; stems with "{e}" are stacked
    changes       GGUF stem -> what is done to its tensors
    splits        stem in the checkpoint -> what makes several tensors of it, by GGUF stem
    biases        GGUF stems that have a bias in each layer by config.json: graphs take what is there. Layer norms, of
                  families that have them, need not be named
    is_tied       whether the head is the embedding where config.json does not say (tie_word_embeddings)
    extra         tensors that are computed from config.json
    beside        the folder and its config.json -> further metadata, by whole keys
    ignored       regular expressions of names that mean nothing any more, such as buffers
    unsaid        what transformers takes for fields that config.json may leave out where it has a language model in it
    """

    architecture: str
    keys: Callable[[Config], Keys]
    names: Mapping[str, str]
    changes: Mapping[str, Change] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)
    biases: Callable[[Config], Sequence[str]] = _no_biases
    is_tied: bool = False
    extra: Callable[[Config], Tensors] = _none
    beside: Callable[[Checkpoint, Config], Keys] = _no_keys
    ignored: Sequence[str] = (r"\.rotary_emb\.inv_freq$", r"\.masked_bias$")
    unsaid: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self, checkpoint: Checkpoint, c: Config) -> Tensors:
        """Every tensor under its GGUF name. CheckpointError names one that has no place, or is missing."""
        found: Tensors = self.extra(c)
        experts: dict[str, dict[int, Rows]] = {}
        is_tied, head = c.flag("tie_word_embeddings", default=self.is_tied), None
        for name, stored in weights(checkpoint, self.ignored).items():
            if is_tied and _HEAD.search(name):
                head = stored
                continue
            for target, number, rows in self._places(name, stored, c):
                known = experts.get(target, {})
                if target in found or number in known or (known and number is None):
                    raise _refuse(stored, f"it would become {target!r}, and so would another one")
                if number is None:
                    found[target] = rows
                else:
                    experts.setdefault(target, {})[number] = rows
        if head is not None and not same(head, found.get("token_embd.weight", head)):
            found["output.weight"] = self._apart(head)
        self._must_have_a_head(found, c, is_tied)
        self._must_have_biases(found, c)
        return found | {target: _experts(target, by_number) for target, by_number in experts.items()}

    def _apart(self, head: Rows) -> Rows:
        """A head that is said to be tied and has other numbers. transformers does not tie it then."""
        if "output" in self.names.values():
            return head
        raise _refuse(
            head,
            "it is not the embedding, which is the head of every model of this family",
            hint="config.json ties both (tie_word_embeddings): leave this tensor out if it is a rest of training",
        )

    def _must_have_a_head(self, found: Tensors, c: Config, is_tied: bool) -> None:
        """Without one the embedding would be taken, which is right only where it is tied."""
        if is_tied or "output" not in self.names.values() or "output.weight" in found:
            return
        said = "says that it is not" if "tie_word_embeddings" in c else "does not say that it is"
        raise CheckpointError(
            f"the head is missing, and config.json {said} the embedding (tie_word_embeddings)",
            path=c.path.parent, field="lm_head.weight", hint="Download the whole repository again",
        )  # fmt: skip

    def _must_have_biases(self, found: Tensors, c: Config) -> None:
        """A graph cannot tell a bias that got lost from one that never was, nor one that nobody should add."""
        stems, is_layer_norm = self.biases(c), "attention.layer_norm_epsilon" in self.keys(c)
        for name, rows in found.items():
            stem, _, _, role = _taken_apart(name)
            bias = f"{name.removesuffix(role)}.bias"
            if role == ".weight" and stem in stems and bias not in found:
                raise CheckpointError(
                    "the bias is missing", path=c.path.parent, field=self.stored_name(bias),
                    hint=MIXED,
                )  # fmt: skip
            if role == ".bias" and stem not in stems and not (is_layer_norm and stem.endswith("norm")):
                raise _refuse(rows, "models with this config.json have no such bias", hint=MIXED)

    def stored_name(self, target: str) -> str:
        """What a checkpoint calls a tensor of this GGUF name; that name where it does not say."""
        number = re.match(r"blk\.(\d+)\.", target)
        layer = number[1] if number else ""
        role = next((role for role in _ROLES if target.endswith(role)), "")
        for stem, name in self.names.items():
            if name.replace("{i}", layer) == target.removesuffix(role):
                return stem.replace("{i}", layer).replace("{e}", "0") + role
        return target

    def _places(self, name: str, rows: Rows, c: Config) -> Iterator[tuple[str, int | None, Rows]]:
        """Where a stored tensor goes: GGUF names, numbers of experts, rows."""
        stem, layer, expert, role = _taken_apart(name)
        if stem in self.splits:
            named = self.splits[stem](rows, c)
        elif stem in self.names:
            named = {self.names[stem]: rows}
        else:
            raise _refuse(
                rows,
                f"the converter for {self.architecture} has no place for it",
                hint="It is of another family than config.json says, or an adapter: merge that into its model first",
            )
        for target, part in named.items():
            change = self.changes.get(target)
            made = target.replace("{i}", layer) + ("" if target.endswith(_ROLES) else role)
            yield made, expert, change(part, c) if change else part


_ROLES = (".weight", ".bias")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_NUMBERS = re.compile(r"\.(\d{1,6})(?=\.)")


def _taken_apart(name: str) -> tuple[str, str, int | None, str]:
    """Stem with "{i}" and "{e}", layer, expert, and ".weight" or ".bias": what says neither is a weight.

    Models that see have a language model in them, under names that say so.
    """
    name = name.replace("language_model.", "", 1)
    numbers = _NUMBERS.findall(name)
    places = iter(("{i}", "{e}"))
    stem = _NUMBERS.sub(lambda match: f".{next(places, match[1])}", name)
    role = next((role for role in _ROLES if stem.endswith(role)), ".weight")
    expert = int(numbers[1]) if len(numbers) > 1 else None
    return stem.removesuffix(role), numbers[0] if numbers else "", expert, role


def _experts(target: str, by_number: Mapping[int, Rows]) -> Rows:
    first = by_number[min(by_number)]
    if sorted(by_number) != list(range(len(by_number))):
        missing = next(number for number in range(len(by_number) + 1) if number not in by_number)
        raise CheckpointError(f"expert {missing} is missing for {target!r}", field=first.origin)
    if any(rows.shape != first.shape or rows.type is not first.type for rows in by_number.values()):
        raise CheckpointError(f"the experts of {target!r} differ in shape or type", field=first.origin)
    return stacked([by_number[number] for number in range(len(by_number))])


def _refuse(rows: Rows, problem: str, hint: str | None = None) -> CheckpointError:
    return CheckpointError(f"{rows.origin}: {problem}", hint=hint)
