"""A list of turns as any tool writes it -> messages. The one reader behind most formats.

Roles by their many names, `content` or `value`, calls as ChatGLM3's `tool` rows, OpenAI's
`tool_calls`, sharegpt's `function_call`, a `metadata` with the tool's name, or an interpreter's
code. A thought and the calls after it become one assistant message; calls are numbered in order
(`call_1`) where the file has no ids, and an observation belongs to the first call that waits; where
it has, observations stand in the order of the calls they answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from finetune.formats.base import BadRow, listed, observation, parsed, short, text
from glm.dialects import calls as written
from glm.dialects.chatglm3 import INTERPRETER, call_text
from glm.messages import Message, ToolCall

ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "ai"),
    "observation": ("observation", "function", "tool_response", "function_response", "ipython"),
    "call": ("function_call", "tool_call"),
    "tool": ("tool",),
    "interpreter": ("interpreter",),
}
_KIND = {name: kind for kind, names in ROLES.items() for name in names}
_MARKS = ("loss", "weight", "train")  # ours and ChatGLM3's, OpenAI's, axolotl's


def read(value: Any, key: str, calls_in_text: bool = False) -> tuple[Message, ...]:
    """The messages under `key` of a row. Raises BadRow, naming the turn.

    `calls_in_text`: an assistant's text right before an observation is a call when it reads as
    one (GLM-4's files: `{"name": ..., "arguments": ...}`, or the name and a newline first).
    """
    entries = listed(value, key)
    if not entries:
        raise BadRow(f'"{key}" is empty')
    reader = _Reader()
    for number, entry in enumerate(entries):
        after = entries[number + 1] if number + 1 < len(entries) else None
        try:
            if not isinstance(entry, Mapping):
                raise BadRow(f"an object is needed, not {short(entry)}")
            reader.take(entry, calls_in_text and _kind(after) in ("observation", "tool"))
        except BadRow as error:
            raise BadRow(f"{key}[{number}]: {error}") from None
    return tuple(_in_order(reader.messages))


def of_row(row: Mapping[str, Any], key: str, calls_in_text: bool = False) -> tuple[Message, ...]:
    """The messages under `key`, a `system` beside them first."""
    messages = read(row.get(key), key, calls_in_text)
    system = text(row.get("system"), "system")
    return (Message("system", system), *messages) if system else messages


def call(name: Any, given: Any, id: str = "") -> ToolCall:
    """A call with its arguments as an object, or as the JSON text of one."""
    if not isinstance(name, str) or not name:
        raise BadRow('a call needs a "name"')
    if isinstance(given, str):
        given = parsed(given, f"arguments of {name}") if given.strip() else {}
    if not isinstance(given, Mapping | None):
        raise BadRow(f"the arguments of {name} are an object, not {short(given)}")
    try:
        json.dumps(given, allow_nan=False)
    except ValueError:
        raise BadRow(f"the arguments of {name} hold a number that is not finite") from None
    return ToolCall(name, dict(given or {}), id)


def learn(entry: Mapping[str, Any]) -> bool | None:
    """The file's own word on the loss of a turn."""
    for key in _MARKS:
        mark = entry.get(key)
        if mark is not None and mark not in (0, 1):
            raise BadRow(f'"{key}" is true or false, not {short(mark)}')
        if mark is not None:
            return bool(mark)
    return None


def _kind(entry: Any) -> str:
    """What a turn is. A null counts as absent: arrow files give every turn every key."""
    if not isinstance(entry, Mapping):
        return ""
    role = entry.get("role") or entry.get("from")
    kind = _KIND.get(role.lower(), "") if isinstance(role, str) else ""
    if kind == "tool":
        has = {key for key in entry if entry[key] is not None}
        said, answers = {"content", "value"} & has, "tool_call_id" in has
        row = {"parameters", "arguments", "observation"} & has and not (said and answers)
        return "tool" if row or not (said or answers) else "observation"
    return kind


class _Reader:
    """Turns in, messages out; knows which calls wait for their observation."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._waiting: list[ToolCall] = []
        self._calls = 0

    def take(self, entry: Mapping[str, Any], may_be_call: bool) -> None:
        kind = _kind(entry)
        said = entry.get("content") if entry.get("content") is not None else entry.get("value")
        mark = learn(entry)
        if kind in ("system", "user"):
            self._waiting = []
            if not (entry.get("tools") and not said):  # GLM-4: an empty turn that carries tools
                self.messages.append(_spoken(kind, said, mark))
        elif kind == "assistant":
            self._assistant(self._answer(entry, said, may_be_call))
        elif kind == "call":
            self._assistant(Message("assistant", calls=self._of_value(said), learn=mark))
        elif kind == "interpreter":
            self._assistant(Message("assistant", calls=(self._code(said),), learn=mark))
        elif kind == "tool":
            self._row(entry, mark)
        elif kind == "observation":
            self._observed("" if said is None else observation(said, "content"), entry, mark)
        else:
            role = entry.get("role") or entry.get("from")
            known = ", ".join(sorted(_KIND))
            raise BadRow(f"unknown role {short(role)}; known: {known}")

    def _answer(self, entry: Mapping[str, Any], said: Any, may_be_call: bool) -> Message:
        metadata = text(entry.get("metadata"), "metadata").strip()
        content, calls = text(said, "content"), list[ToolCall]()
        if metadata:
            calls, content = [self._of_metadata(metadata, content)], ""
        elif may_be_call and (found := _in_text(content)):
            calls, content = [self._numbered(one) for one in found], ""
        for item in listed(entry.get("tool_calls") or [], "tool_calls"):
            calls.append(self._of_object(item))
        if isinstance(entry.get("function_call"), Mapping):
            calls.append(self._of_object(entry["function_call"]))
        thinking = entry.get("reasoning_content") or entry.get("reasoning")
        return Message(
            "assistant",
            content,
            calls=tuple(calls),
            thinking=text(thinking, "reasoning_content"),
            learn=learn(entry),
        )

    def _assistant(self, message: Message) -> None:
        """A call goes into the message of the thought before it, when their loss is the same."""
        before = self.messages[-1] if self.messages else None
        only_calls = message.calls and not message.content and not message.thinking
        if (
            only_calls
            and before is not None
            and before.role == "assistant"
            and (before.content or before.calls)
            and before.learn == message.learn
        ):
            self.messages[-1] = replace(before, calls=before.calls + message.calls)
        else:
            self.messages.append(message)
            self._waiting = []
        self._waiting += message.calls

    def _row(self, entry: Mapping[str, Any], mark: bool | None) -> None:
        """ChatGLM3's `tool` turn: a call and what it brought."""
        if "parameters" not in entry and "arguments" not in entry:
            raise BadRow('a tool turn needs "parameters", or "content" with what a tool answered')
        given = entry.get("parameters")
        given = entry.get("arguments") if given is None else given
        made = self._numbered(call(entry.get("name"), given))
        self._assistant(Message("assistant", calls=(made,), learn=mark))
        if "observation" in entry:
            self._observed(observation(entry["observation"], "observation"), {}, None)

    def _observed(self, said: str, entry: Mapping[str, Any], mark: bool | None) -> None:
        wanted = text(entry.get("tool_call_id"), "tool_call_id")
        named = text(entry.get("name"), "name")
        found = [one for one in self._waiting if wanted in ("", one.id)]
        if found:
            self._waiting.remove(found[0])
            wanted, named = found[0].id, named or found[0].name
        self.messages.append(Message("tool", said, name=named, call_id=wanted, learn=mark))

    def _numbered(self, made: ToolCall) -> ToolCall:
        self._calls += 1
        return made if made.id else replace(made, id=f"call_{self._calls}")

    def _of_object(self, item: Any) -> ToolCall:
        return self._numbered(_object(item))

    def _of_value(self, said: Any) -> tuple[ToolCall, ...]:
        """One call or a list of them, as an object or as its JSON text."""
        value = parsed(said, "value") if isinstance(said, str) else said
        items = value if isinstance(value, list) else [value]
        return tuple(self._of_object(item) for item in items)

    def _of_metadata(self, name: str, body: str) -> ToolCall:
        """A call as the model wrote it, under its name. Text in the official form needs no copy."""
        if name == INTERPRETER:
            return self._code(body)
        try:
            made = call(name, written.arguments(body))
        except written.NotACall as error:
            raise BadRow(f"the call of {name} cannot be read: {error}") from None
        return self._numbered(made if body.lstrip().startswith("{") else _kept(made, body))

    def _code(self, said: Any) -> ToolCall:
        body = text(said, "content")
        made = ToolCall(INTERPRETER, {"code": written.unfence(body)})
        return self._numbered(_kept(made, body) if "```" in body else made)


def _in_order(messages: list[Message]) -> list[Message]:
    """Observations of calls made at once, in the order of the calls: ChatGLM3 writes no ids."""
    out = list(messages)
    for first, message in enumerate(messages, 1):
        order = {made.id: number for number, made in enumerate(message.calls)}
        seen = list(takewhile(lambda one: one.role == "tool", messages[first:])) if order else []
        ids = {one.call_id for one in seen}
        if len(order) == len(message.calls) and len(ids) == len(seen) and ids <= order.keys():
            seen.sort(key=lambda one: order[one.call_id])
            out[first : first + len(seen)] = seen
    return out


def _spoken(role: str, said: Any, mark: bool | None) -> Message:
    return Message("system" if role == "system" else "user", text(said, "content"), learn=mark)


def _kept(made: ToolCall, body: str) -> ToolCall:
    """With the text of the file, where the official form of the call is another."""
    return made if call_text(made) == body else replace(made, text=body)


def _object(item: Any) -> ToolCall:
    """`{"name", "arguments"}`, `{"name", "parameters"}`, or one of them under "function"."""
    if not isinstance(item, Mapping):
        raise BadRow(f"a call is an object, not {short(item)}")
    inner = item.get("function")
    inner = inner if isinstance(inner, Mapping) else item
    given = inner.get("arguments")
    given = inner.get("parameters") if given is None else given
    return call(inner.get("name"), given, text(item.get("id"), "id"))


def _in_text(content: str) -> list[ToolCall]:
    """The calls that a text spells; none when it is plain text."""
    name, newline, rest = content.partition("\n")
    try:
        if content.lstrip().startswith("{"):
            return [ToolCall(name, given) for name, given in written.named(content)]
        if content.lstrip().startswith("["):
            return [_object(item) for item in json.loads(content)]
        if newline and name.strip() and " " not in name.strip():
            return [ToolCall(name.strip(), written.arguments(rest))]
    except (written.NotACall, BadRow, ValueError, RecursionError):
        return []
    return []
