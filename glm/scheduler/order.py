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
    """That of one prompt and its answer. `whole`: the prompt is computed at once."""

    whole: bool

    def positions(self, start: int, stop: int) -> torch.Tensor:
        """Where the ids from start to stop stand: (T,), or (2, T)."""

    def hidden(self, start: int, stop: int, offset: int) -> torch.Tensor | None:
        """What these ids may not look at (T, offset + stop).

        None where that is nothing beyond the model's own causal order.
        """

    def usable(self, same: int) -> int:
        """How much holds for this prompt of a cache that begins with `same` of its ids."""


class Causal:
    """Every token sees those before it; positions count from 0."""

    whole = False

    def positions(self, start: int, stop: int) -> torch.Tensor:
        return torch.arange(start, stop)

    def hidden(self, start: int, stop: int, offset: int) -> torch.Tensor | None:
        if stop - start == 1 or not start + offset:
            return None
        columns = torch.arange(offset + stop)
        return columns > columns[offset + start :, None]

    def usable(self, same: int) -> int:
        return same


class TwoDimensional:
    """ChatGLM-6B; the rules are in `glm/models/chatglm1_positions.py`."""

    whole = True

    def __init__(self, prompt: Sequence[int], config: Any) -> None:
        from glm.models.chatglm1_positions import layout

        self._layout = layout(prompt, config)

    def positions(self, start: int, stop: int) -> torch.Tensor:
        return self._layout.positions(start, stop)

    def hidden(self, start: int, stop: int, offset: int) -> torch.Tensor | None:
        return None if stop - start == 1 else ~self._layout.visible(start, stop, offset)

    def usable(self, same: int) -> int:
        return same if same > self._layout.context else 0


CAUSAL = Causal()


def order_of(config: Any, prompt: Sequence[int]) -> Order:
    """How a model of this config orders a prompt."""
    return TwoDimensional(prompt, config) if hasattr(config, "gmask_token_id") else CAUSAL
