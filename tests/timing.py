"""How long something takes, told apart from what else this machine does meanwhile."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENOUGH, ROUNDS = 2.3, 8


def growth(short: Callable[[], object], long: Callable[[], object]) -> float:
    """Least CPU time of the long run over that of the short one, tried in turns.

    Linear is 2 and quadratic 4; three turns tell them apart, and noise gets a few more.
    """
    least = [1e9, 1e9]
    with no_collection():
        for turn in range(ROUNDS):
            if turn > 2 and least[1] < ENOUGH * least[0]:
                break
            for which, run in enumerate((short, long)):
                start = time.thread_time()
                run()
                least[which] = min(least[which], time.thread_time() - start)
    return least[1] / least[0]


@contextmanager
def no_collection() -> Iterator[None]:
    """As timeit does: a collection looks at everything the other tests left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
