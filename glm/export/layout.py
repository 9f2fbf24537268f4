"""The original ChatGLM2/3 layout and the native Glm one: names of weights, keys of configs.

One table says which rows of which original weight a native weight is; both directions use it.
The reading direction inside a model is transformers' (glm/models/chatglm.py); this is for
writing, where no model is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glm.errors import CheckpointError
from glm.models.chatglm import translate

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_OUTER = {
    EMBEDDING: "transformer.embedding.word_embeddings.weight",
    "model.norm.weight": "transformer.encoder.final_layernorm.weight",
    HEAD: "transformer.output_layer.weight",
}
_INNER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "self_attn.o_proj.weight": "self_attention.dense.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "mlp.gate_up_proj.weight": "mlp.dense_h_to_4h.weight",
    "mlp.down_proj.weight": "mlp.dense_4h_to_h.weight",
}
_ORIGINAL = {
    "num_hidden_layers": "num_layers",
    "vocab_size": "padded_vocab_size",
    "intermediate_size": "ffn_hidden_size",
    "head_dim": "kv_channels",
    "num_key_value_heads": "multi_query_group_num",
    "rms_norm_eps": "layernorm_epsilon",
    "max_position_embeddings": "seq_length",
    "attention_bias": "add_qkv_bias",
}
_SAME = (
    "hidden_size",
    "num_attention_heads",
    "attention_dropout",
    "tie_word_embeddings",
    "eos_token_id",
    "pad_token_id",
    "use_cache",
)
_CONSTANT = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "fp32_residual_connection": False,
    "hidden_dropout": 0.0,
    "multi_query_attention": True,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
}
# Keys that say how the folder was loaded or packed, not what the model is.
_PASSING = {"auto_map", "quantization_bit", "pre_seq_len", "prefix_projection", "dtype"}


@dataclass(frozen=True, slots=True)
class Rows:
    """Where a native weight stands in the original layout; stop None is the whole tensor."""

    name: str
    start: int = 0
    stop: int | None = None


def native_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a Glm model, from either layout. Raises CheckpointError for others."""
    found = translate(dict(config))
    if "num_layers" not in config and config.get("model_type") != "glm":
        kind = config.get("model_type")
        raise CheckpointError(f"model_type {kind!r} has no original ChatGLM layout")
    return {"attention_bias": False, **found}


def original_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the original layout: the source's own keys, or made from a native one."""
    if "num_layers" in config:
        return {key: value for key, value in config.items() if key not in _PASSING}
    native = native_config(config)
    rope = rope_of(native)
    out = dict(_CONSTANT)
    out |= {key: native[key] for key in _SAME if key in native}
    out |= {theirs: native[ours] for ours, theirs in _ORIGINAL.items() if ours in native}
    out["vocab_size"] = native["vocab_size"]
    if rope["rope_type"] == "linear":
        out |= {"rope_ratio": rope["factor"], "rope_interpolation": True}
    elif rope["rope_theta"] != 10000.0:
        out["rope_ratio"] = rope["rope_theta"] / 10000.0
    if isinstance(out.get("rope_ratio"), float) and out["rope_ratio"].is_integer():
        out["rope_ratio"] = int(out["rope_ratio"])
    return out


def rope_of(native: dict[str, Any]) -> dict[str, Any]:
    """rope_type, rope_theta, factor (and partial_rotary_factor) of a native config of any age."""
    rope = native.get("rope_parameters") or native.get("rope_scaling") or {}
    out = {
        "rope_type": "default",
        "rope_theta": float(native.get("rope_theta", 10000.0)),
        "factor": 1.0,
        "partial_rotary_factor": native.get("partial_rotary_factor", 0.5),
        **rope,
    }
    if out["rope_type"] not in ("default", "linear") or out["partial_rotary_factor"] != 0.5:
        raise CheckpointError(f"a rotation of the kind {out['rope_type']!r} is not the family's")
    return out


def native_names(config: dict[str, Any]) -> Iterator[tuple[str, Rows]]:
    """Every weight of a Glm model in order, with its place in the original layout."""
    yield EMBEDDING, Rows(_OUTER[EMBEDDING])
    for layer in range(config["num_hidden_layers"]):
        here, there = f"model.layers.{layer}.", f"transformer.encoder.layers.{layer}."
        for ours, theirs in _INNER.items():
            yield here + ours, Rows(there + theirs)
        for kind in ("weight", "bias") if config["attention_bias"] else ("weight",):
            at = 0
            for part, rows in qkv_rows(config):
                fused = f"{there}self_attention.query_key_value.{kind}"
                yield f"{here}self_attn.{part}_proj.{kind}", Rows(fused, at, at + rows)
                at += rows
    yield "model.norm.weight", Rows(_OUTER["model.norm.weight"])
    yield HEAD, Rows(_OUTER[HEAD])


def qkv_rows(config: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """How many rows q, k and v have."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return ("q", heads * width), ("k", groups * width), ("v", groups * width)
