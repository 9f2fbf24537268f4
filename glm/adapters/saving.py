"""Write an opened adapter in the layouts other programs read.

PEFT LoRA folders on the native names, the official P-Tuning v2 checkpoint, PEFT prefix tuning.
A card (glm/adapters/card.py) beside them is the caller's to write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from glm.adapters.card import replacing, write_json
from glm.adapters.prefix import OFFICIAL_KEY, PEFT_KEY, joined
from glm.adapters.rotation import rotated
from glm.adapters.sizes import LAYER, Sizes
from glm.adapters.sources import PEFT_CONFIG, PEFT_WEIGHTS
from glm.adapters.values import Adapter, LoraPart, Prefix
from glm.errors import CheckpointError


def save_peft_lora(adapter: Adapter, folder: Path, base_name: str) -> Path:
    """A folder that PEFT opens on the native model. Returns it."""
    parts = adapter.lora
    if not parts:
        raise CheckpointError(f"{adapter.info.name} has no low-rank parts to save")
    dora = {part.magnitude is not None for part in parts.values()}
    if len(dora) > 1:
        raise CheckpointError(f"{adapter.info.name} mixes LoRA and DoRA layers: PEFT cannot")
    tensors = {}
    for name, part in parts.items():
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = part.a
        tensors[f"{key}.lora_B.weight"] = part.b
        if part.magnitude is not None:
            tensors[f"{key}.lora_magnitude_vector"] = part.magnitude
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "bias": "none",
        "lora_dropout": 0.0,
        "use_dora": dora == {True},
        "use_rslora": False,
        **_targets(parts),
        **_strengths(parts),
    }
    return _write(folder, tensors, settings)


def save_official_prefix(adapter: Adapter, file: Path) -> Path:
    """The official P-Tuning v2 checkpoint: a .safetensors file, or else a pickle of tensors."""
    table = {OFFICIAL_KEY: joined(_prefix(adapter))}
    file.parent.mkdir(parents=True, exist_ok=True)
    _put(file, table)
    return file


def save_peft_prefix(adapter: Adapter, config: Any, folder: Path) -> Path:
    """A PEFT prefix-tuning folder, its keys turned for PEFT's positions behind the prefix."""
    prefix, sizes = _prefix(adapter), Sizes.of(config)
    turned = Prefix(rotated(prefix.keys, config, prefix.tokens), prefix.values)
    settings = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.info.base or None,
        "inference_mode": True,
        "num_virtual_tokens": prefix.tokens,
        "token_dim": sizes.groups * sizes.head_dim,
        "num_attention_heads": sizes.groups,
        "num_layers": sizes.layers,
        "num_transformer_submodules": 1,
        "encoder_hidden_size": sizes.hidden,
        "prefix_projection": False,
    }
    return _write(folder, {PEFT_KEY: joined(turned)}, settings)


def _prefix(adapter: Adapter) -> Prefix:
    if adapter.prefix is None:
        raise CheckpointError(f"{adapter.info.name} has no prefix to save")
    return adapter.prefix


def _targets(parts: Mapping[str, LoraPart]) -> dict[str, Any]:
    """Short names where each layer has the same ones, as everybody writes them; else all."""
    layers: dict[str, set[int]] = {}
    for name in parts:
        place = LAYER.fullmatch(name)
        if place is None:
            return {"target_modules": sorted(parts)}
        layers.setdefault(place[2].rpartition(".")[2], set()).add(int(place[1]))
    same = next(iter(layers.values()))
    if any(found != same for found in layers.values()) or same != set(range(len(same))):
        return {"target_modules": sorted(parts)}
    return {"target_modules": sorted(layers)}


def _strengths(parts: Mapping[str, LoraPart]) -> dict[str, Any]:
    """r and lora_alpha of most layers; patterns for the others. alpha = scale x r."""
    ranks = {name: part.a.shape[0] for name, part in parts.items()}
    alphas = {name: _number(part.scale * ranks[name]) for name, part in parts.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": _pattern(ranks, rank),
        "alpha_pattern": _pattern(alphas, alpha),
    }


def _pattern(values: dict[str, Any], usual: Any) -> dict[str, Any]:
    """By short name where all layers agree."""
    by_leaf: dict[str, set[Any]] = {}
    for name, value in values.items():
        by_leaf.setdefault(name.rpartition(".")[2], set()).add(value)
    short = {leaf: next(iter(found)) for leaf, found in by_leaf.items() if len(found) == 1}
    found = {leaf: value for leaf, value in short.items() if value != usual}
    return found | {
        name: value
        for name, value in values.items()
        if value != usual and name.rpartition(".")[2] not in short
    }


def _number(value: float) -> float:
    """An alpha as its author wrote it, where rounding hides it."""
    whole = round(value)
    return whole if abs(value - whole) < 1e-9 * max(1.0, abs(value)) else value


def _write(folder: Path, tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _put(folder / PEFT_WEIGHTS[0], tensors)
    write_json(folder / PEFT_CONFIG, settings)
    return folder


def _put(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Cloned, for q, k and v share their A, which safetensors refuses."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(file) as passing:
        if file.suffix == ".safetensors":
            save_file(own, passing, metadata={"format": "pt"})
        else:
            torch.save(own, passing)
