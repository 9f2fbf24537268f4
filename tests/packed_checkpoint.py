"""Packs a checkpoint as the family's own quantization.py does, for tests of reading it.

In half precision: the scale of a row is its largest magnitude / (2**(bits-1) - 1), a weight is
rounded to whole scales; in 4 bit the even column goes to the high half of a byte.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LINEAR = ("query_key_value.weight", "dense.weight", "dense_h_to_4h.weight", "dense_4h_to_h.weight")
EMBEDDINGS = ("word_embeddings.weight", "lm_head.weight")
State = dict[str, torch.Tensor]


def pack(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(packed, scale) of a matrix."""
    values, scale = whole(weight, bits)
    if bits == 4:
        even, odd = (values[:, i::2].to(torch.uint8) for i in (0, 1))
        values = ((even << 4) | (odd & 15)).view(torch.int8)
    return values, scale


def unpacked(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """What the official code multiplies with once this weight is packed, in fp32."""
    values, scale = whole(weight, bits)
    return values.float() * scale.float()[:, None]


def whole(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights as whole numbers of their row's scale."""
    half = weight.half()
    scale = half.abs().max(dim=-1).values / (2 ** (bits - 1) - 1)
    return torch.round(half / scale[:, None]).to(torch.int8), scale


def packed_state(state: State, bits: int, names: tuple[str, ...] = LINEAR) -> State:
    """The state dict with the weights that end in `names` packed, the rest in half precision."""
    out: State = {}
    for name, weight in state.items():
        if name.endswith(names):
            out[name], out[f"{name}_scale"] = pack(weight, bits)
        else:
            out[name] = weight.half()
    return out


def unpacked_twin(state: State, bits: int, names: tuple[str, ...] = LINEAR) -> State:
    """The plain checkpoint that the packed one must equal, in fp32."""
    return {
        name: unpacked(weight, bits) if name.endswith(names) else weight.half().float()
        for name, weight in state.items()
    }


def pack_folder(folder: Path, bits: int, binary: bool = False) -> tuple[Path, Path]:
    """Pack a written checkpoint in place; returns it and its plain twin beside it."""
    file = folder / "model.safetensors"
    state = load_file(file)
    twin = folder.with_name(f"{folder.name}-twin")
    twin.mkdir()
    for other in folder.iterdir():
        if other != file:
            (twin / other.name).write_bytes(other.read_bytes())
    save_file(unpacked_twin(state, bits), twin / file.name, metadata={"format": "pt"})
    packed = packed_state(state, bits)
    file.unlink()
    if binary:
        torch.save(packed, folder / "pytorch_model.bin")
    else:
        save_file(packed, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_bit": bits}))
    return folder, twin
