"""What quantizing depends on beside the recipe: numbers of the model, and what its architecture asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...formats.errors import ModelFileError
from ...formats.gguf import GGUFFile, GGUFTensor
from .recipes import FEED_FORWARD, Kind

# Tensors that are kept whatever the recipe: small, and much depends on them. Parts of names.
KEPT_NAMES = ("position_embd.weight", "token_types.weight")
KEPT_PARTS = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
ALSO_KEPT = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ),
}  # fmt: skip
ALWAYS_Q8_0 = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}
# Architectures with matrices of three dimensions that are no experts.
HAS_OTHER_CUBES = frozenset({"bailingmoe3"})
SEVENTY_B = {"llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}  # layers


@dataclass(frozen=True)
class Architecture:
    """A model, as far as its file's metadata says what it is."""

    name: str
    layers: int
    heads_per_kv: int  # of the first layer; 0 where it has no attention
    experts: int
    is_70b: bool

    @classmethod
    def of(cls, file: GGUFFile) -> Architecture:
        """ModelFileError for metadata that is not what it has to be."""
        name = file.metadata.optional("general.architecture", str, "")

        def number(key: str, default: int) -> int:
            value = file.metadata.get(f"{name}.{key}", default)
            if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "iu":  # one for each layer
                value = int(value[0])
            if not isinstance(value, int) or isinstance(value, bool):
                raise ModelFileError("not a number", path=file.path, field=f"{name}.{key}", got=value)
            return value

        layers, heads = number("block_count", 0), number("attention.head_count", 0)
        kv = number("attention.head_count_kv", heads)
        is_70b = SEVENTY_B.get(name) == layers and not (name.startswith("llama") and heads == kv)
        if name == "graniteswitch":  # llama.cpp counts the router as a layer
            layers += 1
        elif name == "nanbeige":  # and each pass over the layers
            layers *= number("num_loops", 1)
        return cls(name, layers, heads // kv if kv else 0, number("expert_count", 0), is_70b)

    @property
    def is_falcon(self) -> bool:
        return self.name == "falcon"

    def keeps(self, tensor: str) -> bool:
        """The tensor of this name is kept as it is, whatever the recipe."""
        return (
            not tensor.endswith("weight")
            or tensor in KEPT_NAMES
            or any(part in tensor for part in (*KEPT_PARTS, *ALSO_KEPT.get(self.name, ())))
        )

    def has_experts(self, tensor: GGUFTensor, kind: Kind) -> bool:
        """The tensor is the matrices of several experts."""
        is_cube = len(tensor.ne) > 2 and tensor.ne[2] > 1
        return is_cube and (self.name not in HAS_OTHER_CUBES or kind in FEED_FORWARD)

    def wants_q8_0(self, tensor: str) -> bool:
        """The tensor of this name becomes Q8_0 whatever the recipe, unless somebody says otherwise."""
        return any(part in tensor for part in ALWAYS_Q8_0.get(self.name, ()))
