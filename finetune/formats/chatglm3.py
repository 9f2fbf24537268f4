"""ChatGLM3's `tools` and `conversations`, as the early official demo and Firefly read them.

A `tool` turn holds a call and its observation. A row with tools begins with the block that
offers them, an own system turn follows as a second block; `"tools": []` offers an empty list. A
`system` beside the conversations is such a turn, before the others.
What the official trainer never did is read, too: `interpreter` turns, turns with a `metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats import tool_specs, turns
from finetune.formats.writing import Step, marked, steps
from glm.dialects.chatglm3 import INTERPRETER, call_text, tools_block
from glm.messages import Conversation, Message

name = "chatglm3"
EMPTY_BLOCK = Message("system", tools_block(()))


def looks_like(row: Mapping[str, Any]) -> bool:
    return "conversations" in row


def read(row: Mapping[str, Any]) -> Conversation:
    """Renders to the ids of the official multi-turn preprocessing."""
    messages = turns.of_row(row, "conversations")
    offered = row.get("tools")
    if isinstance(offered, list | dict) and not offered:
        return Conversation((EMPTY_BLOCK, *messages))
    return Conversation(messages, tool_specs.read(offered, verbatim=True))


def write(conversation: Conversation) -> dict[str, Any]:
    """A row that the official trainer reads, save for interpreter turns."""
    told = list(steps(conversation))
    row: dict[str, Any] = {}
    if conversation.tools:
        row["tools"] = [tool.to_json() for tool in conversation.tools]
    elif told and told[0].message == EMPTY_BLOCK:
        row["tools"] = []
        told = told[1:]
    row["conversations"] = [turn for step in told for turn in _turns(step)]
    return row


def _turns(step: Step) -> list[dict[str, Any]]:
    message, call, seen = step.message, step.call, step.seen
    if call is None:
        role = "observation" if message.role == "tool" else message.role
        return [marked({"role": role, "content": message.content}, message)]
    if call.name == INTERPRETER:
        code = {"role": "assistant", "metadata": INTERPRETER, "content": call_text(call)}
        brought = [] if seen is None else [{"role": "observation", "content": seen.content}]
        return [marked(code, message), *brought]
    turn: dict[str, Any] = {"role": "tool", "name": call.name, "parameters": dict(call.arguments)}
    if seen is not None:
        turn["observation"] = seen.content
    return [marked(turn, message)]
