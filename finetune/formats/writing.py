"""What the writers of formats share: steps of a conversation, question-and-answer pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from finetune.formats.base import CannotHold
from glm.messages import Conversation, Message, ToolCall


@dataclass(frozen=True, slots=True)
class Step:
    """A message without calls, or one call with its observation where there is one."""

    message: Message
    call: ToolCall | None = None
    seen: Message | None = None


def steps(conversation: Conversation) -> Iterator[Step]:
    """The conversation with every call beside what it brought."""
    messages = list(conversation.messages)
    taken: set[int] = set()
    for place, message in enumerate(messages):
        if place in taken:
            continue
        if message.content or not message.calls:
            yield Step(replace(message, calls=()))
        for call in message.calls:
            found = _observation(messages, place, call, taken)
            if found is not None:
                taken.add(found)
            yield Step(message, call, None if found is None else messages[found])


def _observation(
    messages: list[Message], place: int, call: ToolCall, taken: set[int]
) -> int | None:
    """Where the observation of a call stands: by its id, else the next one."""
    after = place + 1
    while after < len(messages) and messages[after].role == "tool":
        if after not in taken and messages[after].call_id in ("", call.id):
            return after
        after += 1
    return None


def pairs(conversation: Conversation) -> tuple[str, list[tuple[str, str]]]:
    """The system text, and questions with their answers. Raises CannotHold for anything else."""
    messages, system = list(conversation.messages), ""
    if messages and messages[0].role == "system":
        system = messages.pop(0).content
    if any(message.calls or message.role == "tool" for message in messages):
        raise CannotHold("it has no place for tool calls and what they brought")
    roles = [message.role for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise CannotHold("it needs a question and an answer in turn, beginning with the question")
    said = [message.content for message in messages]
    return system, list(zip(said[::2], said[1::2], strict=True))


def marked(row: dict[str, Any], message: Message) -> dict[str, Any]:
    """The turn with the word on its loss, where the message has one."""
    return row if message.learn is None else {**row, "loss": message.learn}
