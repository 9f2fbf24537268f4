"""What the store gives back, and how it is written into a row. Standard library only.

Packing is lossless for every message: calls with arguments of any JSON, thinking, produced ids,
the mark for learning, and text that is no valid Unicode.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from glm.errors import BadRequest, StoreError
from glm.messages import Message, Sampling, ToolCall, Usage

FeedbackValue = Literal["like", "dislike"]


@dataclass(frozen=True)
class TurnRecord:
    """How an answer came about: the exact tokens sent and produced, their cost, the settings.

    Read from the store, `prompt` and `produced` are unpacked when they are first looked at, so
    that a long conversation can be listed without touching a million ids.
    """

    prompt: tuple[int, ...]
    produced: tuple[int, ...]
    usage: Usage
    seconds: float
    model: str
    sampling: Sampling | None
    finish: str

    def __getattr__(self, name: str) -> Any:
        packed = self.__dict__.get("_packed", {}).get(name)
        if packed is None:
            raise AttributeError(name)
        self.__dict__[name] = unpack_ids(packed)
        return self.__dict__[name]

    def facts(self) -> str:
        """Everything but the ids, as JSON."""
        return pack_json(
            {
                "usage": asdict(self.usage),
                "seconds": self.seconds,
                "model": self.model,
                "sampling": asdict(self.sampling) if self.sampling else None,
                "finish": self.finish,
            }
        )

    @classmethod
    def stored(cls, prompt: bytes, produced: bytes, facts: str) -> TurnRecord:
        """The record of a row."""
        row = unpack_json(facts)
        sampling = row["sampling"]
        if sampling is not None:
            known = {f.name for f in fields(Sampling)}
            sampling = Sampling(**{k: v for k, v in sampling.items() if k in known})
            object.__setattr__(sampling, "stop", tuple(sampling.stop))
        record = object.__new__(cls)
        record.__dict__.update(
            usage=Usage(**row["usage"]),
            seconds=row["seconds"],
            model=row["model"],
            sampling=sampling,
            finish=row["finish"],
            _packed={"prompt": prompt, "produced": produced},
        )
        return record


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a reader thought of an answer."""

    value: FeedbackValue
    note: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A message in its place in the tree.

    `branch` is (index, count) among the messages with the same parent, oldest first, the index
    from 0: `store.siblings(...)[index]` is this node.
    """

    id: int
    parent: int | None
    message: Message
    turn: TurnRecord | None = None
    branch: tuple[int, int] = (0, 1)
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A line of the sidebar. `updated` is in seconds since 1970; `turns` counts what the user
    said on the active branch."""

    id: str
    title: str
    updated: float
    turns: int
    model: str


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """A judged answer, for labelling; `path(owner, conversation, leaf=node)` is its context."""

    owner: str
    conversation: str
    node: int
    message: Message
    value: FeedbackValue
    note: str
    created: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A model's call and the call it should have made; None where there should be, or was, none."""

    owner: str
    conversation: str
    node: int
    model_call: ToolCall | None
    your_call: ToolCall | None
    created: float


# ---- rows --------------------------------------------------------------------------------


def pack_json(value: Any) -> str:
    """JSON text that SQLite can hold, readable where the text is valid Unicode."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: only the escaped form can be stored
        text = json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"this cannot be stored as JSON: {error}") from None
    return text


def unpack_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"a row of the conversation store cannot be read: {error}") from None


def pack_ids(ids: tuple[int, ...]) -> bytes:
    """Token ids as little-endian 32-bit integers."""
    packed = array("i", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_ids(data: bytes) -> tuple[int, ...]:
    packed = array("i")
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)


def valid_text(text: str) -> str:
    """The text as SQLite and a full-text index can hold it: valid Unicode, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")


def pack_call(call: ToolCall | None) -> str:
    return "" if call is None else pack_json(_call(call))


def unpack_call(text: str) -> ToolCall | None:
    return ToolCall(**unpack_json(text)) if text else None


def pack_message(message: Message) -> tuple[str, str, str | None, bytes | None]:
    """(role, content, extra, ids): content is plain text for searching, extra the rest as JSON."""
    content = valid_text(message.content)
    extra: dict[str, Any] = {}
    if content != message.content:
        extra["content"] = message.content
    if message.calls:
        extra["calls"] = [_call(call) for call in message.calls]
    for name in ("thinking", "name", "call_id", "vocabulary"):
        if getattr(message, name):
            extra[name] = getattr(message, name)
    if message.learn is not None:
        extra["learn"] = message.learn
    ids = None if message.ids is None else pack_ids(message.ids)
    return message.role, content, pack_json(extra) if extra else None, ids


def unpack_message(role: str, content: str, extra: str | None, ids: bytes | None) -> Message:
    rest: dict[str, Any] = {"content": content}
    if extra:
        rest |= unpack_json(extra)
    rest["calls"] = tuple(ToolCall(**call) for call in rest.get("calls", ()))
    if ids is not None:
        rest["ids"] = unpack_ids(ids)
    return Message(role, **rest)  # type: ignore[arg-type]


def _call(call: ToolCall) -> dict[str, Any]:
    row: dict[str, Any] = {"name": call.name, "arguments": _plain(call.arguments)}
    if call.id:
        row["id"] = call.id
    if call.text is not None:
        row["text"] = call.text
    return row


def _plain(arguments: Any) -> Any:
    return dict(arguments) if isinstance(arguments, Mapping) else arguments
