"""BERT and RoBERTa, as encoders of texts: heads that predict or classify are left out."""

from __future__ import annotations

from ...formats.errors import UnsupportedError
from ...runtime.models.hparams import POOLINGS
from ..checkpoint import Checkpoint, CheckpointError
from ..config import Config
from ..rows import Rows, part
from .family import Family, Keys

_LAYERS = "encoder.layer.{i}."
_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    f"{_LAYERS}attention.self.query": "blk.{i}.attn_q",
    f"{_LAYERS}attention.self.key": "blk.{i}.attn_k",
    f"{_LAYERS}attention.self.value": "blk.{i}.attn_v",
    f"{_LAYERS}attention.output.dense": "blk.{i}.attn_output",
    f"{_LAYERS}attention.output.LayerNorm": "blk.{i}.attn_output_norm",
    f"{_LAYERS}intermediate.dense": "blk.{i}.ffn_up",
    f"{_LAYERS}output.dense": "blk.{i}.ffn_down",
    f"{_LAYERS}output.LayerNorm": "blk.{i}.layer_output_norm",
}
_IGNORED = (r"^(bert\.|roberta\.)?(pooler|cls|lm_head)\.", r"\.position_ids$", r"\.token_type_ids$")
_MODULES = (".Transformer", ".Pooling", ".Normalize", ".Dropout")
# Names in the configuration of sentence-transformers, old and new.
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_mean": "mean", "pooling_mode_cls_token": "cls",
    "pooling_mode_cls": "cls", "pooling_mode_lasttoken": "last",
}  # fmt: skip


def _keys(c: Config) -> Keys:
    c.expect("hidden_act", "gelu")
    c.expect("position_embedding_type", "absolute")
    c.expect("is_decoder", False)
    c.expect("add_cross_attention", False)
    return {
        "block_count": c.count("num_hidden_layers", high=1 << 12),
        "context_length": c.count("max_position_embeddings", high=1 << 30),
        "embedding_length": c.count("hidden_size"),
        "feed_forward_length": c.count("intermediate_size"),
        "attention.head_count": c.count("num_attention_heads"),
        "attention.layer_norm_epsilon": c.number("layer_norm_eps", low=0.0, high=1.0),
        "attention.causal": False,
    }


def _roberta_keys(c: Config) -> Keys:
    keys = _keys(c)
    return keys | {"context_length": keys["context_length"] - _padding(c)}


def _padding(c: Config) -> int:
    """Rows of positions that no text uses: RoBERTa counts from behind the id of its padding token."""
    most = c.count("max_position_embeddings", low=2, high=1 << 30)
    return c.count("pad_token_id", default=1, low=0, high=most - 2) + 1


def _used_positions(rows: Rows, c: Config) -> Rows:
    return part(rows, _padding(c), rows.n_rows)


def _old_names(stem: str, target: str) -> dict[str, str]:
    """Norms as the first checkpoints, which came from TensorFlow, have them."""
    if not stem.endswith("LayerNorm"):
        return {}
    return {f"{stem}.gamma": f"{target}.weight", f"{stem}.beta": f"{target}.bias"}


def _names(prefix: str) -> dict[str, str]:
    """With the prefix that models with a head have, and without."""
    plain = dict(_NAMES)
    for stem, target in _NAMES.items():
        plain |= _old_names(stem, target)
    return plain | {f"{prefix}{stem}": target for stem, target in plain.items()}


def _beside(checkpoint: Checkpoint, c: Config) -> Keys:
    keys: Keys = {"tokenizer.ggml.token_type_count": c.count("type_vocab_size", default=1)}
    pooling = pooling_of(checkpoint)
    return keys if pooling is None else keys | {"bert.pooling_type": POOLINGS.index(pooling)}


def pooling_of(checkpoint: Checkpoint) -> str | None:
    """How one vector is made of a text, as folders of sentence-transformers say it; None where they do not.

    Raises CheckpointError for files that are not what they should be, UnsupportedError for other ways.
    """
    modules = checkpoint.json("modules.json")
    if modules is None:
        return None
    at = checkpoint.path / "modules.json"
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError("not a list of objects", path=at)
    for kind in (str(module.get("type")) for module in modules):
        if not kind.endswith(_MODULES):
            raise UnsupportedError(f"{at}: what {kind!r} does to vectors cannot be converted; known are {_MODULES}")
    folder = next((m.get("path") for m in modules if str(m.get("type")).endswith(".Pooling")), None)
    if folder is None:
        return None
    if not isinstance(folder, str):
        raise CheckpointError("not a name", path=at, field="path", got=folder)
    name = f"{folder}/config.json"
    said = checkpoint.require_json(name)
    modes = {mode for mode in said if mode.startswith("pooling_mode_") and said[mode] is True}
    modes |= {f"pooling_mode_{said['pooling_mode']}"} if "pooling_mode" in said else set()
    found = {_POOLINGS[mode] for mode in modes if mode in _POOLINGS}
    if len(found) != 1 or not modes <= _POOLINGS.keys():
        given = ", ".join(sorted(modes)) or "nothing"
        raise UnsupportedError(f"{checkpoint.path / name}: pooling by {given}; one of {', '.join(_POOLINGS)} is known")
    return found.pop()


def _biases(c: Config) -> list[str]:
    return [target for target in _NAMES.values() if target.startswith("blk.") and not target.endswith("norm")]


BERT = Family("bert", keys=_keys, names=_names("bert."), biases=_biases, beside=_beside, ignored=_IGNORED)
ROBERTA = Family(
    "bert",
    keys=_roberta_keys,
    names=_names("roberta."),
    changes={"position_embd": _used_positions},
    biases=_biases,
    beside=_beside,
    ignored=_IGNORED,
)
