"""QLoRA: a LoRA on a base in 4 bits (nf4 with double quantisation, by bitsandbytes).

Source: Dettmers et al. 2023, arXiv 2305.14314. How the base is quantised:
glm/quantisation/quantise.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.methods import lora

if TYPE_CHECKING:
    from finetune.config import TrainConfig


def bits(cfg: TrainConfig) -> int | None:
    return cfg.quantization_bit or 4


def apply(model: Any, cfg: TrainConfig) -> Any:
    return lora.apply(model, cfg)
