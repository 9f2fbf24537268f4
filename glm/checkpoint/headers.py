"""What a weight file says about itself, without torch and without running anything in it.

safetensors: the JSON header. Pickles (.bin, .pt): the list of opcodes is read, never executed; the
sizes come from the zip around it. Tensors are not read, so values (NaN) are not checked.
"""

from __future__ import annotations

import json
import math
import pickletools
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U8": "uint8",
}
_STORAGE = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "IntStorage": "int32",
    "LongStorage": "int64",
}
_HARMLESS = ("torch", "collections", "_codecs", "numpy")
MOST = 100 << 20  # bytes of a header or of a list of opcodes


@dataclass(frozen=True, slots=True)
class FileReport:
    """`numbers` by type (of a pickle with several types: under "mixed"); `fault` in a sentence."""

    file: Path
    bytes: int
    numbers: Counter[str] = field(default_factory=Counter)
    fault: str = ""


def read(file: Path) -> FileReport:
    """What one weight file holds. Damage and code are faults, not exceptions."""
    size = file.stat().st_size
    try:
        if file.suffix == ".safetensors":
            return FileReport(file, size, _safetensors(file, size))
        return _pickled(file, size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        return FileReport(file, size, fault=f"{file.name} is damaged or cut off: {error}")


def _safetensors(file: Path, size: int) -> Counter[str]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(MOST, size - 8):
            raise ValueError("its header is longer than the file")
        header: dict[str, Any] = json.loads(opened.read(length))
    tensors = [value for name, value in header.items() if name != "__metadata__"]
    end = 8 + length + max((int(t["data_offsets"][1]) for t in tensors), default=0)
    if end != size:
        raise ValueError(f"{end} bytes are expected, {size} are there")
    numbers: Counter[str] = Counter()
    for tensor in tensors:
        numbers[KINDS.get(tensor["dtype"], str(tensor["dtype"]))] += math.prod(tensor["shape"])
    return numbers


def _pickled(file: Path, size: int) -> FileReport:
    if not zipfile.is_zipfile(file):
        return FileReport(file, size, fault=f"{file.name} is damaged or of a form before 2020")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        lists = [e for e in entries if e.filename.endswith("data.pkl") and e.file_size < MOST]
        data = sum(e.file_size for e in entries if "/data/" in e.filename)
        names = {name for entry in lists for name in _globals(archive.read(entry))}
    if not lists:
        return FileReport(file, size, fault=f"{file.name} holds no weights")
    code = sorted(name for name in names if name.partition(".")[0] not in _HARMLESS)
    if code:
        fault = f"{file.name} is refused: it would run {', '.join(code[:3])}; nothing of it ran"
        return FileReport(file, size, fault=fault)
    kinds = {_STORAGE[name.rpartition(".")[2]] for name in names if _is_storage(name)}
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    width = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "int8": 1, "uint8": 1}
    return FileReport(file, size, Counter({kind: data // width.get(kind, 2)}))


def _is_storage(name: str) -> bool:
    return name.rpartition(".")[2] in _STORAGE


def _globals(data: bytes) -> Iterator[str]:
    """`module.name` of everything a pickle would import."""
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
