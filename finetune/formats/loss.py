"""What did not survive a way through a format: two conversations compared, in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from glm.messages import Conversation, Message


def losses(before: Conversation, after: Conversation) -> list[str]:
    """Names of what `after` no longer says; empty when both mean the same.

    Ids of calls and produced token ids are no meaning: they are left out of the comparison.
    """
    out = []
    if before.tools != after.tools:
        lost = "the tools" if not after.tools else "the exact descriptors of the tools"
        out.append(lost)
    left, right = _numbered(before.messages), _numbered(after.messages)
    for name, without in _PARTS.items():
        bare_left, bare_right = without(left), without(right)
        if _differ(name, left, right):
            out.append(name)
        left, right = bare_left, bare_right
    return out + ([] if left == right else [_structure(left, right)])


def _numbered(messages: tuple[Message, ...]) -> list[Message]:
    """Calls by their place; what a model produced is the text alone."""
    ids: dict[str, str] = {}
    out = []
    for message in messages:
        calls = []
        for call in message.calls:
            number = f"call_{len(ids) + 1}"
            ids[call.id or number] = number
            calls.append(replace(call, id=number))
        call_id = ids.get(message.call_id, "")
        out.append(message.edited(calls=tuple(calls), call_id=call_id))
    return out


def _without(**empty: Any) -> Callable[[list[Message]], list[Message]]:
    return lambda messages: [replace(message, **empty) for message in messages]


def _without_texts(messages: list[Message]) -> list[Message]:
    bare = []
    for message in messages:
        calls = tuple(replace(call, text=None) for call in message.calls)
        bare.append(replace(message, calls=calls))
    return bare


def _without_systems(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message.role != "system"]


# what can get lost alone -> the messages without it
_PARTS: dict[str, Callable[[list[Message]], list[Message]]] = {
    "the system message": _without_systems,
    "the marks of what is learnt": _without(learn=None),
    "the thinking": _without(thinking=""),
    "the exact text of a call": _without_texts,
    "which call an observation belongs to": _without(name="", call_id=""),
}


def _differ(name: str, left: list[Message], right: list[Message]) -> bool:
    return _VALUES[name](left) != _VALUES[name](right)


def _texts_of_calls(messages: list[Message]) -> list[Any]:
    return [call.text for message in messages for call in message.calls if call.text is not None]


_VALUES: dict[str, Callable[[list[Message]], list[Any]]] = {
    "the system message": lambda all: [m.content for m in all if m.role == "system"],
    "the marks of what is learnt": lambda all: [m.learn for m in all if m.learn is not None],
    "the thinking": lambda all: [m.thinking for m in all if m.thinking],
    "the exact text of a call": _texts_of_calls,
    "which call an observation belongs to": lambda all: [
        (m.name, m.call_id) for m in all if m.name or m.call_id
    ],
}


def _structure(left: list[Message], right: list[Message]) -> str:
    """The difference that is left, once the parts that can get lost alone are equal."""
    parts_left, parts_right = _atoms(left), _atoms(right)
    if sorted(parts_left) == sorted(parts_right):
        return "which calls were made at once"
    if [part.split() for part in parts_left] == [part.split() for part in parts_right]:
        return "white space at the ends of texts"
    return "some turns"


def _atoms(messages: list[Message]) -> list[str]:
    out = []
    for message in messages:
        if message.content or not message.calls:
            out.append(f"{message.role} {message.content}")
        for call in message.calls:
            arguments = json.dumps(dict(call.arguments), sort_keys=True, default=str)
            out.append(f"call {call.name} {arguments}")
    return out
