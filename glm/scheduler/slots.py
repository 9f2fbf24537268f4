"""Who has which cache: prompts being read, rows that answer, and answers kept for the next turn.

A job has a cache of its own while its prompt is computed and a row of the common batch while it
answers. Afterwards the cache is kept, so that the next turn of a conversation computes only what
is new; live and kept together are at most `count`, the least recently used are dropped. A cache in
use is only ever copied from. Not thread-safe: only the worker of the scheduler is in here.

Lengths are of ids; the cache of a job whose adapter has a prefix is longer by that (`seat.offset`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from glm.scheduler.job import Job
from glm.scheduler.rows import Rows
from glm.scheduler.seats import JOIN


class Kept:
    """The cache of ids that were computed under an adapter and are not in use now."""

    def __init__(self, adapter: str | None, ids: list[int], rows: Rows) -> None:
        self.adapter, self.ids, self.rows = adapter, ids, rows

    @property
    def versions(self) -> list[str]:
        return (self.adapter or "").split(JOIN)


class Slots:
    """`prefilling` jobs in turn, `decoding` jobs (job i has row i of `batch`), and kept caches."""

    def __init__(self, count: int, reuse: bool = True) -> None:
        self.count, self.reuse = count, reuse
        self.prefilling: deque[Job] = deque()
        self.decoding: list[Job] = []
        self.batch = Rows()
        self._kept: list[Kept] = []  # the least recently used first

    @property
    def jobs(self) -> list[Job]:
        return [*self.prefilling, *self.decoding]

    @property
    def free(self) -> int:
        return self.count - len(self.prefilling) - len(self.decoding)

    # ---- the way of a job ----------------------------------------------------------------

    def open(self, job: Job) -> Rows:
        """Give a job its cache, begun with what another one shares; the last id is always new."""
        rows, length = self._shared(job) if self.reuse else (Rows(), 0)
        if job.seat.prefix is not None and not length:
            rows.begin(job.seat.prefix.keys, job.seat.prefix.values)
        job.rows, job.filled, job.cached = rows, length, length
        self._trim()
        return rows

    def join(self, job: Job) -> None:
        """Move a job whose prompt is computed into the batch."""
        rows, row = job.rows, len(self.decoding)
        if rows is None:
            raise ValueError("the job has no cache")
        if row == 0:
            self.batch = rows
        else:
            if self.batch.count <= row:
                self.batch.reserve(min(2 * row, self.count), job.width)
            self.batch.put(row, rows, 0, job.width)
        job.rows = None
        self.prefilling.remove(job)
        self.decoding.append(job)

    def leave(self, job: Job) -> None:
        """Free a job's slot and keep its cache."""
        if job in self.prefilling:
            self.prefilling.remove(job)
            rows, job.rows = job.rows, None
        else:
            row = self.decoding.index(job)
            if job.broken:
                self.batch.clear(row)
            rows = self._take_row(row, job.width)
        if rows is not None and job.filled and self.reuse and not job.broken:
            self._keep(Kept(job.request.adapter, job.ids[: job.filled], rows))
            self._trim()

    def drop(self, jobs: Collection[Job]) -> None:
        """Free the slots of jobs whose step failed; the batch it ran on is not used again."""
        for job in jobs:
            job.rows = None
            if job in self.prefilling:
                self.prefilling.remove(job)
        if any(job in jobs for job in self.decoding):
            self.decoding.clear()
            self.batch = Rows()

    def forget(self, adapter: str | None = None) -> int:
        """Drop every kept cache, or those of an adapter; how many there were."""
        count = len(self._kept)
        self._kept = [k for k in self._kept if adapter and adapter not in k.versions]
        return count - len(self._kept)

    # ---- rows and kept caches ------------------------------------------------------------

    def _take_row(self, row: int, length: int) -> Rows:
        """Take a row out of the batch; the last row moves into the gap."""
        batch, last = self.batch, len(self.decoding) - 1
        rows = batch if last == 0 and batch.count == 1 else batch.copy(row, length)
        if last == 0:
            self.batch = Rows()
        elif row != last:
            batch.put(row, batch, last, self.decoding[last].width)
            self.decoding[row] = self.decoding[last]
        self.decoding.pop()
        return rows

    def _shared(self, job: Job) -> tuple[Rows, int]:
        """A cache with the longest beginning that a kept or a busy one has in common with a job."""
        most, kept, busy = 0, None, None
        for one in self._kept:
            if one.adapter == job.request.adapter:
                same = job.order.usable(common(one.ids, job.ids))
                if same > most:
                    most, kept = same, one
        for other in self.jobs:
            if other is not job and other.request.adapter == job.request.adapter:
                same = job.order.usable(min(common(other.ids, job.ids), other.filled))
                if same > most:
                    most, busy = same, other
        length = min(most, len(job.ids) - 1)
        width = length + job.seat.offset
        rows = Rows()
        if length and busy is not None:
            if busy.rows is not None:
                rows.put(0, busy.rows, 0, width)
            else:
                rows.put(0, self.batch, self.decoding.index(busy), width)
        elif length and kept is not None:
            self._kept.remove(kept)
            if self._better_taken(kept, length):
                return kept.rows, length
            rows.put(0, kept.rows, 0, width)
            self._kept.append(kept)
        return rows, length

    def _better_taken(self, kept: Kept, length: int) -> bool:
        """Whether writing on a kept cache loses less than copying it, which may cost a slot."""
        lost = len(kept.ids) - length
        if lost <= 1:
            return True
        full = self._live + 2 + len(self._kept) > self.count
        return full and (not self._kept or lost <= len(self._kept[0].ids))

    def _keep(self, new: Kept) -> None:
        """Keep a cache; those that are only a beginning of it are dropped."""
        self._kept = [
            old
            for old in self._kept
            if old.adapter != new.adapter or common(old.ids, new.ids) < len(old.ids)
        ]
        self._kept.append(new)

    @property
    def _live(self) -> int:
        return len(self.decoding) + sum(job.rows is not None for job in self.prefilling)

    def _trim(self) -> None:
        over = self._live + len(self._kept) - self.count
        del self._kept[: max(0, over)]


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids two sequences of one type share at their beginning."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
