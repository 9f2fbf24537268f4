"""Weights of a checkpoint one tensor at a time, and safetensors files written the same way.

A file is never held in memory: reading maps it, writing knows all shapes beforehand (the format
is a JSON header with offsets, then the bytes: github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from glm.errors import CheckpointError

SHARD = 5_000_000_000  # bytes of one weight file at most
INDEX = "model.safetensors.index.json"
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.int64: "I64",
}
_OF_NAME = {name: dtype for dtype, name in NAMES.items()}


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that will be written: its value is made when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    value: Callable[[], torch.Tensor]

    @property
    def bytes(self) -> int:
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


class Weights:
    """The tensors in some weight files, by name. Raises CheckpointError, naming the file."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._where: dict[str, tuple[Path, Any]] = {}
        for file in files:
            opened = _open(file)
            for name in opened.keys():  # noqa: SIM118 - a file handle, not a dict
                self._where[name] = (file, opened)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        _, opened = self._where[name]
        if isinstance(opened, dict):
            return tuple(opened[name].shape)
        return tuple(opened.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        file, opened = self._where[name]
        if isinstance(opened, dict):
            return opened[name].dtype
        found = opened.get_slice(name).get_dtype()
        if found not in _OF_NAME:
            raise CheckpointError(f"{file}: {name} has numbers of the kind {found}")
        return _OF_NAME[found]

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """The tensor, or some of its rows; only those are read."""
        file, opened = self._where[name]
        if isinstance(opened, dict):
            return opened[name][start:stop].contiguous() if stop else opened[name].contiguous()
        try:
            return opened.get_slice(name)[start:stop] if stop else opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or cut off: {error}") from error


def _open(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            return safe_open(str(file), framework="pt")
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # border: any bytes may stand in this file
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{file} cannot be read: {line}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{file} holds no table of weights")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def write_shards(
    plan: Sequence[Planned], folder: Path, said: Callable[[int, int], None], shard: int = SHARD
) -> None:
    """Write the tensors as one model.safetensors, or as shards with their index.

    `said(done, of)` is called in bytes after each tensor.
    """
    groups = _groups(plan, shard)
    total, done = sum(item.bytes for item in plan), 0
    index: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        many = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        name = many if len(groups) > 1 else "model.safetensors"
        for item in _write(group, folder / name):
            done += item.bytes
            index[item.name] = name
            said(done, total)
    if len(groups) > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def _groups(plan: Sequence[Planned], limit: int) -> list[list[Planned]]:
    groups: list[list[Planned]] = [[]]
    room = limit
    for item in plan:
        if item.bytes > room and groups[-1]:
            groups.append([])
            room = limit
        groups[-1].append(item)
        room -= item.bytes
    return groups


def _write(group: Sequence[Planned], file: Path) -> Iterator[Planned]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for item in group:
        header[item.name] = {
            "dtype": NAMES[item.dtype],
            "shape": list(item.shape),
            "data_offsets": [at, at + item.bytes],
        }
        at += item.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for item in group:
            value = item.value().to(item.dtype).contiguous()
            if tuple(value.shape) != item.shape:
                raise CheckpointError(f"{item.name} has the shape {tuple(value.shape)}")
            out.write(value.reshape(-1).view(torch.uint8).numpy().data)
            yield item
