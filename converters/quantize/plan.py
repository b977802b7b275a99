"""Plan a quantization: what each tensor becomes and why, before anything is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import overload

from ...formats.errors import InvalidRequest, ModelFileError
from ...formats.gguf import GGMLType, GGUFFile, GGUFTensor
from ...formats.gguf.kinds import KINDS
from ...formats.gguf.packing import stored_form
from ...formats.gguf.types import BLOCK_SIZES
from ...formats.quants import CODECS
from . import recipes
from .architecture import Architecture
from .prune import renamed
from .recipes import BITSANDBYTES, FEED_FORWARD, RECIPES, SHORT_NAMES, Kind, Place, Recipe, kind_of

NATIVE, REVERSIBLE, BF16 = NF4_FORMS = ("native", "q8_0-reversible", "bf16")
ACTIVATIONS = (GGMLType.Q8_1, GGMLType.Q8_K)  # types that ggml has for what it multiplies weights with


@dataclass(frozen=True)
class Choices:
    """What may be said beside the recipe. Types are given by name or as they are.

    overrides   (pattern, type): the first regular expression found in a tensor's name decides
    pure        every matrix gets the recipe's own type
    keep_split  tensors stay in the order of the source's files
    prune       numbers of layers that are left out
    nf4_as      how types of bitsandbytes are stored, one of NF4_FORMS (storage.py)
    """

    overrides: Sequence[tuple[str, GGMLType | str]] = ()
    pure: bool = False
    output_type: GGMLType | str | None = None
    embedding_type: GGMLType | str | None = None
    keep_output: bool = False
    has_importance: bool = False
    keep_split: bool = False
    prune: Sequence[int] = ()
    nf4_as: str = NATIVE


@dataclass(frozen=True)
class Planned:
    """One tensor of the source, and what becomes of it.

    `reason` is for people: what made it `type`, where that is not the recipe's plain one.
    `search`: how its codes are found, where that is not llama.cpp's way, see searches.py.
    """

    tensor: GGUFTensor
    name: str  # the tensor's own, unless layers were left out before it
    type: GGMLType
    reason: str
    needs_importance: bool
    search: str | None = None
    nf4_as: str = NATIVE

    @property
    def kind(self) -> Kind:
        return kind_of(self.tensor.name)

    @property
    def n_bytes(self) -> int:
        """Bytes that the tensor will take in a file."""
        return sum(one.n_bytes for one in stored_form(self.name, self.tensor.shape, self.stored_type))

    @property
    def stored_type(self) -> GGMLType:
        """The type of the tensor for whoever opens the file."""
        other = {REVERSIBLE: GGMLType.Q8_0, BF16: GGMLType.BF16}.get(self.nf4_as)
        return self.type if other is None or self.type not in KINDS else other

    @property
    def is_copied(self) -> bool:
        return self.type is self.tensor.type


def recipe_named(name: str) -> tuple[str, Recipe]:
    """The recipe and its full name; InvalidRequest offers the nearest names."""
    if not isinstance(name, str):
        raise InvalidRequest(f"{name!r} is no recipe: the name of one is needed, such as 'Q4_K_M'")
    every = RECIPES | BITSANDBYTES
    known = {full.upper(): full for full in every} | SHORT_NAMES
    full = known.get(_in_one_word(name))
    if full is None:
        raise _unknown("recipe", name, every)
    return full, every[full]


def _in_one_word(name: str) -> str:
    """NF4:128 is NF4_128, and NF4:64 is NF4, as a block has 64 weights where no number says otherwise."""
    return re.sub(r"^((NF|FP)4(_DQ)?)_64$", r"\1", name.upper().replace(":", "_"))


@overload
def as_type(name: GGMLType | str) -> GGMLType: ...
@overload
def as_type(name: GGMLType | str | None) -> GGMLType | None: ...
def as_type(name: GGMLType | str | None) -> GGMLType | None:
    """A type of tensors by its name, in any case; InvalidRequest offers the nearest names."""
    if name is None or isinstance(name, GGMLType):
        return name
    if not isinstance(name, str):
        raise InvalidRequest(f"{name!r} is no type: the name of one is needed, such as 'Q6_K'")
    encoded = {kind.name: kind for kind in CODECS if kind not in ACTIVATIONS}
    found = encoded.get(_in_one_word(name))
    if found is None:
        raise _unknown("type that can be written", name, encoded)
    return found


def _unknown(what: str, name: str, known: Iterable[str]) -> InvalidRequest:
    known = [one for one in known if not re.match(r"(NF|FP)4.*_\d", one)]  # the same in blocks of other sizes
    near = get_close_matches(name.upper(), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? All" if near else "there are"
    has_size = re.match(r"(NF|FP)4(_DQ)?[:_]\d", name, re.I)
    sizes = f"; its blocks have {', '.join(map(str, BLOCK_SIZES))} weights" if has_size else ""
    return InvalidRequest(f"no {what} is called {name!r}{sizes}; {hint}: {', '.join(known)}")


def plan(file: GGUFFile, recipe_name: str, choices: Choices | None = None) -> list[Planned]:
    """What each tensor becomes, in the order of the new file: by layer, then by name, as llama.cpp writes them.

    Raises InvalidRequest for an unknown recipe or a pattern that is no regular expression.
    """
    choices = choices or Choices()
    names = renamed(file.tensors, choices.prune)
    planner = _Planner(file, *recipe_named(recipe_name), choices, names.values())
    ordered = names if choices.keep_split else sorted(names, key=by_layer)
    return [planner.planned(file.tensors[name], names[name]) for name in ordered]


def by_layer(name: str) -> tuple[int, str]:
    """Sorts names as llama.cpp does."""
    match = re.match(r"blk\.\s*([+-]?\d+)\.", name)
    return int(match[1]) if match else -1, name


class _Planner:
    def __init__(self, file: GGUFFile, name: str, recipe: Recipe, choices: Choices, tensors: Iterable[str]) -> None:
        self._name, self._recipe, self._choices = name, recipe, choices
        if choices.keep_output and choices.output_type is not None:
            raise InvalidRequest("either the output stays as it is (keep_output), or it gets a type (output_type)")
        self._output_type, self._embedding_type = as_type(choices.output_type), as_type(choices.embedding_type)
        self._model = Architecture.of(file)
        kinds = Counter(map(kind_of, tensors))
        self._is_tied, self._n_values = not kinds[Kind.OUTPUT], kinds[Kind.VALUE]
        self._seen: Counter[Kind] = Counter()
        self._patterns = list(_compiled(choices.overrides))

    def planned(self, source: GGUFTensor, name: str) -> Planned:
        tensor = replace(source, name=name)
        if self._is_kept(tensor):
            return Planned(source, name, source.type, "kept", False, nf4_as=self._choices.nf4_as)
        type_, reason = self._chosen(tensor)
        needs = type_ in recipes.ALWAYS_NEED | self._recipe.needs_importance
        needs = (needs and kind_of(name) not in (Kind.OUTPUT, Kind.EMBEDDING)) or type_ in recipes.ENCODERS_NEED
        return Planned(source, name, type_, reason, needs, nf4_as=self._choices.nf4_as)

    def _is_kept(self, tensor: GGUFTensor) -> bool:
        name = tensor.name
        return (
            max((i for i, n in enumerate(tensor.ne) if n > 1), default=0) < 1  # a vector, whatever it is declared as
            or not tensor.n_elements
            or self._model.keeps(name)
            or (self._choices.keep_output and name == "output.weight")
        )

    def _chosen(self, tensor: GGUFTensor) -> tuple[GGMLType, str]:
        kind, choices, plain = kind_of(tensor.name), self._choices, self._recipe.plain
        override = next((type_ for pattern, type_ in self._patterns if pattern.search(tensor.name)), None)
        named = tensor.name == "per_layer_token_embd.weight" and override is not None
        if self._embedding_type is not None and kind is Kind.EMBEDDING and not named:
            return _fits(self._embedding_type, tensor), "embedding type"
        if self._output_type is not None and kind is Kind.OUTPUT:
            return _fits(self._output_type, tensor), "output type"
        if override is not None:
            type_, reason = override, "override"
        elif choices.pure or plain.block_size == 1:
            type_, reason = plain, ""
        else:
            type_ = self._by_recipe(tensor, kind)
            reason = "" if type_ is plain else "recipe"
        fitting = _fitting(type_, tensor.ne[0])
        return (type_, reason) if fitting is type_ else (fitting, f"rows of {tensor.ne[0]} are not whole {type_.name}")

    def _by_recipe(self, tensor: GGUFTensor, kind: Kind) -> GGMLType:
        plain = self._recipe.plain
        if self._recipe.linears_only:
            is_linear = kind not in (Kind.OUTPUT, Kind.EMBEDDING)
            return plain if is_linear else GGMLType.F16 if tensor.type is GGMLType.F32 else tensor.type
        if self._model.wants_q8_0(tensor.name):
            return GGMLType.Q8_0
        if kind is Kind.OUTPUT or (self._is_tied and kind is Kind.EMBEDDING):
            return self._of_output(tensor) if self._output_type is None else self._output_type
        if self._name == "MXFP4_MOE":
            return GGMLType.MXFP4 if self._model.has_experts(tensor, kind) else GGMLType.Q8_0
        if kind is Kind.EMBEDDING:
            return recipes.EMBEDDING.get(self._name, plain)
        type_ = self._recipe.type_of(kind, self._place(tensor, kind))
        if self._recipe.is_tiny:
            return type_
        if kind is Kind.VALUE and self._model.is_70b and type_ in (GGMLType.Q3_K, GGMLType.Q4_K):
            type_ = GGMLType.Q5_K
        return GGMLType.Q8_0 if self._model.experts == 8 and kind in (Kind.VALUE, Kind.KEY) else type_

    def _of_output(self, tensor: GGUFTensor) -> GGMLType:
        plain = self._recipe.plain
        if self._name == "MXFP4_MOE" or self._model.is_falcon or tensor.ne[0] % plain.block_size:
            return GGMLType.Q8_0
        if self._name in recipes.OUTPUT_Q5_K:
            return GGMLType.Q5_K
        return plain if plain is GGMLType.Q8_0 else GGMLType.Q6_K

    def _place(self, tensor: GGUFTensor, kind: Kind) -> Place:
        model, number = self._model, self._seen[kind]
        self._seen[kind] += 1
        if model.experts > 1 and kind in FEED_FORWARD and not self._recipe.is_tiny:
            number = _layer_of(tensor, model.layers)  # experts are several tensors a layer
        layers = self._n_values if kind is Kind.VALUE else model.layers
        return Place(
            number, layers, model.heads_per_kv, model.experts, self._choices.has_importance, model.is_falcon
        )  # fmt: skip


def _layer_of(tensor: GGUFTensor, layers: int) -> int:
    number = by_layer(tensor.name)[0]
    if not 0 <= number < layers:
        raise ModelFileError(f"of none of the {layers} layers of its model", path=tensor.path, field=tensor.name)
    return number


def _fits(type_: GGMLType, tensor: GGUFTensor) -> GGMLType:
    if tensor.ne[0] % type_.block_size:
        raise InvalidRequest(
            f"{tensor.name!r} has rows of {tensor.ne[0]}, which are not whole blocks of {type_.name}; "
            f"{_fitting(type_, tensor.ne[0]).name} fits"
        )
    return type_


def _fitting(type_: GGMLType, cols: int) -> GGMLType:
    if cols % type_.block_size == 0:
        return type_
    other = recipes.FALLBACK.get(type_, type_)
    return other if cols % other.block_size == 0 else GGMLType.F16


def _compiled(overrides: Sequence[tuple[str, GGMLType | str]]) -> Iterator[tuple[re.Pattern[str], GGMLType]]:
    for override in overrides:
        try:
            pattern, type_ = override
        except (TypeError, ValueError):
            raise InvalidRequest(f"overrides: {override!r} is no pair of a regular expression and a type") from None
        try:
            yield re.compile(pattern), as_type(type_)
        except (re.error, TypeError) as error:
            raise InvalidRequest(f"{pattern!r} is not a regular expression: {error}") from None
