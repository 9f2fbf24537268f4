"""Only the last layers learn. Saved as a whole model, as after `full`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.methods import full
from glm.errors import BadRequest

if TYPE_CHECKING:
    from finetune.config import TrainConfig


def apply(model: Any, cfg: TrainConfig) -> Any:
    """The model, its last `trainable_layers` layers in fp32 and learning. Raises BadRequest."""
    layers = model.base_model.layers
    count = cfg.trainable_layers
    if count > len(layers):
        raise BadRequest(f"--trainable-layers is {count}; this model has {len(layers)} layers")
    model.requires_grad_(False)
    for layer in layers[-count:]:
        layer.requires_grad_(True)
        if not (cfg.zero or cfg.deepspeed):
            full.fp32(layer.parameters())
    return model
