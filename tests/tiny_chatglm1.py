"""A random ChatGLM-6B (v1) of a few thousand numbers, and prompts for it."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from glm.models.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM

SIZES = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "inner_hidden_size": 64}
MASK, GMASK, SOP, EOP, PAD = 56, 57, 60, 61, 3
IDS = {"mask_token_id": MASK, "gmask_token_id": GMASK, "bos_token_id": SOP, "eos_token_id": EOP}


def tiny_chatglm1(seed: int = 0, **config) -> ChatGLM1ForCausalLM:
    """In eval mode; weights large enough that every position matters."""
    torch.manual_seed(seed)
    settings = {"model_type": "chatglm", "vocab_size": 64, "pad_token_id": PAD, **SIZES, **IDS}
    model = ChatGLM1ForCausalLM(ChatGLM1Config.from_dict(settings | config))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model.eval()


def prompt(size: int, seed: int = 0, answer: int = 0) -> torch.Tensor:
    """(1, size + 2 + answer) ids: a text, [gMASK] and sop, and a part of an answer."""
    source = torch.Generator().manual_seed(seed)
    text = torch.randint(4, 50, (size + answer,), generator=source).tolist()
    return torch.tensor([[*text[:size], GMASK, SOP, *text[size:]]])


def random_prefix(config: ChatGLM1Config, size: int, seed: int = 9) -> torch.Tensor:
    """(size, 2 * layers * hidden) as a P-Tuning file has it."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(size, 2 * config.num_layers * config.hidden_size, generator=source)


def keys_and_values(prefix: torch.Tensor, config: ChatGLM1Config) -> torch.Tensor:
    """(layers, 2, heads, P, D) of a P-Tuning weight."""
    heads, size = config.num_attention_heads, config.head_dim
    return prefix.view(len(prefix), config.num_layers, 2, heads, size).permute(1, 2, 3, 0, 4)


def cache_of(prefix: torch.Tensor, config: ChatGLM1Config, count: int = 1) -> DynamicCache:
    """A cache that begins with a prefix."""
    cache = DynamicCache()
    for layer, pair in enumerate(keys_and_values(prefix, config)):
        key, value = (part[None].expand(count, -1, -1, -1).clone() for part in pair)
        cache.update(key, value, layer)
    return cache
