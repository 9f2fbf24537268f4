"""The adapters of one loaded base: named, opened when they are asked for, the least used put away.

A model is addressed as `base`, `base:NAME`, or `base:A+B` for one LoRA and one prefix together.
Every load makes a new version, and a request keeps the version it began with. What was put away
stays known and is read again from its file when somebody chooses it.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.adapters.catalog import Catalog
from glm.adapters.values import Adapter, AdapterInfo
from glm.errors import BadRequest, GlmError

BASE, OF, JOIN = "base", ":", "+"
LIMIT = 1 << 30  # bytes of adapters in memory
_NAME = re.compile(r"[\w\-. ]{1,80}")
_STEP = re.compile(r"checkpoint-\d+")
_PLAIN = {"adapter", "adapters", "output", "final", "best", "last"}  # say nothing about the run

OpenAdapter = Callable[[Path, float | None], Adapter]


@dataclass(slots=True)
class Shelved:
    """An adapter that is known. `version` is set while it is in memory, where it takes `bytes`;
    `info` once it was read, and `problem` says why it could not be."""

    name: str
    path: Path
    alpha: float | None = None
    version: str = ""
    info: AdapterInfo | None = None
    problem: str = ""
    bytes: int = 0

    @property
    def loaded(self) -> bool:
        return bool(self.version)


class Shelf:
    """The adapters of one engine; thread-safe."""

    def __init__(
        self, engine: Any, base: str, read: OpenAdapter, catalog: Catalog, limit: int = LIMIT
    ) -> None:
        self._engine, self._base, self._read = engine, base, read
        self._catalog, self._limit = catalog, limit
        self._lock = threading.Lock()  # of the list; choosing what is in memory needs no more
        self._loading = threading.Lock()  # one file at a time; a second asker finds it loaded
        self._numbers = itertools.count(1)
        self._items: OrderedDict[str, Shelved] = OrderedDict()  # the least recently used first
        for name, entry in catalog.of(base).items():
            self._items[name] = Shelved(name, Path(entry["path"]), entry.get("alpha"))

    def all(self) -> list[Shelved]:
        """What is known, by name."""
        with self._lock:
            return sorted(self._items.values(), key=lambda item: item.name)

    def addresses(self) -> list[str]:
        """What a conversation may name as its model."""
        return [BASE, *(f"{BASE}{OF}{item.name}" for item in self.all())]

    def add(self, path: Path, name: str = "", alpha: float | None = None) -> Shelved:
        """Open an adapter's files and keep it; the same path again reads it anew.

        Raises CheckpointError when it cannot be opened, BadRequest when it does not fit.
        """
        path = path.expanduser().absolute()
        if not hasattr(self._engine, "add_adapter"):
            raise BadRequest("this model is not in this process and takes no adapters")
        if name and not _NAME.fullmatch(name):
            raise BadRequest(f"{name!r} is no name for an adapter; use letters, digits and - . _")
        with self._loading:
            item = Shelved(self._name(path, name), path, alpha)
            if alpha is None:
                item.alpha = self._alpha(path)
            self._open(item)
            self._catalog.put(self._base, item.name, {"path": str(path), "alpha": item.alpha})
        return item

    def remove(self, name: str) -> None:
        """Forget an adapter; answers that have it go on. Raises BadRequest for an unknown name."""
        with self._loading:  # who reads it just now would put it back
            with self._lock:
                item = self._items.pop(name, None)
            if item is None:
                raise self._unknown(name)
            self._put_away(item)
            self._catalog.drop(self._base, name)

    def key(self, model: str) -> str | None:
        """The engine's key for an address; reads the file of an adapter that was put away.

        Raises BadRequest for an address that names nothing, CheckpointError when a file is gone.
        """
        if model == BASE:
            return None
        base, _, names = model.partition(OF)
        if base != BASE or not names:
            raise self._unknown(model)
        together = names.split(JOIN)
        return JOIN.join(self._version(name, together) for name in together)

    def _version(self, name: str, together: Sequence[str]) -> str:
        """That of one adapter; to make room for it, none of those it is named with is put away."""
        with self._lock:
            item = self._items.get(name)
            if item is None:
                raise self._unknown_locked(name)
            self._items.move_to_end(name)
            if item.version:
                return item.version
        with self._loading:
            with self._lock:
                item = self._items.get(name)  # it may have gone or come anew meanwhile
            if item is None:
                raise self._unknown(name)
            if not item.version:
                self._open(item, together)
            return item.version

    def _open(self, item: Shelved, together: Sequence[str] = ()) -> None:
        """Read the files into the engine; what was there under this name is replaced."""
        try:
            adapter = self._read(item.path, item.alpha)
            version = f"{item.name}#{next(self._numbers)}"
            self._engine.add_adapter(version, adapter)
        except GlmError as error:
            item.problem = str(error)
            raise
        with self._lock:
            before = self._items.get(item.name)
            old = before.version if before else ""
            item.version, item.info, item.problem = version, adapter.info, ""
            item.bytes = adapter.bytes
            self._items[item.name] = item
            self._items.move_to_end(item.name)
            over = self._over({item.name, *together})
        if old:
            self._engine.remove_adapter(old)
        for other in over:
            self._put_away(other)

    def _over(self, wanted: Collection[str]) -> list[Shelved]:
        """The least recently used that do not fit beside those that are wanted now."""
        loaded = [item for item in self._items.values() if item.version]
        used = sum(item.bytes for item in loaded)
        out = []
        for item in loaded:
            if used <= self._limit:
                break
            if item.name not in wanted:
                used -= item.bytes
                out.append(item)
        return out

    def put_all_away(self) -> None:
        """Give their memory free; each is read again when somebody chooses it."""
        with self._loading:
            for item in self.all():
                self._put_away(item)

    def _put_away(self, item: Shelved) -> None:
        version, item.version = item.version, ""
        if version:
            self._engine.remove_adapter(version)

    def _alpha(self, path: Path) -> float | None:
        """The alpha that was said for a path before."""
        with self._lock:
            known = [item.alpha for item in self._items.values() if item.path == path]
        return next((alpha for alpha in known if alpha is not None), None)

    def _name(self, path: Path, wanted: str) -> str:
        """A name that nothing else has; an adapter that is known by its path keeps its own."""
        with self._lock:
            names = {item.name: item.path for item in self._items.values()}
        known = [name for name, where in names.items() if where == path]
        if known and wanted in ("", known[0]):
            return known[0]
        name = wanted or name_of(path)
        for number in itertools.count(2):
            if names.get(name, path) == path:
                return name
            name = f"{wanted or name_of(path)}-{number}"
        raise AssertionError("numbers end")

    def _unknown(self, name: str) -> BadRequest:
        with self._lock:
            return self._unknown_locked(name)

    def _unknown_locked(self, name: str) -> BadRequest:
        known = ", ".join([BASE, *(f"{BASE}{OF}{other}" for other in self._items)])
        return BadRequest(f"no model {name!r:.200}; available: {known}")


def name_of(path: Path) -> str:
    """What people would call the adapter at a path: the run it came from."""
    parts = [path.stem if path.suffix in (".pt", ".bin", ".safetensors") else path.name]
    for parent in path.parents:
        last = parts[0].lower()
        if not (_STEP.fullmatch(last) or last in _PLAIN or last.endswith("_model")):
            break
        if not parent.name:
            break
        parts.insert(0, parent.name)
    step = next((p for p in parts[1:] if _STEP.fullmatch(p)), "")
    name = f"{parts[0]}-{step.rpartition('-')[2]}" if step else parts[0]
    return re.sub(r"[^\w\-. ]+", "-", name)[:80].strip("- ") or "adapter"
