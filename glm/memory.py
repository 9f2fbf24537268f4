"""How much memory the model, its adapters and the machine have; bytes."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Memory:
    """`process` is what this program holds; `free` and `total` are the machine's.

    `device_free` and `device_total` are those of the accelerator, 0 without one.
    """

    model: int
    adapters: int
    process: int
    free: int
    total: int
    device_free: int = 0
    device_total: int = 0


def read_memory(model: int = 0, adapters: int = 0) -> Memory:
    """The figures now. Does not bring torch; the accelerator's are there once it was used."""
    machine = psutil.virtual_memory()
    device = (0, 0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        device = torch.cuda.mem_get_info()
    held = psutil.Process().memory_info().rss
    return Memory(model, adapters, held, machine.available, machine.total, *device)
