"""Merge an adapter's low-rank parts into a model's weights, in place, layer by layer.

The model answers as with the adapter on, within rounding. There is no way back but to load it
again. A prefix cannot be merged: it is keys and values in front of the prompt, not a weight.
"""

from __future__ import annotations

import torch
from torch import nn

from glm.adapters.values import Adapter, LoraPart
from glm.errors import CheckpointError


def merge(model: nn.Module, adapter: Adapter) -> int:
    """Change the weights; returns how many layers. Nothing is changed where one is refused.

    Raises CheckpointError for prefixes, quantised layers and layers the model does not have.
    """
    name = adapter.info.name
    if adapter.prefix is not None:
        raise CheckpointError(
            f"{name} has a prefix of {adapter.prefix.tokens} tokens: keys and values in front of "
            "the prompt, which no weight can hold; keep it as an adapter"
        )
    found = {path: _layer(model, path, part, name) for path, part in adapter.lora.items()}
    with torch.no_grad():
        for path, part in adapter.lora.items():
            weight = found[path].weight
            merged = merged_weight(weight, part).to(weight.dtype)
            if not bool(torch.isfinite(merged).all()):
                raise CheckpointError(
                    f"merging {name} makes {path} overflow in {weight.dtype}; "
                    "load the model again in float32 or bfloat16"
                )
            weight.copy_(merged)
    return len(found)


def merged_weight(weight: torch.Tensor, part: LoraPart) -> torch.Tensor:
    """weight + update in fp32, (out, in); a DoRA's rows are scaled to its magnitudes."""
    a, b = (matrix.to(weight.device, torch.float32) for matrix in (part.a, part.b))
    merged = weight.detach().float() + part.scale * (b @ a)
    if part.magnitude is not None:
        magnitude = part.magnitude.to(weight.device, torch.float32)
        merged *= (magnitude / merged.norm(dim=1))[:, None]
    return merged


def _layer(model: nn.Module, path: str, part: LoraPart, name: str) -> nn.Linear:
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        raise CheckpointError(f"{name} changes {path}, which this model does not have") from None
    if type(layer) is not nn.Linear or not layer.weight.is_floating_point():
        raise CheckpointError(
            f"{name} cannot be merged into {path}, a {type(layer).__name__}: "
            "load the model again in 16 bit, not quantised"
        )
    if tuple(layer.weight.shape) != (part.b.shape[0], part.a.shape[1]):
        raise CheckpointError(
            f"{name} was made for {path} of {part.b.shape[0]} x {part.a.shape[1]}, "
            f"this model has {layer.out_features} x {layer.in_features}"
        )
    if _tied(model, layer):
        raise CheckpointError(
            f"{path} shares its weight with the embeddings, which {name} does not change; "
            "keep it as an adapter"
        )
    return layer


def _tied(model: nn.Module, layer: nn.Linear) -> bool:
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    return embeddings is not None and embeddings.weight is layer.weight
