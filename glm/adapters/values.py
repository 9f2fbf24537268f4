"""An opened adapter as plain values, whatever file it came from: a LoRA, a prefix, or both.

Everything is already in terms of the native model: LoRA parts by the native module's name,
prefixes unrotated as the official P-Tuning v2 code computes them. No file, no engine in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class LoraPart:
    """What a LoRA adds to one linear module: `scale * b @ a`, (out, in).

    `a` (r, in), `b` (out, r). `magnitude` (out,) makes it a DoRA: the rows of weight + update are
    scaled to these lengths (the bias is not).
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Keys and values that stand before every prompt: (layers, kv heads, tokens, head dim) each.

    Keys carry no rotation and do not move the positions of the real tokens, which start at 0.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def tokens(self) -> int:
        return self.keys.shape[2]


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What is known about an adapter; "" and None where its files do not say.

    `kind` for people: "LoRA", "DoRA", "rsLoRA", "P-Tuning v2", "prefix". `base` is the name of
    the model it was made for, `base_hash` the fingerprint of that model's weights, `dialect` the
    prompt language, `layout` the mask layout, `data_hash` the data it learnt from, `run` the
    folder of the training run. `reason` says why it was recognised, `warnings` what to mind.
    """

    name: str
    path: Path
    kind: str
    rank: int | None = None
    tokens: int | None = None
    base: str = ""
    base_hash: str = ""
    dialect: str = ""
    layout: str = ""
    data_hash: str = ""
    run: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An opened adapter. `lora` maps native module names (`model.layers.0.self_attn.q_proj`)."""

    info: AdapterInfo
    lora: Mapping[str, LoraPart] = field(default_factory=dict)
    prefix: Prefix | None = None

    @property
    def bytes(self) -> int:
        """What its numbers take; less than its file where that holds a whole model."""
        parts = [t for part in self.lora.values() for t in (part.a, part.b, part.magnitude)]
        parts += [self.prefix.keys, self.prefix.values] if self.prefix else []
        return sum(t.numel() * t.element_size() for t in parts if t is not None)
