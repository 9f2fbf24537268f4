"""Which adapters a base model has, kept in a small JSON file of the data folder.

    {"/models/chatglm3-6b": {"weather": {"path": "/runs/weather/adapter", "alpha": 32}}}

Two programs may share the file: it is read again before each change and replaced in one step.
One that cannot be read, such as after a foreign edit, is kept beside as `.damaged`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm.errors import StoreError

Entries = dict[str, dict[str, Any]]


class Catalog:
    """`file` None keeps everything in memory only."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._kept: dict[str, Entries] = {}
        self._lock = threading.Lock()

    def of(self, base: str) -> Entries:
        """The adapters of a base by name; each has a "path" and maybe an "alpha"."""
        with self._lock:
            return dict(self._read().get(base, {}))

    def put(self, base: str, name: str, entry: Mapping[str, Any]) -> None:
        """Remember an adapter. Raises StoreError when the file cannot be written."""
        with self._lock:
            kept = self._read(aside=True)
            kept.setdefault(base, {})[name] = dict(entry)
            self._write(kept)

    def drop(self, base: str, name: str) -> None:
        """Forget an adapter; its files stay."""
        with self._lock:
            kept = self._read(aside=True)
            if kept.get(base, {}).pop(name, None) is not None:
                self._write(kept)

    def _read(self, aside: bool = False) -> dict[str, Entries]:
        """What the file says; what does not fit, such as a foreign edit, is left out.

        `aside` keeps a file that cannot be read, for it is written anew.
        """
        if self._file is None:
            return self._kept
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            if aside:
                with contextlib.suppress(OSError):
                    self._file.replace(self._file.with_name(f"{self._file.name}.damaged"))
            return {}
        bases = found.items() if isinstance(found, dict) else ()
        return {base: _entries(entries) for base, entries in bases}

    def _write(self, kept: dict[str, Entries]) -> None:
        if self._file is None:
            self._kept = kept
            return
        beside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                json.dump(kept, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise StoreError(f"{self._file} cannot be written ({error.strerror})") from error


def _entries(found: Any) -> Entries:
    rows = found.items() if isinstance(found, dict) else ()
    return {
        name: {key: value for key, value in entry.items() if key != "alpha" or _strength(value)}
        for name, entry in rows
        if isinstance(entry, dict) and isinstance(entry.get("path"), str)
    }


def _strength(value: Any) -> bool:
    """Is it an alpha, or nothing?"""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 < value < math.inf)
