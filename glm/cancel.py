"""The order to end a call of a tool, which the loop gives and tools obey.

It ends nothing by itself: a tool asks it, or registers what is to happen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Cancel:
    """The order to end a call now, with all it has started. Thread-safe; once set it stays set."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []

    def set(self) -> None:
        """Give the order; the callbacks have run when this returns. Later calls change nothing."""
        with self._lock:
            self._set.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # the border of a tool: the others must end too
                _log.exception("a tool could not be ended")

    def is_set(self) -> bool:
        return self._set.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until the order comes; False when `timeout` seconds passed before."""
        return self._set.wait(timeout)

    def on_set(self, callback: Callable[[], object]) -> None:
        """Call this with the order, e.g. to kill a process; at once when it came already."""
        with self._lock:
            if not self._set.is_set():
                self._callbacks.append(callback)
                return
        callback()
