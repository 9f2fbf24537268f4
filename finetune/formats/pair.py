"""Formats of one question and one answer under two keys; they differ in the names of the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.formats import tool_specs, turns
from finetune.formats.base import BadRow, listed, text
from finetune.formats.writing import pairs
from glm.messages import Conversation, Message

HISTORY = "history"


class Pair:
    """`question` and `answer` are the names of the keys, the official one first."""

    def __init__(self, question: tuple[str, ...], answer: tuple[str, ...]) -> None:
        self.question, self.answer = question, answer

    def looks_like(self, row: Mapping[str, Any]) -> bool:
        return any(key in row for key in self.question) and any(key in row for key in self.answer)

    def read(self, row: Mapping[str, Any]) -> Conversation:
        question, answer = _key(row, self.question), _key(row, self.answer)
        if isinstance(row[question], list):  # TRL: both are lists of messages
            said = [*turns.read(row[question], question), *turns.read(row[answer], answer)]
        else:
            said = turn(text(row[question], question), text(row[answer], answer))
        return Conversation((*before(row), *said), tool_specs.read(row.get("tools")))

    def write(self, conversation: Conversation) -> dict[str, Any]:
        """The last question and its answer; those before them are a history in pairs."""
        _, (*earlier, (asked, answered)) = pairs(conversation)
        row: dict[str, Any] = {self.question[0]: asked, self.answer[0]: answered}
        return {**row, HISTORY: [list(both) for both in earlier]} if earlier else row


def turn(asked: str, answered: str) -> list[Message]:
    return [Message("user", asked), Message("assistant", answered)]


def before(row: Mapping[str, Any]) -> list[Message]:
    """The system text and the history of a row: flat, user and assistant in turn, or in pairs."""
    system = text(row.get("system"), "system")
    out = [Message("system", system)] if system else []
    given = row.get(HISTORY)
    for item in _flat(listed(given, HISTORY) if given else []):
        role = "user" if len(out) % 2 == bool(system) else "assistant"
        out.append(Message("user" if role == "user" else "assistant", text(item, HISTORY)))
    return out


def _flat(history: list[Any]) -> list[Any]:
    if history and all(isinstance(item, list) for item in history):
        if any(len(item) != 2 for item in history):
            raise BadRow('"history" needs a question and an answer in each pair')
        return [text for item in history for text in item]
    if len(history) % 2:
        raise BadRow(f'"history" ends with a question: it has {len(history)} texts')
    return history


def _key(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The name that the row uses. Raises BadRow when nothing stands under it."""
    key = next((name for name in names if name in row), names[0])
    if row.get(key) is None:
        raise BadRow(f'"{key}" is missing')
    return key
