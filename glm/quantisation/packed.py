"""The family's own packed int8 and int4 checkpoints (chatglm-6b-int4, chatglm2-6b-int4), unpacked.

A packed weight is an int8 matrix (out, in * bits / 8) beside a `weight_scale` (out,): each row is
scaled so that its largest magnitude is 2**(bits-1) - 1. In 4 bit a byte holds two neighbouring
columns, the even one in the high nibble, both in two's complement. Which matrices are packed
differs (the embeddings of chatglm-6b-int4-qe, too): what has a scale is. Source of the layout: the
quantization.py of these repositories on the hub, of which nothing runs here.

    state = unpacked_state(info, torch.bfloat16)      # nothing is read but the scales
    Model.from_pretrained(None, config=config, state_dict=state)

What was lost when they were packed does not come back: the unpacked weights are exactly those that
the official code multiplies with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from glm.checkpoint.recognise import ModelInfo
from glm.errors import CheckpointError

SCALE = "_scale"
CELLS = 1 << 18  # unpacked at a time: what is held beside the result
KEYS = ("quantization_bit", "quantization_embeddings")


class PackedWeight:
    """A packed weight that is unpacked when it is read: `weight[...]`, as of a safetensors slice.

    So transformers places one matrix at a time, and no second copy of the model is ever held.
    """

    def __init__(self, weight: Any, scale: torch.Tensor, bits: int, dtype: torch.dtype) -> None:
        self._weight, self._scale, self._bits, self.dtype = weight, scale, bits, dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        return unpack(self._weight[...], self._scale, self._bits, self.dtype)[index]


def packed_bits(config: Mapping[str, Any]) -> int | None:
    """4 or 8 for a packed checkpoint, None for others. Raises CheckpointError for other widths."""
    bits = config.get("quantization_bit") or None
    if bits not in (None, 4, 8):
        raise CheckpointError(f"config.json: quantization_bit={bits!r} is not supported; 4 or 8 is")
    return bits


def without_packing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the model as it is once its weights are unpacked."""
    return {key: value for key, value in config.items() if key not in KEYS}


def unpack(
    weight: torch.Tensor, scale: torch.Tensor, bits: int, dtype: torch.dtype
) -> torch.Tensor:
    """The matrix of a packed weight. Each product is exact and rounded once, to `dtype`."""
    rows, columns = weight.shape
    out = torch.empty(rows, columns * 8 // bits, dtype=dtype)  # (out, in)
    step = max(1, CELLS // max(1, columns))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        values = weight[part]
        if bits == 4:
            low = (values << 4) >> 4  # the shift to the right repeats the sign
            values = torch.stack((values >> 4, low), -1).flatten(1)
        out[part] = values.to(torch.float32) * scale[part, None].to(torch.float32)
    return out


def unpacked_state(info: ModelInfo, dtype: torch.dtype) -> dict[str, Any]:
    """The weights of a checkpoint, packed or not, under its own names, each read when asked for.

    Raises CheckpointError naming a packed weight without a scale or with one that does not fit.
    """
    stored: dict[str, Any] = {}
    for file in info.weights:
        stored |= _stored(file)
    bits = packed_bits(info.config)
    state: dict[str, Any] = {}
    for name, weight in stored.items():
        if name.endswith(f".weight{SCALE}"):
            if name.removesuffix(SCALE) not in stored:
                raise CheckpointError(f"{info.path}: {name} scales no weight")
        elif _is_int8(weight):
            scale = _scale(info, name, weight, stored.get(name + SCALE))
            if bits is None:
                raise CheckpointError(
                    f"{info.path}: {name} is packed, but config.json has no quantization_bit"
                )
            state[name] = PackedWeight(weight, scale, bits, dtype)
        else:
            state[name] = weight
    return state


def _stored(file: Path) -> dict[str, Any]:
    """The tensors of a file by name, none read yet. A .bin is mapped, not loaded."""
    if file.suffix == ".safetensors":
        opened = safe_open(str(file), framework="pt")
        return {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True))


def _is_int8(weight: Any) -> bool:
    if isinstance(weight, torch.Tensor):
        return weight.dtype == torch.int8
    return bool(weight.get_dtype() == "I8")


def _scale(info: ModelInfo, name: str, weight: Any, stored: Any) -> torch.Tensor:
    """The scale of a packed weight, checked."""
    if stored is None:
        raise CheckpointError(f"{info.path} lacks {name}{SCALE}, without which {name} is no weight")
    scale: torch.Tensor = stored[...]
    shape = list(weight.shape if isinstance(weight, torch.Tensor) else weight.get_shape())
    if len(shape) != 2 or list(scale.shape) != shape[:1]:
        raise CheckpointError(
            f"{info.path}: {name}{SCALE} has the shape {list(scale.shape)}, {name} {shape}"
        )
    if not bool(torch.isfinite(scale).all()):
        raise CheckpointError(f"{info.path}: the weight {name}{SCALE} holds NaN or infinity")
    return scale
