"""GLM-4's `messages`: tools stand on the system turn, calls are text before an observation.

A call is written `{"name": ..., "arguments": ...}` (the README of GLM-4's finetune_demo), or
its arguments under a `metadata` with the name (the model's own history). Source:
THUDM/GLM-4 finetune_demo/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune.formats import tool_specs, turns
from finetune.formats.base import BadRow, listed
from finetune.formats.writing import Step, marked, steps
from glm.messages import Conversation

name = "glm4"


def looks_like(row: Mapping[str, Any]) -> bool:
    try:
        entries = listed(row.get("messages"), "messages")
    except BadRow:
        return False
    return any(_is_ours(entry) for entry in entries)


def read(row: Mapping[str, Any]) -> Conversation:
    entries = listed(row.get("messages"), "messages")
    offered = row.get("tools")
    for entry in entries:
        if offered is None and isinstance(entry, Mapping):
            offered = entry.get("tools")
    messages = turns.of_row(row, "messages", calls_in_text=True)
    return Conversation(messages, tool_specs.read(offered))


def write(conversation: Conversation) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for step in steps(conversation):
        entries += _turns(step)
    if conversation.tools:
        functions = [_offered(tool.to_json()) for tool in conversation.tools]
        if not entries or entries[0]["role"] != "system":
            entries.insert(0, {"role": "system", "content": ""})
        entries[0]["tools"] = functions
    return {"messages": entries}


def _offered(described: Any) -> Any:
    """A tool as OpenAI wraps it; a plain text stands as it is."""
    return {"type": "function", "function": described} if isinstance(described, dict) else described


def _turns(step: Step) -> list[dict[str, Any]]:
    message, call = step.message, step.call
    if call is None:
        role = "observation" if message.role == "tool" else message.role
        return [marked({"role": role, "content": message.content}, message)]
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    turn = marked({"role": "assistant", "metadata": call.name, "content": arguments}, message)
    return [turn, *([{"role": "observation", "content": step.seen.content}] if step.seen else [])]


def _is_ours(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return False
    return bool(entry.get("tools") or entry.get("metadata")) or entry.get("role") == "observation"
