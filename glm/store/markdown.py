"""A conversation as Markdown that reads well, and back. Standard library only.

Each message starts with a comment that Markdown readers hide, `<!-- glm:message {...} -->`, and
a heading. `read_markdown` goes by the comments; in a file without them (written by hand) it goes
by headings such as "## User" or "## 助手". Texts, calls and thinking come back; line ends become
"\\n" and blank lines around a text are lost. The lossless form is `glm/store/exchange.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from glm.errors import BadRequest
from glm.messages import Conversation, Message, Role, ToolCall
from glm.store.exchange import Transcript

_HEADINGS: dict[str, dict[Role, str]] = {
    "en": {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool result"},
    "zh": {"system": "系统", "user": "用户", "assistant": "助手", "tool": "工具结果"},
}
_ROLE_OF: dict[str, Role] = {
    word.lower(): role for headings in _HEADINGS.values() for role, word in headings.items()
} | {"tool": "tool", "工具": "tool"}
_MARK = re.compile(r"^<!-- glm:(message|thinking|call) (\{.*\}) -->$", re.MULTILINE)
_HEADING = re.compile(
    rf"^#{{1,3}} [^\w\n]{{0,8}}({'|'.join(_ROLE_OF)})[ \t]*[:：]?[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)


def write_markdown(transcript: Transcript, lang: str = "en") -> str:
    """The text of a Markdown file, with headings in English or Chinese."""
    headings = _HEADINGS["zh" if lang == "zh" else "en"]
    parts = [f"# {' '.join(transcript.title.split())}"] if transcript.title.strip() else []
    for message in transcript.conversation.messages:
        known = {"role": message.role, "name": message.name, "call_id": message.call_id}
        title = headings[message.role] + (f" · {message.name}" if message.name else "")
        parts.append(_mark("message", known) + f"\n## {' '.join(title.split())}")
        parts.append(_hidden(message.content))
        if message.thinking:
            quoted = "\n".join(f"> {line}".rstrip(" ") for line in message.thinking.split("\n"))
            parts.append(_mark("thinking", {}) + "\n" + quoted)
        for call in message.calls:
            row = {"name": call.name, "arguments": dict(call.arguments)}
            known = {"id": call.id} | ({} if call.text is None else {"text": call.text})
            parts.append(_mark("call", known) + "\n" + _fenced(row))
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.encode("utf-8", "replace").decode()


def read_markdown(text: str) -> Transcript:
    """The conversation of a Markdown file; BadRequest where none can be found in it."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    sections = _sections(text, _MARK) or _sections(text, _HEADING)
    if not sections:
        raise BadRequest(
            'no conversation: headings such as "## User" and "## Assistant" are needed'
        )
    title = re.match(r"\s*# +(.+)\n", text[: sections[0][0].start()])
    messages: list[Message] = []
    for mark, body in sections:
        if mark.re is _HEADING:
            messages.append(Message(_ROLE_OF[mark[1].lower()], body.strip("\n")))
        elif mark[1] == "message":
            messages.append(_message(_object(mark[2]), body))
        elif not messages:
            raise BadRequest(f"the {mark[1]} in the first section belongs to no message")
        else:
            messages[-1] = _extended(messages[-1], mark, body)
    return Transcript(Conversation(tuple(messages)), title[1].strip() if title else "")


def _sections(text: str, mark: re.Pattern[str]) -> list[tuple[re.Match[str], str]]:
    found = list(mark.finditer(text))
    ends = [following.start() for following in found[1:]] + [len(text)]
    return [(here, text[here.end() : end]) for here, end in zip(found, ends, strict=False)]


def _message(known: dict[str, Any], body: str) -> Message:
    role = known.get("role")
    if role not in _HEADINGS["en"]:
        raise BadRequest(f"unknown role {json.dumps(role)[:40]} in a Markdown file")
    text = re.sub(r"\A\n## [^\n]*", "", body).strip("\n")
    name, call_id = (str(known.get(key) or "") for key in ("name", "call_id"))
    return Message(role, _shown(text), name=name, call_id=call_id)


def _extended(message: Message, mark: re.Match[str], body: str) -> Message:
    """The message with the thinking or the call of a section."""
    if mark[1] == "thinking":
        lines = body.strip("\n").split("\n")
        return replace(message, thinking="\n".join(re.sub(r"^> ?", "", line) for line in lines))
    known, lines = _object(mark[2]), body.strip().split("\n")
    row = _object("\n".join(lines[1:-1]))  # between the fences
    name, arguments, written = row.get("name"), row.get("arguments"), known.get("text")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise BadRequest("a call in a Markdown file needs a name and arguments")
    text = written if isinstance(written, str) else None
    call = ToolCall(name, arguments, str(known.get("id") or ""), text)
    return replace(message, calls=(*message.calls, call))


def _mark(kind: str, known: dict[str, Any]) -> str:
    row = {name: value for name, value in known.items() if value or name == "text"}
    inside = json.dumps(row).replace(">", "\\u003e")  # never ends the comment early
    return f"<!-- glm:{kind} {inside} -->"


def _hidden(text: str) -> str:
    """The text with what looks like one of our marks made harmless."""
    return re.sub(r"^<!-- (\\*)glm:", r"<!-- \\\1glm:", text, flags=re.MULTILINE)


def _shown(text: str) -> str:
    return re.sub(r"^<!-- \\(\\*)glm:", r"<!-- \1glm:", text, flags=re.MULTILINE)


def _fenced(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False, indent=2)
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{ticks}json\n{text}\n{ticks}"


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest(f"this is not a JSON object: {text[:40]!r}")
    return value
