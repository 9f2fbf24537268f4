"""What learns, where processes hold a part each (FSDP2): gathered to save, dealt out to go on.

The optimizer's part of each process has a file of its own. accelerate's own way waits for ever, or
fails, where a part of the model is frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

LEARNT = "learnt.safetensors"
OPTIMIZER = "optimizer-{}.pt"


def gathered(model: Any, whole: bool, keep: bool) -> dict[str, Any]:
    """The full tensors by name, of all processes together; `keep` in this one."""
    _folded(model)
    found = {}
    for name, parameter in model.named_parameters():
        if whole or parameter.requires_grad:
            full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            full = full.detach().cpu().clone()
            if keep:
                found[name] = full
    return found


def write(model: Any, folder: Path, first: bool) -> None:
    tensors = gathered(model, False, first)
    if first:
        save_file(tensors, folder / LEARNT, metadata={"format": "pt"})


def read(model: Any, folder: Path) -> None:
    """Each process takes its part. All of them call this."""
    _folded(model)
    tensors = load_file(folder / LEARNT)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in tensors:
                continue
            full = tensors[name].to(device=parameter.device, dtype=parameter.dtype)
            if hasattr(parameter, "device_mesh"):
                part = distribute_tensor(full, parameter.device_mesh, parameter.placements)
                parameter.to_local().copy_(part.to_local())
            else:
                parameter.copy_(full)


def write_optimizer(optimizer: Any, folder: Path, rank: int) -> None:
    saved = optimizer.state_dict()
    state = {
        number: {name: _local(value) for name, value in values.items()}
        for number, values in saved["state"].items()
    }
    torch.save({**saved, "state": state}, folder / OPTIMIZER.format(rank))


def read_optimizer(optimizer: Any, folder: Path, rank: int) -> None:
    saved = torch.load(folder / OPTIMIZER.format(rank), map_location="cpu", weights_only=True)
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for number, values in saved["state"].items():
        for name, value in values.items():
            values[name] = _like(value, parameters[number])
    optimizer.load_state_dict(saved)


def _folded(model: Any) -> None:
    """After a step without a way back some weights are still unfolded, in memory that is gone."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _local(value: Any) -> Any:
    return value.to_local() if isinstance(value, DTensor) else value


def _like(value: Any, parameter: Any) -> Any:
    """A part of a tensor as one that is spread as the parameter is; numbers stay."""
    if not isinstance(parameter, DTensor) or not torch.is_tensor(value) or not value.dim():
        return value
    shape, stride = parameter.shape, parameter.stride()
    value = value.to(parameter.to_local().device)
    return DTensor.from_local(
        value, parameter.device_mesh, parameter.placements, shape=shape, stride=stride
    )
