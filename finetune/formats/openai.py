"""OpenAI's `messages` with `tool_calls`, and `tools`; ms-swift's roles in it are read, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats import tool_specs, turns
from glm.messages import Conversation
from glm.store.exchange import EXTRA, Transcript, to_openai

name = "openai"


def looks_like(row: Mapping[str, Any]) -> bool:
    return "messages" in row


def read(row: Mapping[str, Any]) -> Conversation:
    messages = turns.of_row(row, "messages")
    offered = row.get("tools")
    return Conversation(
        messages, tool_specs.read(row.get("functions") if offered is None else offered)
    )


def write(conversation: Conversation) -> dict[str, Any]:
    """Only OpenAI's own fields, so that every trainer takes the file."""
    row = to_openai(Transcript(conversation))
    row.pop(EXTRA, None)
    return row
