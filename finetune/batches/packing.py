"""Rows of a window together: packed into bins, or in batches of about one length. No torch.

    bins = pack(lengths, capacity=2048)        # lists of row numbers
    batches = group(lengths, size=8, seed="…")

Both take the lengths of one window, so they need no list of all rows, and both give each row once.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Each row in the fullest bin that has room for it, long rows first: O(n log n) comparisons.

    A row longer than the capacity is alone in its bin.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room, bin), in order
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect_left(rooms, (lengths[row], -1))
        if at < len(rooms):
            room, number = rooms.pop(at)
            bins[number].append(row)
        else:
            room, number = max(capacity, lengths[row]), len(bins)
            bins.append([row])
        insort(rooms, (room - lengths[row], number))
    return bins


def group(lengths: Sequence[int], size: int, seed: str) -> list[list[int]]:
    """Batches of `size` rows of about the same length, in a seeded order; the last may be smaller.

    Rows of one length are shuffled, so that batches differ from epoch to epoch.
    """
    source = random.Random(seed)
    rows = list(range(len(lengths)))
    source.shuffle(rows)
    rows.sort(key=lambda i: lengths[i])
    batches = [rows[at : at + size] for at in range(0, len(rows), size)]
    source.shuffle(batches)
    return batches


def fill(lengths: Sequence[int], bins: Sequence[Sequence[int]], capacity: int) -> float:
    """The share of the bins' room that holds tokens."""
    return sum(lengths) / (capacity * len(bins)) if bins else 1.0
