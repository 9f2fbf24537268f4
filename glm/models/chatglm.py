"""ChatGLM2/3 (and original GLM-4-9B-chat) weights on the native Glm classes of transformers.

Checkpoints in the original hub layout load lazily and exactly, without remote code: the config
is translated, the weight names are mapped, the fused query_key_value is split while loading.
Logits equal the official code's: 0.0 in fp32, 0.0 in bf16 with the official RMSNorm rounding.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GlmConfig, GlmForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Split, WeightConverter, WeightRenaming
from transformers.models.glm.modeling_glm import GlmRMSNorm

from glm.errors import CheckpointError

_RENAME = {
    "num_layers": "num_hidden_layers",
    "padded_vocab_size": "vocab_size",
    "ffn_hidden_size": "intermediate_size",
    "kv_channels": "head_dim",
    "multi_query_group_num": "num_key_value_heads",
    "layernorm_epsilon": "rms_norm_eps",
    "seq_length": "max_position_embeddings",
    "add_qkv_bias": "attention_bias",
}
# What GlmForCausalLM hard-codes: any other value is another architecture.
_REQUIRED = {
    "rmsnorm": True,
    "apply_residual_connection_post_layernorm": False,
    "post_layer_norm": True,
    "add_bias_linear": False,
    "fp32_residual_connection": False,
    "multi_query_attention": True,
    "original_rope": True,
}
_DROPPED = {
    "auto_map",
    "apply_query_key_layer_scaling",
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "classifier_dropout",
    "hidden_dropout",
    "interleaved_qkv",
    "pre_seq_len",
    "prefix_projection",
    "quantization_bit",
    "rope_ratio",
    "rope_interpolation",
}


def translate(original: dict[str, Any]) -> dict[str, Any]:
    """The native config of an original one. Raises CheckpointError for what is not the family's.

    rope_ratio scales the base (ChatGLM3, GLM-4); with `rope_interpolation` (ChatGLM2-6B-32k,
    set by glm/checkpoint/recognise.py, for config.json does not say it) it divides the positions.
    """
    if "num_layers" not in original:  # native already
        return original
    for key, wanted in _REQUIRED.items():
        if original.get(key, wanted) != wanted:
            raise CheckpointError(f"config.json: {key}={original[key]!r} is not supported")
    if original.get("quantization_bit"):
        bits = original["quantization_bit"]
        raise CheckpointError(f"config.json: a packed int{bits} checkpoint; open the fp16 one")
    skip = _DROPPED | set(_REQUIRED)
    config = {_RENAME.get(k, k): v for k, v in original.items() if k not in skip}
    ratio = original.get("rope_ratio", 1) or 1
    linear = bool(original.get("rope_interpolation")) and ratio != 1
    config["rope_parameters"] = {
        "rope_type": "linear" if linear else "default",
        "rope_theta": 10000.0 if linear else 10000.0 * ratio,
        "partial_rotary_factor": 0.5,
        **({"factor": float(ratio)} if linear else {}),
    }
    config["hidden_act"] = "silu"
    config.setdefault("pad_token_id", 0)
    config.setdefault("eos_token_id", 2)
    config["architectures"] = ["ChatGLMForCausalLM"]
    return config


class ChatGLMConfig(GlmConfig):
    """GlmConfig that reads the original keys too."""

    model_type = "chatglm"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> ChatGLMConfig:
        return super().from_dict(translate(config_dict), **kwargs)


class ChatGLMRMSNorm(GlmRMSNorm):
    """The official rounding order: scaled in fp32, then cast."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if hidden_states.dtype == torch.float32:
            return super().forward(hidden_states)
        x = hidden_states.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.weight * x).to(hidden_states.dtype)


class ChatGLMForCausalLM(GlmForCausalLM):
    """GlmForCausalLM under the hub's model_type, with the official RMSNorm."""

    config_class = ChatGLMConfig
    config: ChatGLMConfig
    _keys_to_ignore_on_load_unexpected: ClassVar = [
        r"rotary_pos_emb\.inv_freq",
        r"prefix_encoder\.",
    ]

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if type(module) is GlmRMSNorm:
                module.__class__ = ChatGLMRMSNorm


def weight_mapping() -> list[WeightRenaming | WeightConverter]:
    """Original weight names to native ones; query_key_value splits into q, k, v."""
    attention = "self_attn"
    return [
        WeightRenaming(r"^transformer\.embedding\.word_embeddings\.", "model.embed_tokens."),
        WeightRenaming(r"^transformer\.encoder\.final_layernorm\.", "model.norm."),
        WeightRenaming(r"^transformer\.output_layer\.", "lm_head."),
        WeightRenaming(r"^transformer\.encoder\.layers\.", "model.layers."),
        WeightRenaming(r"\.self_attention\.dense\.", f".{attention}.o_proj."),
        WeightRenaming(r"\.mlp\.dense_h_to_4h\.", ".mlp.gate_up_proj."),
        WeightRenaming(r"\.mlp\.dense_4h_to_h\.", ".mlp.down_proj."),
        *[
            WeightConverter(
                f"self_attention.query_key_value.{kind}",
                [f"{attention}.{part}_proj.{kind}" for part in "qkv"],
                [Split(dim=0)],
            )
            for kind in ("weight", "bias")
        ],
    ]


AutoConfig.register("chatglm", ChatGLMConfig)
AutoModelForCausalLM.register(ChatGLMConfig, ChatGLMForCausalLM)
register_checkpoint_conversion_mapping("chatglm", weight_mapping())
