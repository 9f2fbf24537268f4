"""Rows that stand twice, told from 8 bytes of each row in a temporary file."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator

import numpy as np

from glm.messages import Conversation

_SLICES = 16  # of the values, looked at one after the other
_BLOCK = 1 << 18
EXAMPLES = 20
Pairs = tuple[int, list[tuple[int, int]]]  # how many, and the first of them


class Fingerprints:
    """One number a row; 0 for a row that could not be read."""

    def __init__(self, rows: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        self.values = np.memmap(self._file, np.uint64, mode="w+", shape=max(rows, 1))

    def __setitem__(self, row: int, value: int) -> None:
        self.values[row] = value

    def close(self) -> None:
        del self.values
        self._file.close()

    def repeats(self) -> Pairs:
        """Rows that stand before: (again, first), in the order of the file."""
        count, found = 0, list[tuple[int, int]]()
        for part in range(_SLICES):
            rows = np.concatenate([*self._of_slice(part), np.empty(0, np.int64)])
            rows = rows[np.argsort(self.values[rows], kind="stable")]
            values = self.values[rows]
            again = np.flatnonzero(values[1:] == values[:-1]) + 1
            count += len(again)
            heads = np.searchsorted(values, values[again], side="left")
            pairs = sorted(zip(rows[again].tolist(), rows[heads].tolist(), strict=True))
            found = sorted([*found, *pairs[:EXAMPLES]])[:EXAMPLES]
        return count, found

    def _of_slice(self, part: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self.values), _BLOCK):
            block = np.asarray(self.values[start : start + _BLOCK])
            yield np.flatnonzero((block % _SLICES == part) & (block != 0)) + start

    def found_in(self, other: Fingerprints) -> Pairs:
        """Rows of this that stand in the other, too: (row, row of the other)."""
        rows = np.argsort(self.values, kind="stable")
        values = np.asarray(self.values)[rows]
        where = np.full(len(values), -1, np.int64)
        for start in range(0, len(other.values), _BLOCK):
            block = np.asarray(other.values[start : start + _BLOCK])
            place = np.searchsorted(values, block)
            hit = np.flatnonzero(values[np.minimum(place, len(values) - 1)] == block)
            for at in hit[block[hit] != 0]:
                where[place[at]] = start + at if where[place[at]] < 0 else where[place[at]]
        first = np.searchsorted(values, values, side="left")  # equal rows share their first
        sources = where[first]
        pairs = [(int(r), int(s)) for r, s in zip(rows, sources, strict=True) if s >= 0]
        return len(pairs), sorted(pairs)[:EXAMPLES]


def whole(conversation: Conversation) -> int:
    """The number of all that is said; the words around a row in its file do not count."""
    said = [
        [m.role, m.content, [[call.name, dict(call.arguments), call.text] for call in m.calls]]
        for m in conversation.messages
    ]
    return _number([said, [tool.to_json() for tool in conversation.tools]])


def questions(conversation: Conversation) -> int:
    """The number of what the user says; 0 when the user is silent."""
    asked = [message.content for message in conversation.messages if message.role == "user"]
    return _number(asked) if asked else 0


def _number(value: object) -> int:
    data = json.dumps(value, default=str).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1
