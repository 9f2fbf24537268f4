"""What a training method is: one signature for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm.adapters.card import Card
from glm.checkpoint.recognise import ModelInfo

if TYPE_CHECKING:
    from finetune.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Result:
    """What is saved beside the weights: the card of the run, and the model it learnt on.

    `weights` are the tensors of the whole model by name where they were gathered from several
    processes; None: they are read from the model.
    """

    card: Card
    base: ModelInfo
    weights: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """How a model learns.

    `bits(cfg)` is in how many the base is opened, None for unquantised. `apply(model, cfg)` makes
    a loaded model learn and returns what is trained. `save(model, folder, result)` writes what
    was learnt, for users; `load(model, folder)` puts it back into an applied model. `whole`: what
    is saved is a model, not an adapter; to go on, it is opened in place of the base.
    """

    bits: Callable[[TrainConfig], int | None]
    apply: Callable[[Any, TrainConfig], Any]
    save: Callable[[Any, Path, Result], None]
    load: Callable[[Any, Path], None]
    whole: bool = False


def asked_bits(cfg: TrainConfig) -> int | None:
    """What `quantization_bit` says."""
    return cfg.quantization_bit or None


def no_bits(cfg: TrainConfig) -> int | None:
    """Weights that all learn are never quantised."""
    return None
