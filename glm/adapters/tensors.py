"""Read an adapter's tensors: safetensors, or pickles of tensors and nothing else."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from glm.adapters import sources
from glm.adapters.sources import Source
from glm.errors import CheckpointError

PREFIX_SIGN = "prefix_encoder."


def read(source: Source) -> dict[str, torch.Tensor]:
    """Its tensors in memory of their own; of a whole P-Tuned model the prefix encoder's only.

    Raises CheckpointError naming the file: cut off, holding code, or not finite.
    """
    found: dict[str, torch.Tensor] = {}
    for file in source.weights:
        part = _safetensors(file, source) if _safe(file) else _pickle(file, source)
        for name, tensor in part.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(f"{file}: {name} holds NaN or infinity")
        found |= part
    return found


def shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """Names and shapes, without reading the numbers."""
    found: dict[str, tuple[int, ...]] = {}
    for file in source.weights:
        if _safe(file):
            found |= sources.header(file)
        else:
            found |= {name: tuple(t.shape) for name, t in _unpickled(file, "meta").items()}
    return {name: shape for name, shape in found.items() if _wanted(name, source)}


def _safe(file: Path) -> bool:
    return file.suffix == ".safetensors"


def _wanted(name: str, source: Source) -> bool:
    return source.kind != sources.PTUNING or PREFIX_SIGN in name


def _safetensors(file: Path, source: Source) -> dict[str, torch.Tensor]:
    try:
        with safe_open(str(file), framework="pt") as stored:
            # Cloned: the file may be replaced while the adapter is in use.
            return {
                name: stored.get_tensor(name).clone()
                for name in stored.keys()  # noqa: SIM118
                if _wanted(name, source)
            }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut off: {error}") from error


def _pickle(file: Path, source: Source) -> dict[str, torch.Tensor]:
    found = _unpickled(file, "cpu")
    return {
        name: tensor.detach().clone() for name, tensor in found.items() if _wanted(name, source)
    }


def _unpickled(file: Path, device: str) -> dict[str, torch.Tensor]:
    try:
        mapped = zipfile.is_zipfile(file)
        found = torch.load(file, map_location=device, weights_only=True, mmap=mapped)
    except Exception as error:  # border: any bytes may stand in this file
        unknown = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors" if unknown else "it is damaged"
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{file} is refused: {reason} ({line}); convert it to safetensors where you trust it"
        ) from error
    found = _state(found)
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{file} is refused: {name!r} in it is not a tensor")
    return dict(found)


def _state(found: Any) -> Mapping[str, Any]:
    """The state dict itself, or the one inside a dictionary of one."""
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        return found["state_dict"]
    return found if isinstance(found, Mapping) else {"": None}
