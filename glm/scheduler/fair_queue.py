"""A bounded queue that is fair between owners: first in, first out within one, taken in turns.

Not thread-safe; the scheduler holds its lock. Standard library only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Waiting things by owner."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, owner: str, item: T) -> None:
        self._owners.setdefault(owner, deque()).append(item)
        self._count += 1

    def pop(self) -> T:
        """The oldest item of the owner whose turn it is; then it is the next owner's turn."""
        owner, items = self._owners.popitem(last=False)
        item = items.popleft()
        self._count -= 1
        if items:
            self._owners[owner] = items
        return item

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out and return every item that `unwanted` is true of."""
        out = [item for items in self._owners.values() for item in items if unwanted(item)]
        if out:
            gone = set(map(id, out))
            for owner, items in list(self._owners.items()):
                left = deque(item for item in items if id(item) not in gone)
                if left:
                    self._owners[owner] = left
                else:
                    del self._owners[owner]
            self._count -= len(out)
        return out
