"""Firefly: `conversation` of `human` and `assistant`; white space at the ends is taken off.

Firefly itself takes it off (convert_data_format.py). Its tool rows are ChatGLM3's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats.base import BadRow, listed, text
from finetune.formats.pair import turn
from finetune.formats.writing import pairs
from glm.messages import Conversation, Message

name = "firefly"


def looks_like(row: Mapping[str, Any]) -> bool:
    return "conversation" in row


def read(row: Mapping[str, Any]) -> Conversation:
    entries = listed(row.get("conversation"), "conversation")
    if not entries:
        raise BadRow('"conversation" is empty')
    system = text(row.get("system"), "system").strip()
    messages = [Message("system", system)] if system else []
    for number, entry in enumerate(entries):
        for key in ("human", "assistant"):
            if not isinstance(entry, Mapping) or entry.get(key) is None:
                raise BadRow(f'conversation[{number}]: "{key}" is missing')
        asked, answered = (text(entry[key], key).strip() for key in ("human", "assistant"))
        messages += turn(asked, answered)
    return Conversation(tuple(messages))


def write(conversation: Conversation) -> dict[str, Any]:
    system, told = pairs(conversation)
    row: dict[str, Any] = {"system": system} if system else {}
    row["conversation"] = [{"human": asked, "assistant": said} for asked, said in told]
    return row
