"""A time limit that gives the order to end a call.

A tool that cannot be trusted to end runs in a child process (`tools/process.py`), which registers
its killing with the order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from glm.cancel import Cancel


class Limited(Cancel):
    """Set by another cancel or by a time limit; `late` tells that it was the time."""

    late = False

    def expire(self) -> None:
        """The time is over."""
        if not self.is_set():
            self.late = True
            self.set()


@contextmanager
def limited(seconds: float, cancel: Cancel | None = None) -> Iterator[Limited]:
    """A cancel that is set with `cancel`, and after `seconds` while the block runs."""
    both = Limited()
    if cancel is not None:
        cancel.on_set(both.set)
    timer = threading.Timer(seconds, both.expire)
    timer.daemon = True
    timer.start()
    try:
        yield both
    finally:
        timer.cancel()
