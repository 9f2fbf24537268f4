"""Keys and values of rows of ids: the cache that the model writes into.

`Rows` has the few methods of transformers' Cache that the models call.
"""

from __future__ import annotations

from typing import Any

import torch

BLOCK = 256  # positions are allocated in multiples of this


class Rows:
    """The cache of `count` rows that are computed together, one (count, heads, L, D) pair a layer.

    Grows when `reserve` asks for it. Before each forward call `one` or `all` says what is written.
    Fresh memory is zeroed: a masked NaN would still reach the sum.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._size = (1, BLOCK)
        self._row, self._rows = 0, 1
        self._start, self._stop = 0, 0
        self._where: tuple[torch.Tensor, torch.Tensor] | None = None

    def reserve(self, count: int, length: int) -> None:
        """Make room for `count` rows of `length` positions; what is there stays."""
        rows, positions = self._size
        if count > rows or length > positions:
            self._size = max(count, rows), max(-(-length // BLOCK) * BLOCK, positions)
        size = self._size
        for held in (self.keys, self.values):
            if held and (held[-1].shape[0], held[-1].shape[2]) != size:  # the last to be replaced
                for i, old in enumerate(held):
                    held[i] = self._room(old)
                    held[i][: old.shape[0], :, : old.shape[2]] = old

    def _room(self, like: torch.Tensor) -> torch.Tensor:
        count, length = self._size
        shape = (count, like.shape[1], length, like.shape[3])
        return torch.zeros(shape, dtype=like.dtype, device=like.device)

    def one(self, row: int, start: int, stop: int) -> Rows:
        """The next call computes positions start..stop of one row."""
        self._row, self._rows, self._start, self._stop = row, 1, start, stop
        self._where = None
        return self

    def all(self, positions: torch.Tensor, stop: int) -> Rows:
        """The next call computes one position of each of the first rows: `positions` (B,)."""
        self._row, self._rows, self._start, self._stop = (
            0,
            len(positions),
            stop - 1,
            stop,
        )
        self._where = torch.arange(len(positions), device=positions.device), positions
        return self

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what was computed (B, heads, T, D), return everything up to the last position."""
        if layer == len(self.keys):
            self.keys.append(self._room(keys))
            self.values.append(self._room(values))
        elif self.keys[layer].device != keys.device:  # begun where the first layer is
            self.keys[layer] = self.keys[layer].to(keys.device)
            self.values[layer] = self.values[layer].to(keys.device)
        rows, stop = slice(self._row, self._row + self._rows), self._stop
        out = []
        for held, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if self._where is None:
                held[rows, :, self._start : stop] = new
            else:
                row, column = (index.to(held.device) for index in self._where)
                held[row, :, column] = new[:, :, 0]
            out.append(held[rows, :, :stop])
        return out[0], out[1]

    def get_seq_length(self, *_: Any) -> int:
        return self._start

    def get_query_offset(self, *_: Any) -> int:
        return self._start

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        return self._stop, 0

    def begin(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Let a fresh row start with these columns: (layers, heads, columns, D) each."""
        self.reserve(1, keys.shape[2])
        for held, given in ((self.keys, keys), (self.values, values)):
            for layer in given:
                held.append(self._room(layer[None]))
                held[-1][0, :, : layer.shape[1]] = layer

    def put(self, row: int, other: Rows, other_row: int, length: int) -> None:
        """Copy `length` positions of a row of `other` (this one may be meant) into `row`."""
        self.reserve(row + 1, length)
        pairs = ((self.keys, other.keys), (self.values, other.values))
        for mine, theirs in pairs:
            for layer, source in enumerate(theirs):
                if layer == len(mine):
                    mine.append(self._room(source))
                mine[layer][row, :, :length] = source[other_row, :, :length]

    def clear(self, row: int) -> None:
        """Zero a row that may hold NaN: who has it next sees its rest through a mask."""
        for layer in (*self.keys, *self.values):
            layer[row].zero_()

    def copy(self, row: int, length: int) -> Rows:
        """A cache of its own with `length` positions of one row."""
        out = Rows()
        out.put(0, self, row, length)
        return out

    @property
    def count(self) -> int:
        """How many rows have room."""
        return self._size[0]
