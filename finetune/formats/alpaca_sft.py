"""alpaca as ChatGLM3-SFT trains it: the instruction is the system message.

The question is the instruction, a space and the input (yongzhuo/ChatGLM3-SFT, train.py). Never
chosen by itself; `--format alpaca-sft` goes with the layout of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats.alpaca import answer
from finetune.formats.base import CannotHold, text
from finetune.formats.pair import before, turn
from finetune.formats.writing import pairs
from glm.messages import Conversation, Message

name = "alpaca-sft"


def looks_like(row: Mapping[str, Any]) -> bool:
    return False


def read(row: Mapping[str, Any]) -> Conversation:
    instruction, given = (
        text(row.get("instruction"), "instruction"),
        text(row.get("input"), "input"),
    )
    history = before({"history": row.get("history")})
    asked = f"{instruction} {given}"
    return Conversation((Message("system", instruction), *history, *turn(asked, answer(row))))


def write(conversation: Conversation) -> dict[str, Any]:
    instruction, told = pairs(conversation)
    *earlier, (asked, answered) = told
    if not asked.startswith(f"{instruction} "):
        raise CannotHold("it needs a last question that begins with the system message")
    given = asked[len(instruction) + 1 :]
    row: dict[str, Any] = {"instruction": instruction, "input": given, "output": answered}
    if earlier:
        row["history"] = [said for both in earlier for said in both]
    return row
