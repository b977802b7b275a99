"""The families that can be converted: one table, by the names in config.json."""

from __future__ import annotations

from difflib import get_close_matches

from ...formats.errors import UnsupportedError
from ..checkpoint import Checkpoint
from ..config import Config
from .bert import BERT, ROBERTA
from .family import Family
from .gemma import GEMMA, GEMMA2, GEMMA3
from .gpt2 import GPT2
from .gptneox import GPTNEOX
from .llama import LLAMA
from .olmo2 import OLMO2
from .phi3 import PHI3
from .qwen import QWEN2, QWEN2MOE, QWEN3, QWEN3MOE
from .starcoder2 import STARCODER2

# "architectures" of config.json -> family. Architectures that equal another one are rows, not files.
FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "MixtralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": QWEN2,
    "Qwen2MoeForCausalLM": QWEN2MOE,
    "Qwen3ForCausalLM": QWEN3,
    "Qwen3MoeForCausalLM": QWEN3MOE,
    "GemmaForCausalLM": GEMMA,
    "Gemma2ForCausalLM": GEMMA2,
    "Gemma3ForCausalLM": GEMMA3,
    "Gemma3ForConditionalGeneration": GEMMA3,
    "Phi3ForCausalLM": PHI3,
    "Olmo2ForCausalLM": OLMO2,
    "Starcoder2ForCausalLM": STARCODER2,
    "GPT2LMHeadModel": GPT2,
    "GPTNeoXForCausalLM": GPTNEOX,
    "BertModel": BERT,
    "BertForMaskedLM": BERT,
    "RobertaModel": ROBERTA,
    "RobertaForMaskedLM": ROBERTA,
}


def _is_of_type(architecture: str, model_type: str) -> bool:
    """Whether transformers has that architecture under that type."""
    return architecture.lower().startswith(model_type.removesuffix("_text").replace("_", ""))


def _check_type(config: Config, architecture: str, family: Family, *, runs_code: bool) -> None:
    """Refuse a type of another family, and of one that transformers does not have code of its own for.

    Types of one family are told apart by no one: there are models of Mistral's shape that are called Llama's.
    """
    model_type = config.text("model_type", "")
    if _is_of_type(architecture, model_type):
        return
    if runs_code:
        raise UnsupportedError(
            f"{config.path}: {architecture!r} of the type {model_type!r} needs code of its own (auto_map), which is "
            "never run"
        )
    alike = [name for name, other in FAMILIES.items() if other is family]
    if not any(_is_of_type(name, model_type) for name in alike):
        raise config.refuse("model_type", model_type, f"what {architecture}, its architecture, is; one is wrong")


def family_of(checkpoint: Checkpoint) -> tuple[Family, Config]:
    """The family of a checkpoint and the part of its config.json that describes the language model.

    UnsupportedError names the architecture and the nearest ones that can be converted.
    """
    path = checkpoint.path / "config.json"
    config = Config(checkpoint.config, path)
    given = config.fields.get("architectures")
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], str):
        raise config.refuse("architectures", given, "a list of one name")
    family = FAMILIES.get(given[0])
    if family is None:
        near = get_close_matches(given[0], FAMILIES, n=1, cutoff=0.0)[0]
        code = "; it needs code of its own, which is never run" if checkpoint.runs_code else ""
        raise UnsupportedError(
            f"{path}: models of the architecture {given[0]!r} cannot be converted yet{code}. The nearest that can: "
            f"{near}. All: {', '.join(FAMILIES)}"
        )
    _check_type(config, given[0], family, runs_code=checkpoint.runs_code)
    if "text_config" not in config:
        return family, config
    inner = config.inner("text_config")
    return family, Config({**family.unsaid, **inner.fields}, path, "text_config.")
