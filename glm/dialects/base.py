"""What a dialect is: one prompt language, from conversation to ids and from ids to events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from glm.dialects.vocabulary import Vocabulary
from glm.messages import Conversation, Event, Message, Role, Sampling, ToolSpec


@dataclass(frozen=True, slots=True)
class Piece:
    """Ids in order. `learn`: these are what training teaches (chat drops the mark)."""

    ids: tuple[int, ...]
    learn: bool


@dataclass(frozen=True, slots=True)
class RoleToken:
    """A token of a prompt for people: `role` colours it; control tokens have `special`."""

    id: int
    text: str
    role: Role | None
    special: bool


def taught(message: Message) -> bool:
    """Whether training teaches a turn: the assistant's unless its file says no, the user's and
    the system's where it says yes, and never what a tool answered.
    """
    if message.role == "assistant":
        return message.learn is not False
    return message.learn is True and message.role != "tool"


class Parser(Protocol):
    """Ids of one answer to events. Any way of splitting the ids gives the same joined events."""

    def feed(self, ids: Sequence[int]) -> list[Event]: ...

    def finish(self) -> list[Event]: ...

    def message(self) -> Message:
        """The turn to keep; after `finish`."""


class Dialect(Protocol):
    """One prompt language bound to the tokenizer of a checkpoint."""

    @property
    def name(self) -> str: ...

    @property
    def tokenizer(self) -> Vocabulary: ...

    @property
    def stop(self) -> tuple[int, ...]:
        """The ids that end a turn."""

    @property
    def end(self) -> int:
        """The id that ends a text: the last of what is trained on."""

    @property
    def defaults(self) -> Sampling:
        """The sampling the family's authors use."""

    def render(self, conversation: Conversation) -> Iterator[Piece]:
        """The conversation as pieces, as it is trained on."""

    def prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The ids to continue: the conversation and the mark where the model begins."""

    def raw(self, text: str) -> tuple[int, ...]:
        """The ids of a text without roles, to be continued: how base models are asked."""

    def parser(self, tools: Sequence[ToolSpec] = ()) -> Parser:
        """A parser for one answer to a conversation with these tools."""

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """Every token with the role it belongs to."""
