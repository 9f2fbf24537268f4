"""Who may look at whom, and where a token stands: what a model is told beside the ids.

`Causal` is every model but one. ChatGLM-6B (v1) reads its prompt in both directions and counts in
two dimensions, so its prompt is computed in one piece and a cache of it holds for that prompt
only. Columns are places in the cache; a prefix of `offset` columns stands before the first id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch


class Order(Protocol):
    """`whole`: a prompt is computed at once."""

    whole: bool

    def positions(self, ids: Sequence[int], start: int, stop: int) -> torch.Tensor:
        """Where the ids from start to stop stand: (T,), or (2, T)."""

    def hidden(
        self, ids: Sequence[int], columns: tuple[int, int], offset: int
    ) -> torch.Tensor | None:
        """What the ids in `columns` (first, after the last) may not look at: (T, columns[1]).

        None where it is nothing beyond the model's own causal order.
        """

    def usable(self, ids: Sequence[int], same: int) -> int:
        """How much holds for a prompt of a cache whose first `same` ids are its own."""


class Causal:
    """Every token sees those before it; positions count from 0."""

    whole = False

    def positions(self, ids: Sequence[int], start: int, stop: int) -> torch.Tensor:
        return torch.arange(start, stop)

    def hidden(
        self, ids: Sequence[int], columns: tuple[int, int], offset: int
    ) -> torch.Tensor | None:
        first, last = columns
        if not first or last - first == 1:
            return None
        return torch.arange(last) > torch.arange(first, last)[:, None]

    def usable(self, ids: Sequence[int], same: int) -> int:
        return same


class TwoDimensional:
    """ChatGLM-6B (THUDM/chatglm-6b, modeling_chatglm.py: get_masks, get_position_ids).

    The context, all before <sop>, is seen by every token. There the first position counts, the
    second is 0; from <sop> on the first is that of [gMASK] (or [MASK]), the second counts from 1.
    """

    whole = True

    def __init__(self, config: Any) -> None:
        self._start = config.bos_token_id
        self._masks = (config.gmask_token_id, config.mask_token_id)

    def positions(self, ids: Sequence[int], start: int, stop: int) -> torch.Tensor:
        context, mask = self._context(ids), self._mask(ids)
        places = torch.arange(start, stop)
        inside = places < context
        first = torch.where(inside, places, mask)
        return torch.stack((first, (places - context + 1).clamp(min=0)))

    def hidden(
        self, ids: Sequence[int], columns: tuple[int, int], offset: int
    ) -> torch.Tensor | None:
        first, last = columns
        if last - first == 1:
            return None
        seen = torch.arange(last)
        after = seen > torch.arange(first, last)[:, None]
        return after & (seen >= offset + self._context(ids))

    def usable(self, ids: Sequence[int], same: int) -> int:
        return same if same > self._context(ids) else 0

    def _context(self, ids: Sequence[int]) -> int:
        return ids.index(self._start) if self._start in ids else len(ids)

    def _mask(self, ids: Sequence[int]) -> int:
        return next((ids.index(mask) for mask in self._masks if mask in ids), 0)


def order_of(model: Any) -> Order:
    """How a model orders its tokens."""
    return TwoDimensional(model.config) if hasattr(model.config, "gmask_token_id") else Causal()
