"""Checkpoints that a kill cannot tear: written beside, marked complete, flushed, then renamed.

A folder `checkpoint-N` with a complete.json that names its files, their sizes and hashes is
whole; any other is passed over. What a kill leaves behind begins with a dot and is removed by the
next run. No torch in here: the caller fills the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.adapters.card import fingerprint, write_json

MARK = "complete.json"
ASIDE = "aside"  # what a run that was taken up at an earlier step had saved after it
HASHED = 64 << 20  # bytes up to which all of a file is hashed; of larger ones samples
_NAME = re.compile(r"checkpoint-(\d+)")
_PART, _OLD = ".partial-", ".old-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete one. `result` are the files that users open; the others serve to go on."""

    path: Path
    step: int
    result: tuple[str, ...]

    def damage(self) -> str:
        """What is wrong with its files against its mark; "" when nothing is."""
        for name, about in _mark(self.path)["files"].items():
            if _digest(self.path / name) != about["hash"]:
                return f"{self.path / name} is not what was saved"
        return ""


def begin(root: Path, step: int) -> Path:
    """An empty folder to fill; nobody takes it for a checkpoint."""
    part = root / f"{_PART}{step}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def finish(part: Path, step: int, result: tuple[str, ...]) -> Checkpoint:
    """Mark it complete, see it on the disk, and give it its name."""
    names = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())
    files = {
        name: {"size": (part / name).stat().st_size, "hash": _digest(part / name)} for name in names
    }
    write_json(part / MARK, {"step": step, "result": list(result), "files": files})
    for path in (*part.rglob("*"), part):
        flush(path)
    final = part.parent / f"checkpoint-{step}"
    if final.exists():
        _remove(final)
    part.rename(final)
    flush(part.parent)
    return Checkpoint(final, step, result)


def flush(path: Path) -> None:
    """See a file or folder on the disk. Raises OSError when it does not get there."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def complete(root: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, the newest first."""
    return [found for path in _named(root) if (found := read(path))]


def read(path: Path) -> Checkpoint | None:
    """The checkpoint in a folder; None when it is not complete."""
    try:
        mark = _mark(path)
        sizes = {name: about["size"] for name, about in mark["files"].items()}
        if any((path / name).stat().st_size != size for name, size in sizes.items()):
            return None
        return Checkpoint(path, int(mark["step"]), tuple(mark["result"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def rotate(root: Path, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints, and the one of the step `best`."""
    for found in complete(root)[keep:]:
        if found.step != best:
            _remove(found.path)


def set_aside(root: Path, step: int) -> list[int]:
    """Move what was saved after a step into `aside`, since another run of steps follows it."""
    later = [found for found in complete(root) if found.step > step]
    for found in later:
        place = root / ASIDE / found.path.name
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            _remove(place)
        found.path.rename(place)
    return sorted(found.step for found in later)


def clean(root: Path) -> None:
    """Remove what a kill left half done."""
    if root.is_dir():
        for path in root.iterdir():
            if path.name.startswith((_PART, _OLD)):
                shutil.rmtree(path, ignore_errors=True)


def copy_result(checkpoint: Checkpoint, folder: Path) -> Path:
    """Put what users open of a checkpoint into `folder`, which is there whole or as before."""
    part = folder.with_name(f"{_PART}{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in checkpoint.result:
        shutil.copyfile(checkpoint.path / name, part / name)
        flush(part / name)
    if folder.exists():
        _remove(folder)
    part.rename(folder)
    flush(folder.parent)
    return folder


def _remove(path: Path) -> None:
    """Renamed first: a folder of that name is never half there."""
    old = path.with_name(f"{_OLD}{path.name}")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _named(root: Path) -> Iterator[Path]:
    if root.is_dir():
        found = [(int(match[1]), path) for path in root.iterdir() if (match := _match(path))]
        yield from (path for _, path in sorted(found, reverse=True))


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)


def _mark(path: Path) -> dict[str, Any]:
    mark: dict[str, Any] = json.loads((path / MARK).read_text(encoding="utf-8"))
    return mark


def _digest(file: Path) -> str:
    if file.stat().st_size > HASHED:
        return fingerprint((file,))
    return hashlib.sha256(file.read_bytes()).hexdigest()
