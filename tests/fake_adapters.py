"""Adapters that are read from nothing, so that the page can be tested without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glm.adapters.values import Adapter, AdapterInfo
from glm.errors import CheckpointError


class NoAlpha(CheckpointError):
    """A bare file does not say its alpha."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        super().__init__(f"alpha is needed; the rank is {rank}")


def read_nothing(info: Any, engine: Any, path: Path, alpha: float | None) -> Adapter:
    """What a path's name says: a .pt without alpha asks for it, a prefix has 128 tokens."""
    if path.suffix == ".pt" and alpha is None:
        raise NoAlpha(8)
    if "broken" in path.name:
        raise CheckpointError(f"{path} is damaged")
    prefix = "prefix" in path.name
    kind, rank, tokens = ("P-Tuning v2", None, 128) if prefix else ("LoRA", 8, None)
    about = {"base": "THUDM/chatglm3-6b", "run": str(path.parent), "bytes": 7_800_000}
    return Adapter(AdapterInfo(path.name, path, kind, rank, tokens, **about))
