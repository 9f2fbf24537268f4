"""Which adapters a base model has, kept in a small JSON file of the data folder.

    {"/models/chatglm3-6b": {"weather": {"path": "/runs/weather/adapter", "alpha": 32}}}

Two programs may share the file: it is read again before each change and replaced in one step.
"""

from __future__ import annotations

import contextlib
import json
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
            kept = self._read()
            kept.setdefault(base, {})[name] = dict(entry)
            self._write(kept)

    def drop(self, base: str, name: str) -> None:
        """Forget an adapter; its files stay."""
        with self._lock:
            kept = self._read()
            if kept.get(base, {}).pop(name, None) is not None:
                self._write(kept)

    def _read(self) -> dict[str, Entries]:
        """What the file says; what does not fit, such as a foreign edit, is left out."""
        if self._file is None:
            return self._kept
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
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
        name: entry
        for name, entry in rows
        if isinstance(entry, dict) and isinstance(entry.get("path"), str)
    }
