"""Layouts of whole conversations, and what they do with one that is too long."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from finetune.layouts.example import Example, Limits, Skipped, example, reason, useful
from glm.dialects.base import Dialect, Piece
from glm.errors import BadRequest
from glm.messages import Conversation

# What the layouts say, the dialect says in pieces. Dialects differ in what they offer beside
# the protocol, so the functions below name their own.
Render = Callable[..., Iterable[Piece]]


@dataclass(frozen=True, slots=True)
class TurnLayout:
    """`render` writes a conversation in the pieces of a dialect."""

    name: str
    render: Render
    dialects: tuple[str, ...] = ()

    def encode(
        self, conversation: Conversation, dialect: Dialect, limits: Limits
    ) -> Example | Skipped:
        """The row within the limits, or why there is none."""
        try:
            whole = example(self.render(conversation, dialect))
            if len(whole.ids) <= limits.max_length:
                return useful(whole)
            shorter = self._shorter(whole, conversation, dialect, limits)
        except BadRequest as error:
            return reason(error)
        return shorter if isinstance(shorter, Skipped) else useful(shorter)

    def _shorter(
        self, whole: Example, conversation: Conversation, dialect: Dialect, limits: Limits
    ) -> Example | Skipped:
        most = limits.max_length
        if limits.overlong == "truncate":
            return Example(whole.ids[:most], whole.labels[:most], f"cut to {most} tokens")
        if limits.overlong == "skip":
            return Skipped(f"longer than {most} tokens")
        found: Example | None = None
        ends = rounds(conversation)
        low, high = 0, len(ends)  # more turns are more tokens
        while low < high:
            middle = (low + high) // 2
            shorter = replace(conversation, messages=conversation.messages[: ends[middle]])
            made = example(self.render(shorter, dialect), "its last turns left out")
            if len(made.ids) <= most:
                found, low = made, middle + 1
            else:
                high = middle
        return found or Skipped(f"longer than {most} tokens in its first turn")


def rounds(conversation: Conversation) -> list[int]:
    """How many messages there are up to each answer that the user follows, but for the last."""
    messages = conversation.messages
    asked, out = False, []
    for number, (message, after) in enumerate(itertools.pairwise(messages), 1):
        asked = asked or message.role == "user"
        ends = message.role == "assistant" and not message.calls and after.role == "user"
        if asked and ends:
            out.append(number)
    return out
