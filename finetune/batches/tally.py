"""What became of the rows of an epoch so far, in numbers to save and to print. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNREADABLE = "cannot be read"
_SAMPLES = 5  # sentences kept about rows that cannot be read


@dataclass
class Tally:
    """`rows` were looked at; of them `skipped` by reason, the rest trained on, some `cut`."""

    rows: int = 0
    tokens: int = 0
    learnt: int = 0
    longest: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    @property
    def used(self) -> int:
        return self.rows - self.skipped.total()

    def skip(self, reason: str) -> None:
        self.rows += 1
        self.skipped[reason] += 1

    def cannot_read(self, sentence: str) -> None:
        self.skip(UNREADABLE)
        if len(self.unreadable) < _SAMPLES:
            self.unreadable.append(sentence)

    def use(self, tokens: int, learnt: int, cut: str) -> None:
        self.rows += 1
        self.tokens += tokens
        self.learnt += learnt
        self.longest = max(self.longest, tokens)
        if cut:
            self.cut[cut] += 1

    def add(self, other: Tally) -> Tally:
        """Both together, as a new one."""
        samples = (self.unreadable + other.unreadable)[:_SAMPLES]
        return Tally(
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.learnt + other.learnt,
            max(self.longest, other.longest),
            self.skipped + other.skipped,
            self.cut + other.cut,
            samples,
        )

    def lines(self) -> list[str]:
        """For people: what was left out or cut, most first."""
        out = [f"{self.used} of {self.rows} rows are trained on, {self.learnt} tokens learnt"]
        out += [f"{count} left out: {reason}" for reason, count in self.skipped.most_common()]
        out += [f"{count} cut: {what}" for what, count in self.cut.most_common()]
        return out + [f"  {sentence}" for sentence in self.unreadable]

    def to_json(self) -> dict[str, Any]:
        counters = {"skipped": dict(self.skipped), "cut": dict(self.cut)}
        return {**vars(self), **counters, "unreadable": list(self.unreadable)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        counters = {name: Counter(value[name]) for name in ("skipped", "cut")}
        return cls(**{**value, **counters, "unreadable": list(value["unreadable"])})
