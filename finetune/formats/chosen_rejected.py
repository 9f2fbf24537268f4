"""Pairs of a better and a worse answer: `chosen` and `rejected`.

The question stands in `prompt`, `messages`, `conversations` or `instruction`; an answer is a
text, one turn, or a list of turns (the whole conversation, or what follows the question). For
supervised training a row is its chosen conversation; `both` gives the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats import tool_specs, turns
from finetune.formats.alpaca import question
from finetune.formats.base import BadRow, CannotHold, listed, text
from finetune.formats.openai import write as write_messages
from finetune.formats.pair import before
from glm.messages import Conversation, Message

name = "chosen-rejected"
SWIFT = "rejected_response"  # ms-swift: the chosen answer is the last message


def looks_like(row: Mapping[str, Any]) -> bool:
    return ("chosen" in row and "rejected" in row) or SWIFT in row


def read(row: Mapping[str, Any]) -> Conversation:
    """The conversation with the chosen answer."""
    return _with(row, "chosen")


def both(row: Mapping[str, Any]) -> tuple[Conversation, Conversation]:
    """The conversations with the chosen and with the rejected answer."""
    return _with(row, "chosen"), _with(row, "rejected")


def write(conversation: Conversation) -> dict[str, Any]:
    raise CannotHold("it needs a rejected answer beside the chosen one")


def write_both(chosen: Conversation, rejected: Conversation) -> dict[str, Any]:
    """`prompt`, `chosen` and `rejected` as lists of OpenAI messages, `tools` beside them."""
    shared = 0
    for one, other in zip(chosen.messages, rejected.messages, strict=False):
        if one.edited() != other.edited():
            break
        shared += 1
    if chosen.tools != rejected.tools or not shared:
        raise CannotHold("both answers are to the same question, with the same tools")
    better, worse = write_messages(chosen), write_messages(rejected)
    row = {
        "prompt": better["messages"][:shared],
        "chosen": better["messages"][shared:],
        "rejected": worse["messages"][shared:],
    }
    return {**row, "tools": better["tools"]} if "tools" in better else row


def _with(row: Mapping[str, Any], which: str) -> Conversation:
    asked = list(_question(row))
    if SWIFT in row and "chosen" not in row:
        answer = asked[-1:] if which == "chosen" else _turns(row[SWIFT], SWIFT)
        asked = asked[:-1]
    else:
        answer = _turns(row.get(which), which)
    if not answer:
        raise BadRow(f'"{which}" is empty')
    whole = answer[0].role in ("system", "user")
    messages = answer if whole else [*asked, *answer]
    if messages[0].role not in ("system", "user"):
        raise BadRow('the question is missing: "prompt", "messages" or "instruction"')
    return Conversation(tuple(messages), tool_specs.read(row.get("tools")))


def _turns(value: Any, key: str) -> list[Message]:
    """An answer: a text, one turn, a list of turns."""
    if value is None:
        raise BadRow(f'"{key}" is missing')
    if isinstance(value, str) and not value.lstrip().startswith('[{"'):
        return [Message("assistant", value)]
    return list(turns.read([value] if isinstance(value, Mapping) else value, key))


def _question(row: Mapping[str, Any]) -> list[Message]:
    for key in ("messages", "conversations"):
        if row.get(key) is not None:
            return list(turns.of_row(row, key))
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        return list(turns.read(listed(prompt, "prompt"), "prompt"))
    if prompt is None and "instruction" not in row:
        return []
    asked = question(row) if prompt is None else text(prompt, "prompt")
    return [*before(row), Message("user", asked)]
