"""A conversation as the JSON of OpenAI messages, and back, losing nothing. Standard library only.

    text = write_json(Transcript(conversation, "Weather"))
    transcript = read_json(text)

`messages` and `tools` of the file are what any OpenAI-compatible server takes. What these have
no field for (the exact text of a call, an empty call id, a tool descriptor of another form)
stands beside them under "glm_workbench", with a digest of the entry it belongs to: an entry
that somebody edited by hand counts as it now stands. Produced token ids are left out: they mean
something to one tokenizer only, and a file from elsewhere must not say one thing to the reader
and another to the model. Reading also takes a bare list of messages and the older
`function_call` form. Only text can be read, no pictures.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from glm.errors import BadRequest
from glm.messages import ROLES, Conversation, Message, ToolCall, ToolSpec

EXTRA = "glm_workbench"
_PLAIN_TOOL = {"name", "description", "parameters"}
_ROLES = {"developer": "system", "function": "tool"}  # older and newer names of OpenAI
_TEXT_PARTS = ("text", "input_text", "output_text")
_SHOWN = 5  # problems named in one sentence
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation with its title: what is exported and imported."""

    conversation: Conversation
    title: str = ""


def write_json(transcript: Transcript) -> str:
    """The text of an export file."""
    return json.dumps(to_openai(transcript), ensure_ascii=True, indent=2) + "\n"


def read_json(data: str | bytes) -> Transcript:
    """The conversation of a file; BadRequest names every message that cannot be read."""
    try:
        data = data.removeprefix("\ufeff") if isinstance(data, str) else data
        return from_openai(json.loads(data))
    except RecursionError:
        raise BadRequest("this file is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"this file is not JSON: line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # not UTF-8, or a number of a million digits
        raise BadRequest(f"this file is not JSON: {error}") from None


def to_openai(transcript: Transcript) -> dict[str, Any]:
    """The file as a value: `messages`, `tools` where there are some, and what they cannot hold."""
    conversation = transcript.conversation
    messages = _messages(conversation.messages)
    tools = [_tool(tool) for tool in conversation.tools]
    extra: dict[str, Any] = {"title": transcript.title} if transcript.title else {}
    without_ids = [message.edited() for message in conversation.messages]
    extra["messages"] = _kept(without_ids, messages, _read_message, _more_of_message)
    extra["tools"] = _kept(conversation.tools, tools, _read_tool, _more_of_tool)
    out: dict[str, Any] = {"messages": messages}
    if tools:
        out["tools"] = tools
    if extra := {name: value for name, value in extra.items() if value}:
        out[EXTRA] = extra
    return out


def from_openai(value: Any) -> Transcript:
    """A conversation from `{"messages": [...], "tools": [...]}` or from a list of messages."""
    if isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise BadRequest('no conversation: a list under "messages" is needed')
    if not value["messages"]:
        raise BadRequest('no conversation: "messages" is empty')
    extra = _mapping(value.get(EXTRA))
    problems: list[str] = []
    messages = _read_all("message", value["messages"], _read_message, problems)
    tools = _read_all("tool", value.get("tools") or [], _read_tool, problems)
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise BadRequest("; ".join(problems[:_SHOWN]) + more)
    _restore(messages, value["messages"], extra.get("messages"), _with_more_message)
    _restore(tools, value.get("tools") or [], extra.get("tools"), _with_more_tool)
    title = extra.get("title", "")
    return Transcript(
        Conversation(tuple(messages), tuple(tools)), title if isinstance(title, str) else ""
    )


def file_name(title: str, ending: str) -> str:
    """A name for a download that every system takes, from any title: `Weather.json`."""
    name = re.sub(r"[^\w\- ]+", "_", title, flags=re.UNICODE)[:60].strip(" _-.")
    name = name.encode("utf-8", "ignore").decode()
    if not name or re.fullmatch(r"(?i)con|prn|aux|nul|(com|lpt)\d", name):
        name = f"conversation {name}".strip()
    return f"{name}.{ending}"


# ---- one message -------------------------------------------------------------------------


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Calls without an id get one, and the tool messages that follow are matched by order."""
    out: list[dict[str, Any]] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.name:
            row["name"] = message.name
        if message.thinking:
            row["reasoning_content"] = message.thinking
        if message.calls:
            row["content"] = message.content or None
            row["tool_calls"] = [
                _call(call, f"call_{place}_{number}") for number, call in enumerate(message.calls)
            ]
            waiting = [call["id"] for call in row["tool_calls"]]
        if message.role == "tool":
            nearest = waiting[0] if waiting else f"call_{place}"
            row["tool_call_id"] = message.call_id or nearest
            if row["tool_call_id"] in waiting:
                waiting.remove(row["tool_call_id"])
        elif message.call_id:
            row["tool_call_id"] = message.call_id
        if message.learn is not None:
            row["weight"] = int(message.learn)
        out.append(row)
    return out


def _call(call: ToolCall, id: str) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id or id, "type": "function", "function": function}


def _read_message(row: Any) -> Message:
    if not isinstance(row, dict):
        raise BadRequest("an object is needed")
    role = row.get("role")
    role = _ROLES.get(role, role) if isinstance(role, str) else None
    if role not in ROLES:
        raise BadRequest(f"unknown role {_short(row.get('role'))}; allowed: {', '.join(ROLES)}")
    calls = _list(row.get("tool_calls"), "tool_calls")
    if isinstance(row.get("function_call"), dict):
        calls = [*calls, {"function": row["function_call"]}]
    weight = row.get("weight")
    if weight not in (None, 0, 1):
        raise BadRequest(f"weight is 0 or 1, not {_short(weight)}")
    return Message(
        role,
        _text(row.get("content")),
        calls=tuple(_read_call(call) for call in calls),
        thinking=_text(row.get("reasoning_content") or row.get("reasoning")),
        name=_text(row.get("name")),
        call_id=_text(row.get("tool_call_id")),
        learn=None if weight is None else bool(weight),
    )


def _read_call(row: Any) -> ToolCall:
    function = row.get("function") if isinstance(row, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest("a call needs a function with a name")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise BadRequest(f"the arguments of {_short(function['name'])} are not JSON") from None
    if not isinstance(arguments or {}, dict):
        raise BadRequest(f"the arguments of {_short(function['name'])} are not a JSON object")
    return ToolCall(function["name"], arguments or {}, _text(row.get("id")))


def _text(value: Any) -> str:
    """A string, nothing, or a list of text parts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadRequest(f"text is needed, not {_short(value)}")
    parts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise BadRequest(f"only text can be read, not a part of type {_short(kind)}")
        parts.append(part["text"])
    return "".join(parts)


# ---- one tool ----------------------------------------------------------------------------


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters is not None:
        function["parameters"] = dict(tool.parameters)
    if isinstance(tool.raw, dict) and tool.raw.get("name") == tool.name:
        function = tool.raw
    return {"type": "function", "function": function}


def _read_tool(row: Any) -> ToolSpec:
    function = row.get("function") if isinstance(row, dict) else None
    function = row if function is None else function  # a bare descriptor
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest("a function with a name is needed")
    parameters = function.get("parameters")
    if not isinstance(parameters, dict | None):
        raise BadRequest(f"the parameters of {_short(function['name'])} are not a JSON schema")
    plain = set(function) <= _PLAIN_TOOL
    return ToolSpec(
        function["name"],
        _text(function.get("description")),
        parameters,
        raw=None if plain else function,
    )


# ---- what OpenAI's form has no field for --------------------------------------------------


def _more_of_message(message: Message) -> dict[str, Any]:
    calls = [{"id": call.id, "text": call.text} for call in message.calls]
    return {"call_id": message.call_id, "calls": calls}


def _with_more_message(message: Message, more: Mapping[str, Any]) -> Message:
    calls = []
    for call, rest in zip(message.calls, more["calls"], strict=True):
        text = None if rest["text"] is None else _text(rest["text"])
        calls.append(replace(call, id=_text(rest["id"]), text=text))
    return replace(message, call_id=_text(more["call_id"]), calls=tuple(calls))


def _more_of_tool(tool: ToolSpec) -> dict[str, Any]:
    parameters = None if tool.parameters is None else dict(tool.parameters)
    more = {"name": tool.name, "description": tool.description}
    return {**more, "parameters": parameters, "raw": tool.raw}


def _with_more_tool(tool: ToolSpec, more: Mapping[str, Any]) -> ToolSpec:
    name, description, parameters = more["name"], more["description"], more["parameters"]
    if not isinstance(parameters, dict | None):
        return tool
    return ToolSpec(_text(name), _text(description), parameters, more["raw"])


def _kept(
    values: Sequence[_T],
    rows: list[dict[str, Any]],
    read: Callable[[Any], _T],
    more: Callable[[_T], dict[str, Any]],
) -> list[dict[str, Any]]:
    """For each entry that would not come back as it is: its place, its digest, and the rest."""
    return [
        {"index": place, "digest": _digest(row), **more(value)}
        for place, (value, row) in enumerate(zip(values, rows, strict=True))
        if read(row) != value
    ]


def _restore(
    values: list[_T],
    rows: list[Any],
    kept: Any,
    add: Callable[[_T, Mapping[str, Any]], _T],
) -> None:
    for more in kept if isinstance(kept, list) else []:
        try:
            place = more["index"]
            if more["digest"] == _digest(rows[place]):
                values[place] = add(values[place], more)
        except (LookupError, TypeError, ValueError, BadRequest):
            continue  # written by another hand: the plain entry counts


def _digest(row: Any) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


# ---- small readers -----------------------------------------------------------------------


def _read_all(what: str, rows: Any, read: Callable[[Any], _T], problems: list[str]) -> list[_T]:
    values = []
    for place, row in enumerate(_list(rows, what), 1):
        try:
            values.append(read(row))
        except BadRequest as error:
            problems.append(f"{what} {place}: {error}")
    return values


def _list(value: Any, what: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise BadRequest(f"{what}: a list is needed, not {_short(value)}")
    return value or []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:39] + "…"
