"""MetalWOZ: `turns` of texts, the bot's and the user's in turn, the bot's first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats.base import BadRow, CannotHold, listed, short
from glm.messages import Conversation, Message

name = "metalwoz"


def looks_like(row: Mapping[str, Any]) -> bool:
    return "turns" in row


def read(row: Mapping[str, Any]) -> Conversation:
    """The bot's first turn stays first: a conversation that begins with the assistant."""
    said = listed(row.get("turns"), "turns")
    if not said:
        raise BadRow('"turns" is empty')
    wrong = next((text for text in said if not isinstance(text, str)), None)
    if wrong is not None or None in said:
        raise BadRow(f'"turns" holds texts, not {short(wrong)}')
    return Conversation(
        tuple(
            Message("user" if number % 2 else "assistant", text) for number, text in enumerate(said)
        )
    )


def write(conversation: Conversation) -> dict[str, Any]:
    messages = conversation.messages
    if any(message.calls or message.role == "tool" for message in messages):
        raise CannotHold("it has no place for tool calls and what they brought")
    spoken = [message for message in messages if message.role != "system"]
    if any(m.role != ("user" if i % 2 else "assistant") for i, m in enumerate(spoken)):
        raise CannotHold("it needs the assistant's and the user's turns in turn, assistant first")
    return {"turns": [message.content for message in spoken]}
