"""From logits to the next id: repetition penalty, constraint, temperature, top-k, top-p, draw.

One `Sampler` per request, with its own random numbers, so a request with a seed gives the same
answer whatever else is in the batch (fp32). The order is that of transformers' generate().
`choose` works on all rows of a step at once. It does not check values: `glm/sampling.py` does.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch

from glm.messages import Sampling

CANDIDATES = 64
COLD = 1e-4  # below this temperature the division would overflow; the draw is the maximum anyway


class Constraint(Protocol):
    """Limits the next id, for example by a grammar."""

    def fill(self, bits: np.ndarray) -> None:
        """Set the bits of the ids that may follow, and no others.

        `bits` (W,) int32 is a row of a larger array: id i is bit i % 32 of word i // 32, and
        there is room for at least one id more than the model has.
        """

    def accept(self, id: int) -> None:
        """Called with each id that was chosen, in order."""


class Sampler:
    """The state of one request's choices."""

    def __init__(self, sampling: Sampling, constraint: Constraint | None = None) -> None:
        self.sampling = sampling
        self.constraint = constraint
        self.greedy = sampling.temperature < COLD
        self.penalises = sampling.repetition_penalty != 1
        self.random = random.Random(sampling.seed)
        self._seen: torch.Tensor | None = None  # (V,) bool, kept only for the penalty

    def penalised(self, row: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """The logits (V,) after the repetition penalty over `ids`."""
        penalty = self.sampling.repetition_penalty
        if self._seen is None:
            self._seen = torch.zeros(row.shape, dtype=torch.bool, device=row.device)
            self._seen[torch.tensor(ids, device=row.device)] = True
        self._seen[ids[-1]] = True
        return torch.where(self._seen, torch.where(row < 0, row * penalty, row / penalty), row)


class Masks:
    """Puts the ids that constraints forbid at -inf, for all rows of a step in one go."""

    def __init__(self) -> None:
        self._bits = np.zeros((0, 0), dtype=np.int32)

    def apply(
        self, logits: torch.Tensor, constraints: Sequence[Constraint | None]
    ) -> dict[int, Exception]:
        """Change `logits` (B, V) in place; rows without a constraint stay as they are.

        Returns what was raised, by row; such a row stays too.
        """
        rows, vocabulary = logits.shape
        words = vocabulary // 32 + 1
        if len(self._bits) < rows or self._bits.shape[1] != words:
            self._bits = np.zeros((rows, words), dtype=np.int32)
        failed: dict[int, Exception] = {}
        for i, constraint in enumerate(constraints):
            bits = self._bits[i]
            try:
                if constraint is None:
                    bits.fill(-1)
                else:
                    constraint.fill(bits)
            except Exception as error:  # the constraint of one request: the others go on
                bits.fill(-1)
                failed[i] = error
        octets = np.invert(self._bits[:rows]).view(np.uint8)
        forbidden = np.unpackbits(octets, axis=1, count=vocabulary, bitorder="little")
        mask = torch.from_numpy(forbidden).view(torch.bool)  # (B, V)
        logits.masked_fill_(mask.to(logits.device, non_blocking=True), float("-inf"))
        return failed


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
    """The next id of each row of `logits` (B, V), masked already; None where none is finite.

    Rows do not influence each other.
    """
    top, best = logits.max(dim=-1)
    finite = torch.isfinite(top).tolist()
    chosen = [id if ok else None for id, ok in zip(best.tolist(), finite, strict=True)]
    warm = [i for i, s in enumerate(samplers) if not s.greedy and finite[i]]
    if warm:
        some = [samplers[i] for i in warm]
        scores = logits if len(warm) == len(samplers) else logits[warm]
        for i, id in zip(warm, _draw(scores, some), strict=True):
            chosen[i] = id
    return chosen


def _draw(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One id per row of `logits` (R, V). Most rows are settled by their few likeliest ids."""
    heat = torch.tensor([[s.sampling.temperature] for s in samplers], device=logits.device)
    scores = logits / heat
    values, order = scores.topk(min(CANDIDATES, scores.shape[-1]))  # (R, W), falling
    shares = torch.exp(values - torch.logsumexp(scores, dim=-1, keepdim=True)).tolist()
    ids = []
    for row, sampler in enumerate(samplers):
        uniform = sampler.random.random()
        place = _place(shares[row], sampler.sampling, uniform, scores.shape[-1])
        if place is None:
            ids.append(_draw_from_all(scores[row], sampler.sampling, uniform))
        else:
            ids.append(int(order[row, place]))
    return ids


def _place(shares: list[float], sampling: Sampling, uniform: float, vocabulary: int) -> int | None:
    """Which of the likeliest ids to take, by inverting the cumulative sum of the kept ones.

    `shares` are their probabilities, falling. None when the kept set may reach beyond them.
    """
    all_there = len(shares) == vocabulary or 0 < sampling.top_k <= len(shares)
    if sampling.top_k and not all_there:
        return None
    shares = shares[: sampling.top_k or None]
    sums = list(accumulate(shares))
    kept = bisect_left(sums, sampling.top_p * (sums[-1] if all_there else 1)) + 1
    if kept > len(sums) and not all_there:
        return None
    kept = min(kept, len(sums))
    return min(bisect_right(sums, uniform * sums[kept - 1]), kept - 1)


def _draw_from_all(scores: torch.Tensor, sampling: Sampling, uniform: float) -> int:
    """The same over every id of `scores` (V,); without top-k and top-p no order is needed."""
    shares, order = torch.softmax(scores, dim=-1), None
    if sampling.top_k or sampling.top_p < 1:
        shares, order = shares.sort(descending=True)
    sums = shares[: sampling.top_k or None].cumsum(dim=-1)
    kept = int(torch.searchsorted(sums, sampling.top_p * sums[-1:])) + 1 if order is not None else 0
    kept = min(kept or len(sums), len(sums))
    place = int(torch.searchsorted(sums, uniform * sums[kept - 1 : kept], right=True))
    place = min(place, kept - 1)
    return place if order is None else int(order[place])
