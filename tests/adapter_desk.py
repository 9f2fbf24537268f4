"""Adapters written in the layouts people have, and two ways to apply them that share no code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DynamicCache

from glm.adapters.values import Adapter, Prefix

LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "bias": "none", "lora_dropout": 0.1}
LAYERS = "base_model.model.transformer.encoder.layers"


def random(*shape: int, seed: int = 0, size: float = 0.2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size


def fused_lora(config, rank: int = 4) -> dict[str, torch.Tensor]:
    """A LoRA on query_key_value and dense_4h_to_h under the hub's names, as PEFT saves it."""
    rows = sum((config.num_attention_heads, 2 * config.num_key_value_heads)) * config.head_dim
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for place, out, into in (
            ("self_attention.query_key_value", rows, config.hidden_size),
            ("mlp.dense_4h_to_h", config.hidden_size, config.intermediate_size),
        ):
            key = f"{LAYERS}.{layer}.{place}"
            tensors[f"{key}.lora_A.weight"] = random(rank, into, seed=layer + rank)
            tensors[f"{key}.lora_B.weight"] = random(out, rank, seed=layer + out)
    return tensors


def renamed(tensors: dict[str, torch.Tensor], before: str, middle: str) -> dict:
    """Keys as torch.compile and `named_parameters` of a PEFT model spell them."""
    return {before + key.replace(".weight", f"{middle}.weight"): t for key, t in tensors.items()}


def write_peft(folder: Path, tensors: dict, settings: dict, pickled: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    if pickled:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@contextmanager
def hooked(model: torch.nn.Module, adapter: Adapter) -> Iterator[None]:
    """The adapter's low-rank parts added beside the untouched layers."""
    handles = []
    for name, part in adapter.lora.items():

        def add(layer, inputs, output, part=part):
            bias = 0 if layer.bias is None else layer.bias
            plain = output - bias + part.scale * (inputs[0] @ part.a.T) @ part.b.T
            if part.magnitude is not None:
                update = part.scale * torch.einsum("or,ri->oi", part.b, part.a)
                plain = plain * (part.magnitude / torch.linalg.norm(layer.weight + update, dim=1))
            return plain + bias

        handles.append(model.get_submodule(name).register_forward_hook(add))
    yield
    for handle in handles:
        handle.remove()


def cache_of(prefix: Prefix | None, rows: int) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(len(prefix.keys) if prefix else 0):
        keys, values = prefix.keys[layer], prefix.values[layer]
        cache.update(keys.repeat(rows, 1, 1, 1), values.repeat(rows, 1, 1, 1), layer)
    return cache


def answer(model, ids, mask, new: int, prefix: Prefix | None = None):
    """Logits of a (left-padded) batch, and greedy ids after it: positions start at the text."""
    before = torch.ones(len(ids), prefix.tokens if prefix else 0, dtype=torch.long)
    cache, count = cache_of(prefix, len(ids)), 0
    positions, fed, out, first = (mask.cumsum(-1) - 1).clamp(min=0), ids, [ids], None
    while True:
        with torch.inference_mode():
            logits = model(
                input_ids=fed,
                attention_mask=torch.cat((before, mask), 1),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).logits
        first = logits if first is None else first
        if count == new:
            return first, torch.cat(out, 1)
        fed, count = logits[:, -1:].argmax(-1), count + 1
        out.append(fed)
        mask = torch.cat((mask, torch.ones_like(fed)), 1)
        positions = positions[:, -1:] + 1
