"""What this machine can train with, told without torch: GPUs by nvidia-smi, CPU by its flags."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BF16_CPU = ("avx512_bf16", "amx_bf16", "bf16")  # x86; the last one is ARM's
BF16_GPU = 8.0  # compute capability from which NVIDIA cards have it
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card: its name, bytes of memory, compute capability (0 where unknown)."""

    name: str
    memory: int
    capability: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """`gpus` are those a process started now would see."""

    gpus: tuple[Gpu, ...] = ()
    cpu_bf16: bool = False
    cores: int = 1
    compiler: str = ""

    @property
    def gpu_bf16(self) -> bool:
        return bool(self.gpus) and all(gpu.capability >= BF16_GPU for gpu in self.gpus)


@cache
def this_machine() -> Machine:
    """Asked once; a card plugged in later is seen by the next process."""
    return probe(os.environ)


def probe(environ: Mapping[str, str]) -> Machine:
    """What is here, and what of it `CUDA_VISIBLE_DEVICES` leaves."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    own = environ.get("CXX", "")
    names = (own, *COMPILERS) if own else COMPILERS
    compiler = next((found for name in names if (found := shutil.which(name))), "")
    return Machine(visible(_cards(), environ), _cpu_bf16(), cores or 1, compiler)


def visible(cards: tuple[Gpu, ...], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The cards that `CUDA_VISIBLE_DEVICES` names; all where it is not set."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return cards
    found: list[Gpu] = []
    for part in filter(None, map(str.strip, chosen.split(","))):
        if part.isdecimal():
            if int(part) >= len(cards):
                break  # as CUDA does: what follows an index that is none is not seen
            found.append(cards[int(part)])
        elif part.startswith(("GPU-", "MIG-")):
            found += cards[:1]
        else:
            break
    return tuple(found)


def _cards() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    ask = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode != 0:
        return ()
    return tuple(filter(None, map(read_card, done.stdout.splitlines())))


def read_card(line: str) -> Gpu | None:
    """A line of nvidia-smi, `NVIDIA H100 80GB HBM3, 81559, 9.0`; None for one that is not."""
    parts = [part.strip() for part in line.rsplit(",", 2)]
    if len(parts) != 3 or not parts[1].isdecimal():
        return None
    known = parts[2].replace(".", "", 1).isdecimal()
    return Gpu(parts[0], int(parts[1]) << 20, float(parts[2]) if known else 0.0)


def _cpu_bf16() -> bool:
    if platform.system() == "Darwin":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return cpu_has_bf16(text)


def cpu_has_bf16(cpuinfo: str) -> bool:
    """Whether the flags in /proc/cpuinfo name bf16 instructions."""
    for line in cpuinfo.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return any(flag in BF16_CPU for flag in flags.split())
    return False
