"""One request in flight: the worker writes ids into it, a stream reads them from any thread."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from glm.engines.base import Chunk, ChunkFinish, Request
from glm.messages import Usage
from glm.scheduler.order import CAUSAL, Order
from glm.scheduler.seats import NOBODY, Seat

if TYPE_CHECKING:
    from glm.scheduler.rows import Rows
    from glm.scheduler.sampler import Sampler

MERGE = 0.02  # seconds between two deliveries: waking a reader for each id slows the worker down
TOO_LATE = "the time limit passed before the answer was complete"


class Job:
    """What the worker knows of a request, and the ids on their way to its reader.

    `ids` are the prompt and what was produced; the first `filled` of them are in the cache.
    `limit` is the number of ids that may be produced, `seat` the adapter it computes with.
    """

    def __init__(self, request: Request, sampler: Sampler, limit: int, seat: Seat = NOBODY) -> None:
        self.request, self.sampler, self.limit, self.seat = request, sampler, limit, seat
        self.ids = list(request.prompt)
        self.stop = frozenset(request.stop)
        self.order: Order = CAUSAL
        self.filled = 0
        self.cached = 0
        self.rows: Rows | None = None
        self.started = 0.0
        self.finished = False
        self.abandoned = False
        self.broken = False  # what it computed may be no number, and its cache serves nobody
        self._changed = threading.Condition()
        self._ready: list[int] = []
        self._last: Chunk | None = None
        self._waiting = 0  # readers that wait for ids, not for time to pass
        self._delivered = 0.0

    @property
    def usage(self) -> Usage:
        size = len(self.request.prompt)
        return Usage(prompt=size, cached=self.cached, new=len(self.ids) - size)

    @property
    def width(self) -> int:
        """How many columns of its cache are filled: those of a prefix stand before the ids."""
        return self.filled + self.seat.offset

    def accept(self, id: int) -> bool:
        """Take a new id; True when the answer goes on after it."""
        with self._changed:
            if self.finished:
                return False
            self.ids.append(id)
            self._ready.append(id)
            finish: ChunkFinish | None = None
            if id in self.stop:
                finish = "stop"
            elif len(self.ids) - len(self.request.prompt) >= self.limit:
                finish = "length"
            if finish is not None:
                self._finish(finish, "")
            elif self._waiting:
                self._changed.notify_all()
            return finish is None

    def finish(self, finish: ChunkFinish, error: str = "") -> None:
        """End the answer, once; later calls change nothing."""
        with self._changed:
            if not self.finished:
                self._finish(finish, error)

    def _finish(self, finish: ChunkFinish, error: str) -> None:
        self.finished = True
        self._last = Chunk(finish=finish, error=error)
        self._changed.notify_all()

    def cancel(self) -> None:
        """The reader wants no more; the worker lets go before its next step."""
        self.abandoned = True
        self.finish("cancelled")

    def abandon(self) -> None:
        """`cancel` without a lock, for a reader that was garbage collected."""
        self.abandoned = True

    @property
    def unwanted(self) -> bool:
        """True when nothing more is to be computed."""
        return self.finished or self.abandoned or self._late()

    def _late(self) -> bool:
        deadline = self.request.deadline
        return deadline is not None and monotonic() >= deadline

    def let_go(self) -> None:
        """End an unwanted job."""
        self.finish("cancelled", TOO_LATE if self._late() and not self.abandoned else "")

    def read(self, timeout: float | None) -> list[Chunk]:
        """What `Stream.next` returns; ids that follow each other closely come together."""
        end = None if timeout is None else monotonic() + timeout
        with self._changed:
            rest = self._delivered + MERGE - monotonic()
            if rest > 0 and not self.finished:
                self._changed.wait_for(lambda: self.finished, _sooner(rest, timeout))
            if not self._ready and not self.finished:
                self._waiting += 1
                left = None if end is None else end - monotonic()
                self._changed.wait_for(lambda: self._ready or self.finished, left)
                self._waiting -= 1
            ids, self._ready = tuple(self._ready), []
            last, self._last = self._last, None
            if ids:
                self._delivered = monotonic()
        if last is not None:
            return [Chunk(ids, last.finish, last.error)]
        return [Chunk(ids)] if ids else []


def _sooner(seconds: float, timeout: float | None) -> float:
    return seconds if timeout is None else min(seconds, timeout)
