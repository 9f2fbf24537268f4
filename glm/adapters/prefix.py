"""Prefixes: the official P-Tuning v2 encoder and PEFT's prefix tuning, as keys and values.

Both are a table (tokens, layers x 2 x heads x head dim): key and value of layer 0, of layer 1...
The official one may be an embedding and an MLP instead (prefix_projection), evaluated once here.
"""

from __future__ import annotations

from typing import Any

import torch

from glm.adapters.rotation import rotated
from glm.adapters.sizes import Sizes
from glm.adapters.tensors import PREFIX_SIGN
from glm.adapters.values import Prefix
from glm.errors import CheckpointError

OFFICIAL_KEY = "transformer.prefix_encoder.embedding.weight"
PEFT_KEY = "prompt_embeddings"
_PROJECTION = ("trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias")


def official(tensors: dict[str, torch.Tensor], sizes: Sizes) -> Prefix:
    """Of a prefix encoder's tensors. Raises CheckpointError for sizes that do not fit."""
    found = {name.partition(PREFIX_SIGN)[2]: tensor for name, tensor in tensors.items()}
    odd = sorted(set(found) - {"embedding.weight", *_PROJECTION})
    missing = {"embedding.weight"} - set(found)
    if any(name in found for name in _PROJECTION):
        missing |= set(_PROJECTION) - set(found)
    if odd or missing:
        fault = f"does not know {odd[0]}" if odd else f"lacks {min(missing)}"
        raise CheckpointError(f"its prefix encoder {fault}")
    table = found["embedding.weight"]
    if "trans.0.weight" in found:
        table = _projected(table, [found[name] for name in _PROJECTION])
    return split(table, sizes)


def peft(tensors: dict[str, torch.Tensor], config: Any, settings: dict[str, Any]) -> Prefix:
    """Of a PEFT prefix-tuning adapter: its keys are turned back to where tokens start at 0."""
    table = tensors.get(PEFT_KEY)
    if table is None or len(tensors) > 1:
        raise CheckpointError(f"it should hold {PEFT_KEY} and nothing else")
    sizes, layers = Sizes.of(config), settings.get("num_layers")
    if layers not in (None, sizes.layers):
        raise CheckpointError(f"it was made for {layers} layers, this model has {sizes.layers}")
    turned = split(table, sizes)
    return Prefix(rotated(turned.keys, config, -turned.tokens), turned.values)


def split(table: torch.Tensor, sizes: Sizes) -> Prefix:
    """(tokens, width) -> keys and values of (layers, heads, tokens, head dim)."""
    if table.dim() != 2 or table.shape[1] != sizes.prefix_width or not table.shape[0]:
        raise CheckpointError(
            f"a prefix of {' x '.join(map(str, table.shape))} numbers; a token of this "
            f"model takes {sizes.prefix_width} (2 x {sizes.layers} layers x {sizes.groups} heads "
            f"x {sizes.head_dim}): open it on the model it was made for"
        )
    shaped = table.view(-1, sizes.layers, 2, sizes.groups, sizes.head_dim)
    keys, values = shaped.permute(2, 1, 3, 0, 4).contiguous()
    return Prefix(keys, values)


def joined(prefix: Prefix) -> torch.Tensor:
    """The table of a prefix, (tokens, layers x 2 x heads x head dim)."""
    both = torch.stack((prefix.keys, prefix.values))  # (2, L, G, P, D)
    return both.permute(3, 1, 0, 2, 4).flatten(1).contiguous()


def _projected(table: torch.Tensor, layers: list[torch.Tensor]) -> torch.Tensor:
    first, first_bias, second, second_bias = (tensor.float() for tensor in layers)
    try:
        hidden = torch.tanh(torch.nn.functional.linear(table.float(), first, first_bias))
        return torch.nn.functional.linear(hidden, second, second_bias)
    except RuntimeError as error:
        raise CheckpointError("its projection does not fit its embedding") from error
