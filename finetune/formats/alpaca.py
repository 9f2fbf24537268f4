"""alpaca: `instruction`, `input`, `output`, with `system` and a `history`, flat or in pairs.

The question is the instruction, a newline and the input, as LLaMA-Factory joins them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats import tool_specs
from finetune.formats.base import BadRow, text
from finetune.formats.pair import before, turn
from finetune.formats.writing import pairs
from glm.messages import Conversation

name = "alpaca"


def looks_like(row: Mapping[str, Any]) -> bool:
    return "instruction" in row and "output" in row


def read(row: Mapping[str, Any]) -> Conversation:
    asked, answered = question(row), answer(row)
    messages = [*before(row), *turn(asked, answered)]
    return Conversation(tuple(messages), tool_specs.read(row.get("tools")))


def question(row: Mapping[str, Any]) -> str:
    """Instruction and input as one question."""
    instruction, given = (
        text(row.get("instruction"), "instruction"),
        text(row.get("input"), "input"),
    )
    if not instruction and not given:
        raise BadRow('"instruction" is missing')
    return f"{instruction}\n{given}" if instruction and given else instruction or given


def answer(row: Mapping[str, Any]) -> str:
    if row.get("output") is None:
        raise BadRow('"output" is missing')
    return text(row["output"], "output")


def write(conversation: Conversation) -> dict[str, Any]:
    """The last question is the instruction; those before it are a flat history."""
    system, told = pairs(conversation)
    *earlier, (asked, answered) = told
    row: dict[str, Any] = {"instruction": asked, "input": "", "output": answered}
    if system:
        row["system"] = system
    if earlier:
        row["history"] = [said for both in earlier for said in both]
    return row
