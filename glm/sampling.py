"""Which sampling values are allowed, in one table. Standard library only.

`validate` runs before a request is queued; sliders and the API read the same `RANGES`.
What the values do to the logits is in `glm/scheduler/sampler.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from glm.errors import BadSampling
from glm.messages import Sampling

MAX_STOPS = 16
SEEDS = (-(2**63), 2**64 - 1)


@dataclass(frozen=True, slots=True)
class Range:
    """The allowed values of one number; `open_low` leaves the lower end itself out."""

    low: float
    high: float
    whole: bool = False
    open_low: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        above = self.low < value if self.open_low else self.low <= value
        return above and value <= self.high and (self.whole or math.isfinite(value))

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        start = "above" if self.open_low else "from"
        return f"{kind} {start} {self.low:,} to {self.high:,}"


RANGES = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, open_low=True),
    "top_k": Range(0, 1_000_000, whole=True),
    "repetition_penalty": Range(0, 2, open_low=True),
}


def validate(sampling: Sampling, context: int) -> None:
    """Refuse values out of range: BadSampling names every bad field, its value and its range."""
    ranges = {"max_tokens": Range(1, context, whole=True), **RANGES}
    problems = [
        f"{name} is {_shown(getattr(sampling, name))}; allowed: {allowed}"
        for name, allowed in ranges.items()
        if getattr(sampling, name) not in allowed
    ]
    seed, stop = sampling.seed, sampling.stop
    if seed is not None and seed not in Range(*SEEDS, whole=True):
        problems.append(f"seed is {_shown(seed)}; allowed: a whole number of 64 bits, or none")
    if not isinstance(stop, tuple | list) or not all(isinstance(s, str) and s for s in stop):
        problems.append(f"stop is {_shown(stop)}; allowed: texts that are not empty")
    elif len(stop) > MAX_STOPS:
        problems.append(f"stop has {len(stop)} texts; allowed: at most {MAX_STOPS}")
    if problems:
        raise BadSampling("; ".join(problems))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
