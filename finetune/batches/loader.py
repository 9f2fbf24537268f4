"""Batches of one process, epoch after epoch, with a state to stop and go on from.

    loader = Loader(stream, Part(rank, world), workers=1)
    for batch in loader: ...                            # the rest of an epoch; again: the next
    saved = loader.state_dict()                         # after the batch that came last
    loader.load_state_dict(saved)                       # the same batches from there on

All processes get the same number of batches: where they do not divide, the last step has nothing to
learn in some. With workers the state is still that of the batch that came last, not of those
made ahead. It is plain numbers and holds for any number of processes and workers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch.utils.data import DataLoader

from finetune.batches.collate import Batch
from finetune.batches.tally import Tally
from finetune.data import Epoch, Part, Place, Stream
from glm.errors import BadRequest

VERSION = 1


class Loader:
    """Iterate for one epoch, or for what is left of `epochs`: a step of many batches then never
    ends with an epoch. `place` says where it is, `tally` what became of the epoch's rows.
    """

    def __init__(
        self,
        stream: Stream,
        part: Part | None = None,
        workers: int = 0,
        epochs: int | None = None,
    ) -> None:
        self.stream, self.part = stream, part or Part()
        self.workers, self.epochs = workers, epochs
        self.place = Place()
        self.tally = Tally()

    def __iter__(self) -> Iterator[Batch]:
        """Raises BadRequest at the end of an epoch in which no row could be trained on."""
        last = self.place.epoch + 1 if self.epochs is None else self.epochs
        while self.place.epoch < last:
            yield from self._epoch()

    def _epoch(self) -> Iterator[Batch]:
        start = self.place
        for batch, place in self._read(Epoch(self.stream, self.part, start)):
            self.place, self.tally = place, place.tally
            yield batch
        if not self.place.next:
            self.tally = self.stream.survey(self.stream.order.rows).tally
            raise BadRequest("; ".join(["no row can be trained on", *self.tally.lines()[1:]]))
        self.place = Place(start.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        place = self.place
        return {
            "version": VERSION,
            "data": fingerprint(self.stream),
            "epoch": place.epoch,
            "window": place.window,
            "first": place.first,
            "next": place.next,
            "before": place.before.to_json(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises BadRequest, naming what differs, for the state of other data or settings."""
        known, now = state["data"], fingerprint(self.stream)
        wrong = [f"{k} was {known.get(k)}, is {now[k]}" for k in now if known.get(k) != now[k]]
        if wrong:
            raise BadRequest(f"not the data this run began with: {'; '.join(wrong)}")
        before = Tally.from_json(state["before"])
        numbers = {name: int(state[name]) for name in ("epoch", "window", "first", "next")}
        self.place = Place(**numbers, before=before, tally=before)

    def _read(self, epoch: Epoch) -> Iterable[tuple[Batch, Place]]:
        if not self.workers:
            return epoch
        return DataLoader(
            epoch, batch_size=None, num_workers=self.workers, worker_init_fn=_leave_stopping
        )


def _leave_stopping(worker: int) -> None:
    """A stop that reaches a whole group of processes is the trainer's business: it finishes the
    step, for which it needs its workers, and ends them itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def fingerprint(stream: Stream) -> dict[str, Any]:
    """What the order of the batches depends on, but for the rows themselves."""
    plan = asdict(stream.plan)
    plan.pop("collator")
    shares = [[share.rows, share.weight] for share in stream.order.shares]
    return {"sources": shares, **plan}
