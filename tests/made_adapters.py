"""Adapters as values, for exports: what the adapter reader would give."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from glm.adapters.values import Adapter, AdapterInfo, LoraPart, Prefix
from glm.export.source import Source

MODULES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")


def lora(source: Source, modules: tuple[str, ...] = MODULES, dora: bool = False) -> Adapter:
    """A LoRA with an effect on these modules of every layer."""
    generator = torch.Generator().manual_seed(1)
    parts = {}
    for name in source.names:
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module.endswith(modules):
            rows, columns = source.shape(name)
            a = torch.randn(4, columns, generator=generator) * 0.2
            b = torch.randn(rows, 4, generator=generator) * 0.2
            lengths = torch.rand(rows, generator=generator) + 0.5 if dora else None
            parts[module] = LoraPart(a, b, 0.5, lengths)
    assert parts
    return Adapter(AdapterInfo("poet", Path("poet"), "DoRA" if dora else "LoRA", rank=4), parts)


def prefix(layers: int, groups: int, width: int, tokens: int = 3) -> Adapter:
    """A prefix of random keys and values."""
    generator = torch.Generator().manual_seed(2)
    keys, values = (
        torch.randn(layers, groups, tokens, width, generator=generator) for _ in range(2)
    )
    info = AdapterInfo("dress", Path("dress"), "P-Tuning v2", tokens=tokens)
    return Adapter(info, prefix=Prefix(keys, values))


def pretend(monkeypatch: pytest.MonkeyPatch, module: str, **functions: Any) -> None:
    """Make `glm.adapters.MODULE` one of these functions only."""
    name = f"glm.adapters.{module}"
    made = ModuleType(name)
    vars(made).update(functions)
    monkeypatch.setitem(sys.modules, name, made)
