"""Rows to tensors: padded left or right, or packed so that rows of a line do not see each other.

A packed batch has positions that begin again with each row and no attention mask, and the model has
to be called with use_cache=False: only then do the models of the library keep rows apart (with a
mask or a cache they mix them, without a word). Flash attention finds rows in a single line only:
`flat`. ChatGLM-6B (v1) has two positions a column, from which its model tells the rows. The first
token of a row is never a label: nothing of its own row stands before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from finetune.layouts.example import NOT_LEARNT, Example
from glm.models.chatglm1_positions import layout

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Row:
    """An example as arrays, which take a tenth of the memory of its tuples."""

    ids: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, example: Example) -> Row:
        labels = np.array(example.labels, dtype=np.int32)
        labels[:1] = NOT_LEARNT
        return cls(np.array(example.ids, dtype=np.int32), labels)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Collator:
    """`pad` fills up, at `side`, to a multiple; `v1` is the config of a ChatGLM-6B (v1)."""

    pad: int = 0
    side: Literal["left", "right"] = "right"
    v1: Any = None
    multiple: int = 1
    flat: bool = False

    def padded(self, rows: Sequence[Row]) -> Batch:
        """input_ids, labels, attention_mask (B, T), position_ids (B, T) or (B, 2, T)."""
        batch = self._empty(len(rows), max(map(len, rows)))
        mask = torch.zeros_like(batch["input_ids"])
        width = mask.shape[1]
        for line, row in enumerate(rows):
            start = width - len(row) if self.side == "left" else 0
            self._put(batch, line, start, row)
            mask[line, start : start + len(row)] = 1
        return {**batch, "attention_mask": mask}

    def packed(self, bins: Sequence[Sequence[Row]]) -> Batch:
        """input_ids, labels (B, T), position_ids (B, T) or (B, 2, T): a line holds many rows."""
        if self.flat:
            bins = [list(itertools.chain.from_iterable(bins))]
        batch = self._empty(len(bins), max(sum(map(len, rows)) for rows in bins))
        for line, rows in enumerate(bins):
            start = 0
            for row in rows:
                self._put(batch, line, start, row)
                start += len(row)
        return batch

    def _empty(self, lines: int, width: int) -> Batch:
        """Padding; each column of it stands at position 0, so it is a row of its own."""
        width = -(-width // self.multiple) * self.multiple
        positions = (lines, width) if self.v1 is None else (lines, 2, width)
        return {
            "input_ids": torch.full((lines, width), self.pad),
            "labels": torch.full((lines, width), NOT_LEARNT),
            "position_ids": torch.zeros(positions, dtype=torch.long),
        }

    def _put(self, batch: Batch, line: int, start: int, row: Row) -> None:
        at = slice(start, start + len(row))
        batch["input_ids"][line, at] = torch.from_numpy(row.ids).long()
        batch["labels"][line, at] = torch.from_numpy(row.labels).long()
        if self.v1 is None:
            positions = torch.arange(len(row))
        else:
            positions = layout(row.ids.tolist(), self.v1).positions(0, len(row))
        batch["position_ids"][line, ..., at] = positions


def idle(batch: Batch) -> Batch:
    """The batch with nothing to learn: a step for a process that has none while others do."""
    return {**batch, "labels": torch.full_like(batch["labels"], NOT_LEARNT)}
