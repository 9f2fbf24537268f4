"""Layouts of one question and one answer, each part cut by its own limit.

What is cut is the end of the question's text and the end of the answer's; the control tokens
around them stay. `raw` of a dialect says where those of the question stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finetune.layouts.example import Example, Limits, Skipped, example, reason, useful
from glm.dialects.base import Dialect, Piece
from glm.errors import BadRequest
from glm.messages import Conversation, Message


@dataclass(frozen=True, slots=True)
class PairLayout:
    """`question` gives the ids of all before the answer; the last message is the answer."""

    name: str
    question: Callable[[Conversation, Dialect], tuple[int, ...]]
    dialects: tuple[str, ...] = ()

    def encode(
        self, conversation: Conversation, dialect: Dialect, limits: Limits
    ) -> Example | Skipped:
        """The row within the limits, or why there is none."""
        *before, last = conversation.messages or (Message("user"),)
        if last.role != "assistant" or last.calls:
            return Skipped("its last turn is no answer")
        try:
            source = self.question(Conversation(tuple(before), conversation.tools), dialect)
        except BadRequest as error:
            return reason(error)
        target = tuple(dialect.tokenizer.encode(last.content))
        kept = _cut(source, dialect, limits.max_source)
        answer = target[: limits.max_target]
        notes = [note for note, lost in CUTS if lost(source, kept, target, answer)]
        pieces = [Piece(kept, False), Piece((*answer, dialect.end), last.learn is not False)]
        made = example(pieces, " and ".join(notes))
        if not (limits.max_source and limits.max_target) and len(made.ids) > limits.max_length:
            return _overlong(made, limits)
        return useful(made)


def _cut(source: tuple[int, ...], dialect: Dialect, most: int | None) -> tuple[int, ...]:
    """The question in at most so many ids: its text loses its end, its control tokens stay."""
    if most is None or len(source) <= most:
        return source
    marks = dialect.raw("")
    text = max(most - len(marks), 0)
    if source[: len(marks)] == marks:
        return source[: len(marks) + text]
    return (*source[:text], *marks)


def _overlong(made: Example, limits: Limits) -> Example | Skipped:
    most = limits.max_length
    if limits.overlong == "truncate":
        return useful(Example(made.ids[:most], made.labels[:most], f"cut to {most} tokens"))
    return Skipped(f"longer than {most} tokens")


CUTS: tuple[tuple[str, Callable[..., bool]], ...] = (
    ("question cut", lambda source, kept, target, answer: len(kept) < len(source)),
    ("answer cut", lambda source, kept, target, answer: len(answer) < len(target)),
)
