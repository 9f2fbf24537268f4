"""Where ChatGLM-6B (v1) stands in a text, and what it sees from there.

A sequence is `text [gMASK] sop answer`. The columns before sop, the context, see each other; sop
and the answer see all before them. Each column has two positions: in the context its place and 0,
from sop on the place of [gMASK] (else [MASK]) and 1, 2, ... A prefix of P columns, from P-Tuning,
stands in front: every column sees it, and it moves no position. So the context has to be computed
in one call, and a cache of it serves only texts with the same context.
Source: get_masks, get_position_ids of THUDM/chatglm-6b, modeling_chatglm.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ATTRIBUTE = "glm_context"  # where a cache remembers the Context of what is in it


@dataclass(frozen=True, slots=True)
class Layout:
    """Of one sequence: `context` is the column of sop, `mark` that of [gMASK] or [MASK]."""

    context: int
    mark: int

    def positions(self, start: int, stop: int, device: Any = None) -> Tensor:
        """The two positions of the columns start..stop (2, T)."""
        columns = torch.arange(start, stop, device=device)
        place = columns.masked_fill(columns >= self.context, self.mark)
        return torch.stack((place, (columns - self.context + 1).clamp(min=0)))

    def visible(self, start: int, stop: int, prefix: int = 0, device: Any = None) -> Tensor:
        """What each of these columns sees of `prefix` and the columns 0..stop (T, prefix + stop).

        True is seen. Raises ValueError for a part of the context: it would not see the rest.
        """
        if start < self.context and (start > 0 or stop < self.context):
            raise ValueError(f"the context, {self.context} ids, is computed in one call")
        columns = torch.arange(-prefix, stop, device=device)
        own = columns[prefix + start :, None]
        return (columns <= own) | (columns < self.context)


def layout(ids: Sequence[int], config: Any) -> Layout:
    """The layout of one prompt. Without sop all of it is context, as the official tokenizer pads.

    `config` has bos_token_id (sop), gmask_token_id and mask_token_id.
    """
    ids = list(ids)
    context = ids.index(config.bos_token_id) if config.bos_token_id in ids else len(ids)
    for mark in (config.gmask_token_id, config.mask_token_id):
        if mark in ids:
            return Layout(context, ids.index(mark))
    return Layout(context, max(context - 1, 0))


def positions_and_mask(
    ids: Sequence[int], config: Any, start: int = 0, stop: int | None = None, prefix: int = 0
) -> tuple[Tensor, Tensor]:
    """(2, T) positions and (T, prefix + stop) visible columns of a part of one prompt."""
    found, end = layout(ids, config), len(ids) if stop is None else stop
    return found.positions(start, end), found.visible(start, end, prefix)


# ---- batches, from ids and a mask of padding ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Context:
    """Of a batch: the columns of sop and of [gMASK] (B,), behind `prefix` columns."""

    sop: Tensor
    mark: Tensor
    prefix: int


def batch(ids: Tensor, mask: Tensor | None, cache: Any, config: Any) -> tuple[Tensor, Tensor]:
    """(B, 2, T) positions and (B, 1, T, L) visible columns of the next ids of a cache.

    `mask` (B, columns), padding is 0, left or right; it may or may not count the prefix. What
    stands in a cache at its first call is a prefix. The cache remembers its context.
    """
    past = int(cache.get_seq_length()) if cache is not None else 0
    known: Context | None = getattr(cache, _ATTRIBUTE, None)
    prefix = past if known is None else known.prefix
    stop = past - prefix + ids.shape[1]
    real = _real(ids, mask, stop)
    if known is None:
        known = _context(ids, real, prefix, config)
        if cache is not None:
            setattr(cache, _ATTRIBUTE, known)
    columns = torch.arange(stop, device=ids.device)
    order = (real.cumsum(1) - 1).clamp(min=0)
    inside = columns < known.sop[:, None]  # (B, stop)
    size = (real & inside).sum(1, keepdim=True)
    place = torch.where(inside, order, order.gather(1, known.mark[:, None]))
    block = torch.where(inside, 0, (order - size + 1).clamp(min=0))
    own = slice(stop - ids.shape[1], stop)
    seen = (columns <= columns[own, None]) | inside[:, None]
    seen = (seen & real[:, None]) | ~real[:, own, None]  # padding sees something: no NaN
    whole = past + ids.shape[1]
    size_of = getattr(cache, "get_mask_sizes", None)
    length = int(size_of(ids.shape[1], 0)[0]) if size_of is not None else whole
    seen = torch.nn.functional.pad(seen, (prefix, 0), value=True)
    seen = torch.nn.functional.pad(seen, (0, length - whole), value=False)
    return torch.stack((place, block), 1)[:, :, own], seen[:, None]


def visible_by_positions(positions: Tensor, mask: Tensor | None) -> Tensor:
    """(B, 1, T, T) visible columns of (B, 2, T) positions; rows packed together stay apart.

    A row of a packed sequence begins where both positions are 0. `mask` (B, T) is of padding.
    """
    place, block = positions.unbind(1)
    row = ((place == 0) & (block == 0)).cumsum(1)
    columns = torch.arange(place.shape[1], device=place.device)
    seen = (columns <= columns[:, None]) | (block == 0)[:, None]
    seen = seen & (row[:, None] == row[:, :, None])
    if mask is not None:
        real = mask.bool()
        seen = (seen & real[:, None]) | ~real[:, :, None]
    return seen[:, None]


def _real(ids: Tensor, mask: Tensor | None, stop: int) -> Tensor:
    """Which columns are no padding (B, stop)."""
    if mask is None:
        return torch.ones((ids.shape[0], stop), dtype=torch.bool, device=ids.device)
    if mask.shape[1] < stop:
        raise ValueError(f"the attention mask has {mask.shape[1]} columns for {stop} ids")
    return mask[:, mask.shape[1] - stop :].to(ids.device).bool()


def _context(ids: Tensor, real: Tensor, prefix: int, config: Any) -> Context:
    """Find the columns of sop and of [gMASK], else [MASK]."""
    width = ids.shape[1]

    def first(id: int) -> Tensor:
        """The first column of an id, `width` where there is none."""
        found = (ids == id) & real
        return torch.where(found.any(1), found.long().argmax(1), width)

    sop, gmask, mask = map(
        first, (config.bos_token_id, config.gmask_token_id, config.mask_token_id)
    )
    mark = torch.where(gmask < width, gmask, mask)
    last = (real & (torch.arange(width, device=ids.device) < sop[:, None])).sum(1)
    last = (real.long().argmax(1) + last - 1).clamp(min=0)
    return Context(sop, torch.where(mark < width, mark, last), prefix)
