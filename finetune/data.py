"""The training stream: rows to batches, lazily, in an order that a stopped run takes up again.

    stream = Stream([Source(rows)], partial(layout.encode, dialect=dialect, limits=limits), plan)
    loader = Loader(stream, Part(rank, world), workers=1)       # finetune/batches/loader.py

`rows` is anything with len() and [i] -> Conversation. A window of a few thousand rows is read,
tokenised and packed or grouped at a time; nothing grows with the file. The sequence of batches
depends on the seed alone: batch g of an epoch belongs to process g % world, so two processes see
what one sees in two steps, and a state resumes with another number of processes.
The price: each process, and each worker of it, tokenises all rows (about a million tokens a
second), which is too slow only beyond some fifty GPUs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch.utils.data import IterableDataset, get_worker_info

from finetune.batches.collate import Batch, Collator, Row, idle
from finetune.batches.order import WINDOW, Order, Share
from finetune.batches.packing import group, pack
from finetune.batches.tally import Tally
from finetune.layouts import Example, Skipped
from glm.errors import GlmError
from glm.messages import Conversation

Encode = Callable[[Conversation], Example | Skipped]


class Rows(Protocol):
    """A file of rows, or anything like it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Conversation: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Rows; an epoch takes `weight` times as many (finetune/batches/order.py)."""

    rows: Rows
    weight: float = 1.0
    name: str = "the data"


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows become batches: `size` rows a batch, or with `packing` as many lines of `capacity`
    tokens; without packing `grouping` puts rows of about the same length together.
    """

    size: int = 1
    packing: bool = False
    grouping: bool = True
    capacity: int = 2048
    seed: int = 0
    window: int = WINDOW
    shuffle: bool = True
    collator: Collator = field(default_factory=Collator)


@dataclass(frozen=True, slots=True)
class Part:
    """Which of the processes that train together this is."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where an epoch stands: `next` is the batch to come, of all processes. It is in the window
    `window` or after it; `first` is that window's first batch, `before` counts what came before
    it and `tally` what came up to its end.
    """

    epoch: int = 0
    window: int = 0
    first: int = 0
    next: int = 0
    before: Tally = field(default_factory=Tally)
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Survey:
    """Of one epoch, from the rows of its first windows: exact when they were all."""

    tally: Tally
    batches: int
    rows: int

    @property
    def exact(self) -> bool:
        return self.tally.rows == self.rows

    @property
    def batches_of_an_epoch(self) -> int:
        """How many batches all processes together get, about."""
        return round(self.batches * self.rows / self.tally.rows) if self.tally.rows else 0


class Stream:
    """All batches of all epochs, as they depend on the sources, `encode` and the plan alone."""

    def __init__(self, sources: Sequence[Source], encode: Encode, plan: Plan) -> None:
        self.sources, self.encode, self.plan = tuple(sources), encode, plan
        shares = [Share(len(source.rows), source.weight) for source in sources]
        self.order = Order(shares, plan.seed, plan.window, plan.shuffle)

    def window(self, epoch: int, number: int) -> tuple[list[list[Any]], Tally]:
        """The batches of a window, each a list of rows or of bins, and what became of its rows."""
        tally = Tally()
        rows = [
            Row.of(made)
            for source, row in self.order.window(epoch, number)
            if (made := self._example(self.sources[source], row, tally)) is not None
        ]
        plan, lengths, seed = self.plan, [len(row) for row in rows], f"{self.plan.seed} {epoch}"
        if plan.packing:
            bins = pack(lengths, plan.capacity)
            if plan.shuffle:
                random.Random(f"bins {seed} {number}").shuffle(bins)
            packed = [[rows[i] for i in found] for found in bins]
            return [packed[i : i + plan.size] for i in range(0, len(bins), plan.size)], tally
        if plan.grouping and plan.shuffle:
            batches = group(lengths, plan.size, f"group {seed} {number}")
            return [[rows[i] for i in found] for found in batches], tally
        return [rows[i : i + plan.size] for i in range(0, len(rows), plan.size)], tally

    def tensors(self, rows: list[Any]) -> Batch:
        """A batch of `window` as the model takes it."""
        collator = self.plan.collator
        return collator.packed(rows) if self.plan.packing else collator.padded(rows)

    def survey(self, most: int = 4096) -> Survey:
        """What the first rows are like: a few windows, no more than about `most` rows."""
        tally, batches = Tally(), 0
        for number in range(self.order.windows):
            found, counted = self.window(0, number)
            tally, batches = tally.add(counted), batches + len(found)
            if tally.rows >= most:
                break
        return Survey(tally, batches, self.order.rows)

    def _example(self, source: Source, row: int, tally: Tally) -> Example | None:
        try:
            made = self.encode(source.rows[row])
        except GlmError as error:
            tally.cannot_read(str(error))
            return None
        except Exception as error:
            error.add_note(f"in row {row + 1} of {source.name}")
            raise
        if isinstance(made, Skipped):
            tally.skip(made.reason)
            return None
        tally.use(len(made.ids), made.learnt, made.cut)
        return made


class Epoch(IterableDataset[tuple[Batch, Place]]):
    """The rest of an epoch for one process: each batch with the place after it."""

    def __init__(self, stream: Stream, part: Part, place: Place) -> None:
        self.stream, self.part, self.place = stream, part, place

    def __iter__(self) -> Iterator[tuple[Batch, Place]]:
        """In a worker process, its share of them: the workers take turns."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        rank, world = self.part.rank, self.part.world
        start, last, place = self.place.next, [], self.place
        count = start
        for number, rows, place in self._batches():
            step, turn = divmod(number - start, world)
            count, last = number + 1, rows
            if turn == rank and step % workers == worker:
                yield self.stream.tensors(rows), replace(place, next=start + (step + 1) * world)
        steps, over = divmod(count - start, world)
        if over and rank >= over and steps % workers == worker:
            yield idle(self.stream.tensors(last)), replace(place, next=start + (steps + 1) * world)

    def _batches(self) -> Iterator[tuple[int, list[Any], Place]]:
        """The batches of all processes from the place on, with their numbers and windows."""
        number, before = self.place.first, self.place.before
        for window in range(self.place.window, self.stream.order.windows):
            batches, counted = self.stream.window(self.place.epoch, window)
            tally = before.add(counted)
            here = Place(self.place.epoch, window, number, 0, before, tally)
            for rows in batches:
                if number >= self.place.next:
                    yield number, rows, here
                number += 1
            before = tally
