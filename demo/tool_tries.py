"""The tools that somebody tries by hand now, so that Stop and a closed tab end the right one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from glm.cancel import Cancel

Key = tuple[str, str]  # of a visitor: user and browser tab


class Tries:
    """One for the program. Thread-safe."""

    def __init__(self) -> None:
        self._running: dict[tuple[Key, str], Cancel] = {}
        self._lock = threading.Lock()

    @contextmanager
    def begin(self, key: Key, name: str) -> Iterator[Cancel]:
        """The order to end this try; the tab's try of the same tool before it ends now."""
        cancel = Cancel()
        with self._lock:
            before = self._running.get((key, name))
            self._running[key, name] = cancel
        if before is not None:
            before.set()
        try:
            yield cancel
        finally:
            with self._lock:
                if self._running.get((key, name)) is cancel:
                    del self._running[key, name]

    def stop(self, key: Key, name: str = "") -> None:
        """End the tab's try of this tool; without a name all of the tab."""
        with self._lock:
            found = [
                cancel
                for (whose, tool), cancel in self._running.items()
                if whose == key and name in ("", tool)
            ]
        for cancel in found:
            cancel.set()
