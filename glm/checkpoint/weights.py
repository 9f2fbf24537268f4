"""The weight files of a folder, and what their headers say; no tensor is read, torch stays out."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.errors import CheckpointError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
MOST_HEADER = 100_000_000  # bytes, as safetensors allows
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Header:
    """Of all tensors together: `numbers` in them, `bytes`, the `dtype` most numbers have."""

    numbers: int
    bytes: int
    dtype: str | None


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The weight files, safetensors first; every shard an index names must be there."""
    for index, single in zip(INDEXES, SINGLES, strict=True):
        if (folder / index).is_file():
            return _shards(folder, folder / index)
        if (folder / single).is_file():
            return (folder / single,)
    if any((folder / name).is_file() for name in ADAPTERS):
        raise CheckpointError(f"{folder} is an adapter; open its base model, then the adapter")
    raise CheckpointError(f"no weights in {folder}; expected {' or '.join(SINGLES)}")


def holds_weights(folder: Path) -> bool:
    """Does a folder look like one that `weight_files` reads?"""
    return any((folder / name).is_file() for name in (*INDEXES, *SINGLES))


def read_header(files: tuple[Path, ...]) -> Header | None:
    """What safetensors files hold; None for other files. Raises CheckpointError, naming the file,
    when one is cut off or no safetensors file.
    """
    if any(file.suffix != ".safetensors" for file in files):
        return None
    numbers: Counter[str] = Counter()
    size = 0
    for file in files:
        for tensor in _tensors(file):
            numbers[tensor["dtype"]] += math.prod(tensor["shape"])
            size += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    common = numbers.most_common(1)
    return Header(numbers.total(), size, DTYPES.get(common[0][0]) if common else None)


def _tensors(file: Path) -> list[dict[str, Any]]:
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise ValueError("its header is longer than the file")
            header = json.loads(opened.read(length))
        tensors = [value for name, value in header.items() if name != "__metadata__"]
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{8 + length + end} bytes are expected, {size} are there")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{file} is damaged or cut off: {error}") from error
    return tensors


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names = sorted(set(content["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a weight index") from error
    for name in names:
        if Path(str(name)).name != name:
            raise CheckpointError(f"{index} names a file outside its folder: {name}")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing; {index.name} names it")
    if not isinstance(content.get("metadata"), dict):
        raise CheckpointError(f"{index} is not a weight index: it has no metadata")
    return tuple(folder / name for name in names)
