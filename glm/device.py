"""Where a model goes: which device or devices, which number type, and whether it fits there."""

from __future__ import annotations

from pathlib import Path

import torch

from glm.errors import CheckpointError
from glm.memory import read_memory

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SMALL = 300_000_000  # below this many parameters fp32 is the faster and exact choice on a CPU
ONE_CARD = 0.9  # of a card's memory, the most that weights may take of one alone


def pick_device(wanted: str = "auto") -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU. Raises CheckpointError for a device not here."""
    have = ["cpu"]
    if torch.backends.mps.is_available():
        have.insert(0, "mps")
    if torch.cuda.is_available():
        have.insert(0, "cuda")
    if wanted == "auto":
        return torch.device(have[0])
    if wanted.split(":")[0] not in have:
        raise CheckpointError(f"device {wanted!r} is not here; available: {', '.join(have)}")
    return torch.device(wanted)


def pick_dtype(
    wanted: str, device: torch.device, parameters: int, own: str | None = None
) -> torch.dtype:
    """`auto`: fp32 for small models on a CPU; bf16 where the device computes it, else fp16.

    `file` is the files' `own` type, which the CPU maps from the disk instead of copying it.
    """
    if wanted == "file":
        wanted = own or "auto"
    if wanted != "auto":
        name = SHORT.get(wanted, wanted)
        if name not in DTYPES:
            raise CheckpointError(
                f"dtype {wanted!r} is unknown; allowed: auto, file, {', '.join(DTYPES)}"
            )
        return DTYPES[name]
    if device.type == "cpu":
        return torch.float32 if parameters < SMALL else torch.bfloat16
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.float16 if device.type == "mps" else torch.bfloat16


def needs_several(wanted: str, size: int) -> bool:
    """Is a model of `size` bytes too large for one card, on `auto`, where there are several?"""
    if wanted != "auto" or not torch.cuda.is_available() or torch.cuda.device_count() < 2:
        return False
    return size > ONE_CARD * torch.cuda.get_device_properties(0).total_memory


def free_memory(device: torch.device) -> int | None:
    """Bytes a model may take on a device; None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    group = _group_free()
    free = read_memory().free
    return free if group is None else min(free, group)


def _group_free(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit of a container leaves; cached files do not count, they make room."""
    try:
        limit = int((root / "memory.max").read_text())  # "max" where there is none
        used = int((root / "memory.current").read_text())
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return limit - used + int(stat.get("file", 0))
    except (OSError, ValueError):
        return None
