"""sharegpt: `conversations` of `from` and `value`, with function_call and observation.

LLaMA-Factory's form of it: `tools` is a string. A `system` beside the conversations is the
first message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune.formats import tool_specs, turns
from finetune.formats.writing import marked
from glm.messages import Conversation, ToolCall

name = "sharegpt"
_FROM = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def looks_like(row: Mapping[str, Any]) -> bool:
    entries = row.get("conversations")
    if isinstance(entries, str):
        return '"from"' in entries[:200]
    first = entries[0] if isinstance(entries, list) and entries else None
    return isinstance(first, Mapping) and bool(first.get("from"))


def read(row: Mapping[str, Any]) -> Conversation:
    messages = turns.of_row(row, "conversations")
    return Conversation(messages, tool_specs.read(row.get("tools")))


def write(conversation: Conversation) -> dict[str, Any]:
    """`tools` is the JSON text of a list, as LLaMA-Factory wants it."""
    entries = []
    for message in conversation.messages:
        if message.content or not message.calls:
            turn = {"from": _FROM[message.role], "value": message.content}
            entries.append(marked(turn, message))
        if message.calls:
            value = json.dumps(_called(message.calls), ensure_ascii=False)
            entries.append(marked({"from": "function_call", "value": value}, message))
    row: dict[str, Any] = {"conversations": entries}
    if conversation.tools:
        offered = [tool.to_json() for tool in conversation.tools]
        row["tools"] = json.dumps(offered, ensure_ascii=False)
    return row


def _called(calls: tuple[ToolCall, ...]) -> Any:
    all_calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    return all_calls if len(all_calls) > 1 else all_calls[0]
