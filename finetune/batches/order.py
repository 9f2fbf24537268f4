"""The order of the rows of an epoch: mixed, seeded, known at any point without a list. No torch.

    order = Order([Share(len(news)), Share(len(tools), weight=0.5)], seed=1)
    for source, row in order.window(epoch=0, number=7): ...

Blocks of consecutive rows come in a random order, so that a file is read in stretches; the rows of
a window, a few thousand from many blocks and all sources, are shuffled. A window is made from its
number alone: nothing grows with the rows but one number a block, and a run resumes anywhere.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

BLOCK, WINDOW = 64, 2048


@dataclass(frozen=True, slots=True)
class Share:
    """A source of so many rows. An epoch takes `weight` times as many: 0.5 the one half and the
    next epoch the other, 2 each row twice.
    """

    rows: int
    weight: float = 1.0

    @property
    def taken(self) -> int:
        """How many rows an epoch takes."""
        return round(self.rows * self.weight)


class Order:
    """The rows of every epoch. `shuffle` False keeps them as they are, source after source."""

    def __init__(
        self, shares: Sequence[Share], seed: int = 0, window: int = WINDOW, shuffle: bool = True
    ) -> None:
        self.shares, self.seed, self.size, self.shuffle = tuple(shares), seed, window, shuffle
        self.taken = tuple(share.taken for share in shares)
        self.rows = sum(self.taken)
        self.windows = math.ceil(self.rows / window)
        self._blocks: dict[tuple[int, int], tuple[array[int], int]] = {}

    def window(self, epoch: int, number: int) -> list[tuple[int, int]]:
        """(source, row) of the `number`th window of an epoch."""
        start, stop = number * self.size, min((number + 1) * self.size, self.rows)
        first, last = self._places(start), self._places(stop)
        out = [
            (source, self._row(source, epoch, place))
            for source in range(len(self.shares))
            for place in range(first[source], last[source])
        ]
        if self.shuffle:
            random.Random(f"window {self.seed} {epoch} {number}").shuffle(out)
        return out

    def _places(self, position: int) -> list[int]:
        """How many rows of each source stand before a position; even throughout the epoch."""
        left, out = position, []
        rest = self.rows
        for taken in self.taken:
            if self.shuffle:
                here = left * taken // rest if rest else 0
            else:
                here = min(left, taken)
            out.append(here)
            left, rest = left - here, rest - taken
        return out

    def _row(self, source: int, epoch: int, place: int) -> int:
        """The row at a place of a source's own order, which goes on from epoch to epoch."""
        share = self.shares[source]
        turn, place = divmod(epoch * self.taken[source] + place, share.rows)
        if not self.shuffle:
            return place
        blocks, short = self._order_of_blocks(source, turn)
        missing = -share.rows % BLOCK  # from the last block of the file, which may stand anywhere
        if place >= (short + 1) * BLOCK - missing:
            place += missing
        return blocks[place // BLOCK] * BLOCK + place % BLOCK

    def _order_of_blocks(self, source: int, turn: int) -> tuple[array[int], int]:
        """The blocks of a source in the order of one turn, and where the last of them stands."""
        key = (source, turn)
        if key not in self._blocks:
            if len(self._blocks) > 2 * len(self.shares):
                self._blocks.clear()
            blocks = array("Q", range(math.ceil(self.shares[source].rows / BLOCK)))
            random.Random(f"blocks {self.seed} {source} {turn}").shuffle(blocks)
            self._blocks[key] = blocks, blocks.index(len(blocks) - 1)
        return self._blocks[key]
