"""What a layout makes of a conversation: ids with labels, or the reason why it is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from glm.dialects.base import Dialect, Piece
from glm.errors import BadRequest
from glm.messages import Conversation

NOT_LEARNT = -100
NOTHING_LEARNT = "nothing in it is learnt"
Overlong = Literal["skip", "cut-turns", "truncate"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Most tokens of a row, and what becomes of a longer one.

    `max_source` and `max_target` belong to the layouts of one question and one answer: each part
    is cut by its own, and where both are set, `max_length` does not count.
    """

    max_length: int = 2048
    max_source: int | None = None
    max_target: int | None = None
    overlong: Overlong = "skip"


@dataclass(frozen=True, slots=True)
class Example:
    """`labels[i]` is `ids[i]` or -100, not shifted. `cut` says what a limit took away."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: str = ""

    @property
    def learnt(self) -> int:
        """How many tokens are learnt: the first has nothing before it to be told from."""
        return sum(label != NOT_LEARNT for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not trained on; the reason is one of few, so that it can be counted."""

    reason: str


class Layout(Protocol):
    """How a conversation becomes tokens and which of them are learnt."""

    @property
    def name(self) -> str: ...

    @property
    def dialects(self) -> tuple[str, ...]:
        """The dialects it is written in; none named: any."""

    def encode(
        self, conversation: Conversation, dialect: Dialect, limits: Limits
    ) -> Example | Skipped: ...


def example(pieces: Iterable[Piece], cut: str = "") -> Example:
    """The pieces as one row."""
    ids: list[int] = []
    labels: list[int] = []
    for piece in pieces:
        ids += piece.ids
        labels += piece.ids if piece.learn else (NOT_LEARNT,) * len(piece.ids)
    return Example(tuple(ids), tuple(labels), cut)


def useful(made: Example) -> Example | Skipped:
    """The example, unless nothing in it is learnt."""
    return made if made.learnt else Skipped(NOTHING_LEARNT)


def reason(error: BadRequest) -> Skipped:
    """What a dialect refuses."""
    return Skipped(str(error))
