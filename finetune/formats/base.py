"""What a data format is, and the small readers that all of them share. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from glm.errors import BadRequest
from glm.messages import Conversation


class BadRow(BadRequest):
    """A row cannot be read; the sentence names the key."""


class CannotHold(BadRequest):
    """A format has no place for a part without which the conversation makes no sense."""


class Format(Protocol):
    """One way of writing a conversation as JSON. Modules of this folder are formats."""

    name: str

    def looks_like(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is of this format, told from its keys."""

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """The conversation of a row. Raises BadRow."""

    def write(self, conversation: Conversation) -> dict[str, Any]:
        """The row of a conversation; what has no place in it is left out (see loss.py).

        Raises CannotHold where what is left would teach something else.
        """


def text(value: Any, key: str) -> str:
    """A string; nothing is empty, numbers are written as JSON, text parts are joined."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float):
        return json.dumps(value)
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(parts)  # type: ignore[arg-type]
    raise BadRow(f'"{key}" is text, not {short(value)}')


def observation(value: Any, key: str) -> str:
    """What a tool answered, as the official code writes it: JSON unless it is a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(_is_part(part) for part in value):
        return text(value, key)
    return json.dumps(value, ensure_ascii=False)


def listed(value: Any, key: str) -> list[Any]:
    """A list, or the JSON text of one (cells of csv and parquet files)."""
    if isinstance(value, str):
        value = parsed(value, key)
    if not isinstance(value, list):
        raise BadRow(f'"{key}" is a list, not {short(value)}')
    return value


def parsed(value: str, key: str) -> Any:
    """The value of a JSON text. Raises BadRow."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f'"{key}" is not JSON: {error}: {short(value)}') from None


def short(value: Any) -> str:
    """A value in at most 40 characters, for a sentence."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 40 else shown[:39] + "…"


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "text" and "text" in value
