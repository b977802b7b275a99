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
    """Whether transformers has that architecture under that type, so that no code out of the folder is needed."""
    return architecture.lower().startswith(model_type.removesuffix("_text").replace("_", ""))


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
    if family is not None and checkpoint.runs_code and not _is_of_type(given[0], config.text("model_type", "")):
        raise UnsupportedError(
            f"{path}: {given[0]!r} of the type {config.fields['model_type']!r} needs code of its own (auto_map), which "
            "is never run"
        )
    if family is None:
        near = get_close_matches(given[0], FAMILIES, n=1, cutoff=0.0)[0]
        code = "; it needs code of its own, which is never run" if checkpoint.runs_code else ""
        raise UnsupportedError(
            f"{path}: models of the architecture {given[0]!r} cannot be converted yet{code}. The nearest that can: "
            f"{near}. All: {', '.join(FAMILIES)}"
        )
    if "text_config" not in config:
        return family, config
    inner = config.inner("text_config")
    return family, Config({**family.unsaid, **inner.fields}, path, "text_config.")
