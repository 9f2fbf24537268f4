"""ChatGLM-6B (v1) as a native model: two positions a column, DeepNorm, a bidirectional context.

A hub folder opens as it is: its config.json is translated, its weight names need no mapping.
A P-Tuning prefix is put in front of the cache as it is in its file, or joins in a registered
attention function. fp16 rounds as the official code: the angles, and the scores of `eager`; in
bf16, in which the official code loses positions beyond 256, the angles are fp32. What a column
sees: chatglm1_positions.py. Source: THUDM/chatglm-6b, modeling_chatglm.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from glm.errors import CheckpointError
from glm.models import chatglm1_positions

ALPHA = 56**0.5  # DeepNorm: the official code has it for 28 layers, whatever num_layers says
_DROPPED = {
    "architectures",
    "auto_map",
    "model_type",
    "position_encoding_2d",
    "pre_seq_len",
    "prefix_projection",
    "quantization_bit",
    "quantization_embeddings",
}


def translate(original: dict[str, Any]) -> dict[str, Any]:
    """The native config of a hub one. Raises CheckpointError for positions of one dimension.

    The first checkpoints do not say which ids [MASK] and [gMASK] have: four and three before sop.
    """
    if original.get("position_encoding_2d") is False:
        raise CheckpointError("config.json: position_encoding_2d=False is not supported")
    config = {key: value for key, value in original.items() if key not in _DROPPED}
    sop = config.get("bos_token_id", ChatGLM1Config.bos_token_id)
    config.setdefault("mask_token_id", sop - 4)
    config.setdefault("gmask_token_id", sop - 3)
    return config


class ChatGLM1Config(PreTrainedConfig):
    """The keys of the hub's config.json. bos is sop, which starts an answer; eos is eop."""

    model_type = "chatglm1"
    attribute_map: ClassVar = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }
    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 2048
    initializer_range: float = 0.02
    bos_token_id: int | None = 130004
    eos_token_id: int | list[int] | None = 130005
    pad_token_id: int | None = 3
    mask_token_id: int = 130000
    gmask_token_id: int = 130001
    use_cache: bool = True
    tie_word_embeddings: bool = False

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> ChatGLM1Config:
        return super().from_dict(translate(config_dict), **kwargs)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


def rope(positions: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of (B, 2, T) positions (B, 1, T, D): half of a head for each of the two."""
    size = head_dim // 2
    steps = torch.arange(0, size, 2, device=positions.device).float() / size
    kind = torch.float16 if dtype == torch.float16 else torch.float32
    frequencies = (1.0 / 10000**steps).half().to(kind)  # the official ones are fp16
    angles = positions[..., None].to(kind) * frequencies  # (B, 2, T, D / 4)
    angles = torch.cat((angles, angles), -1)
    angles = torch.cat((angles[:, 0], angles[:, 1]), -1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Both halves of each head, turned by their own angles."""
    a, b, c, d = x.chunk(4, -1)
    return x * cos + torch.cat((-b, a, -d, c), -1) * sin


def eager_attention(
    module: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor]:
    """Softmax in fp32. Scores over the number of the layer stay within what fp16 holds."""
    layer = module.layer_idx + 1
    scores = (query * (module.scaling / layer)) @ key.transpose(2, 3)
    scores = scores.float() * layer
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class Attention(nn.Module):
    """Every head has its own keys; query, key and value lie side by side, head by head."""

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: ChatGLM1Config, layer: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any
    ) -> Tensor:
        count, length, _ = x.shape
        mixed = self.query_key_value(x).view(count, length, -1, 3 * self.head_dim)
        query, key, value = mixed.transpose(1, 2).chunk(3, -1)  # (B, H, T, D)
        query, key = rotate(query, *angles), rotate(key, *angles)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        kind = self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(kind, eager_attention)
        seen, _ = attend(
            self, query, key, value, mask, dropout=0.0, scaling=self.scaling, is_causal=False
        )
        out: Tensor = self.dense(seen.reshape(count, length, -1))
        return out


class MLP(nn.Module):
    """Four times as wide inside."""

    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.gelu(self.dense_h_to_4h(x), approximate="tanh")
        out: Tensor = self.dense_4h_to_h(inner)
        return out


class ChatGLM1Layer(GradientCheckpointingLayer):
    """DeepNorm adds to the normalised input, not to the input."""

    def __init__(self, config: ChatGLM1Config, layer: int) -> None:
        super().__init__()
        size, epsilon = config.hidden_size, config.layernorm_epsilon
        self.input_layernorm = nn.LayerNorm(size, epsilon)
        self.attention = Attention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(size, epsilon)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past_key_values: Any = None,
    ) -> Tensor:
        x = self.input_layernorm(x)
        x = x * ALPHA + self.attention(x, angles, mask, past_key_values)
        x = self.post_attention_layernorm(x)
        out: Tensor = x * ALPHA + self.mlp(x)
        return out


class ChatGLM1PreTrainedModel(PreTrainedModel):
    """What the library asks of every model."""

    config_class = ChatGLM1Config
    config: ChatGLM1Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _input_embed_layer = "word_embeddings"
    _no_split_modules: ClassVar = ["ChatGLM1Layer"]
    _skip_keys_device_placement: ClassVar = ["past_key_values"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"rotary_emb\.inv_freq", r"prefix_encoder\."]


class ChatGLM1Model(ChatGLM1PreTrainedModel):
    """Ids to hidden states."""

    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ChatGLM1Layer(config, i) for i in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, config.layernorm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Shapes as in ChatGLM1ForCausalLM.forward."""
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        positions, mask = self._where(input_ids, attention_mask, position_ids, past_key_values)
        x = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if mask is not None and mask.is_floating_point():
            mask = mask.to(x.dtype)
        angles = rope(positions.to(x.device), self.config.head_dim, x.dtype)
        for layer in self.layers:
            x = layer(x, angles, mask, past_key_values=past_key_values)
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layernorm(x), past_key_values=past_key_values
        )

    def _where(
        self, ids: Tensor | None, mask: Tensor | None, positions: Tensor | None, cache: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Positions (B, 2, T) and a 4-D mask: as they are given, else from the ids."""
        if positions is not None and positions.dim() != 3:
            positions = None  # generate counts in one dimension
        if mask is not None and mask.dim() == 4:
            if positions is None:
                raise ValueError("a 4-D attention_mask needs position_ids of shape (batch, 2, ids)")
            return positions, mask
        if positions is not None:
            if cache is not None and cache.get_seq_length():
                if mask is None and positions.shape[2] == 1:
                    return positions, None  # one column sees all before it
                raise ValueError("position_ids over a cache need a 4-D attention_mask")
            return positions, chatglm1_positions.visible_by_positions(positions, mask)
        if ids is None:
            raise ValueError("inputs_embeds need position_ids of shape (batch, 2, ids)")
        return chatglm1_positions.batch(ids, mask, cache, self.config)


class ChatGLM1ForCausalLM(ChatGLM1PreTrainedModel, GenerationMixin):
    """Ids to logits; generate, PEFT and Trainer work on it."""

    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__(config)
        self.transformer = ChatGLM1Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, and the loss where `labels` (B, T) are given.

        `position_ids` (B, 2, T) with a 4-D mask, boolean (True is seen) or additive, are used as
        they are. Without a mask one id over a cache sees all of it, and rows that are packed into
        one stay apart. Of any other shape they are left aside: positions come from the columns of
        [gMASK] and sop, padding from a 2-D mask, and what a new cache holds is a prefix that
        every column sees.
        """
        out = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
        )
        hidden = out.last_hidden_state
        if isinstance(logits_to_keep, int):
            hidden = hidden[:, -logits_to_keep:]  # 0 keeps all
        else:
            hidden = hidden[:, logits_to_keep]
        logits, loss = self.lm_head(hidden), None
        if labels is not None:
            size = self.config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **options)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=out.past_key_values)

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **_: Any) -> Tensor | None:
        """Over a static cache too the mask stays one of padding; the model makes its own of it."""
        return attention_mask


AutoConfig.register(ChatGLM1Config.model_type, ChatGLM1Config)
AutoModelForCausalLM.register(ChatGLM1Config, ChatGLM1ForCausalLM)
