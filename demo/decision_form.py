"""The form in which a person decides about a call: run it, change it, skip it, answer it.

The same form stands in the conversation while the loop waits, and in a dialog to fork from a
call of the past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from demo import schema_form
from demo.text import Refused, Say
from glm.loop.pause import Decision
from glm.messages import ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class Known:
    """What the form knows of a tool: its schema, and whether a person plays it."""

    name: str
    schema: Mapping[str, Any] | None = None
    manual: bool = False


def form(call: ToolCall, tools: Sequence[Known], say: Say, node: int = 0) -> str:
    """`node` is the turn of the past that holds the call; 0 while the loop waits for it."""
    tool = next((t for t in tools if t.name == call.name), Known(call.name))
    raw = not schema_form.properties(tool.schema) or not _fits(call, tool)
    inputs = "" if raw else schema_form.fields(tool.schema, call.arguments, say)
    lead = "tools.next_fork" if node else "tools.next_manual" if tool.manual else "tools.next_call"
    written = _written("", not tool.manual, say)
    toggle = "" if raw else _toggle("tools.as_json", "json", say)
    return (
        f'<form class="decide" data-kind="call" data-node="{node}" data-call="{escape(call.id)}"'
        f"{' data-raw' if raw else ''}>"
        f'<p class="next">{escape(say(lead))}</p>'
        f'<label class="field"><span><b>{escape(say("tools.tool"))}</b></span>'
        f"{_names(call.name, tools)}</label>"
        f'<div class="fields"{" hidden" if raw else ""}>{inputs}</div>'
        f"{schema_form.as_json(call.arguments, not raw, say)}{toggle}{written}"
        f"{_buttons(tool.manual, say)}</form>"
    )


def review(call: ToolCall, result: ToolResult, say: Say, node: int = 0) -> str:
    """To let an observation pass or to write another; `node` as above."""
    lead = "tools.next_rewrite" if node else "tools.next_review"
    passes = "" if node else _submit("run", say("tools.pass"), "go")
    writes = _submit("write", say("tools.use_text"), "go" if node else "")
    return (
        f'<form class="decide" data-kind="seen" data-node="{node}" data-call="{escape(call.id)}">'
        f'<p class="next">{escape(say(lead))}</p>'
        f"{_written(result.text, False, say)}"
        f'<div class="row">{passes}{writes}</div></form>'
    )


def decision(sent: Mapping[str, Any], tools: Sequence[Known]) -> Decision:
    """What the form sent. Raises Refused and BadRequest."""
    action = str(sent.get("action"))
    if action == "skip":
        return Decision("skip")
    text = str(sent.get("text") or "")
    name = str(sent.get("name") or "") or None
    if sent.get("kind") == "seen":
        return Decision("write", text=text) if action == "write" else Decision()
    schema = next((t.schema for t in tools if t.name == name), None)
    arguments = schema_form.arguments(schema, sent)
    if action == "write":
        if not text.strip():
            raise Refused("tools.write_something")
        return Decision("write", name, arguments, text)
    return Decision("run", name, arguments)


def _fits(call: ToolCall, tool: Known) -> bool:
    """Whether the form of the schema has a field for every argument."""
    return set(call.arguments) <= set(schema_form.properties(tool.schema))


def _names(current: str, tools: Sequence[Known]) -> str:
    names = list(dict.fromkeys([current, *(t.name for t in tools)]))
    rows = "".join(f"<option>{escape(name)}</option>" for name in names)
    return f'<select name="name">{rows}</select>'


def _written(text: str, hidden: bool, say: Say) -> str:
    label, hint = escape(say("tools.observation")), escape(say("tools.observation_hint"))
    return (
        f'<label class="field written"{" hidden" if hidden else ""}><span><b>{label}</b></span>'
        f'<textarea name="text" rows="4" placeholder="{hint}">{escape(text)}</textarea></label>'
    )


def _buttons(manual: bool, say: Say) -> str:
    run = _submit("run", say("tools.run"), "" if manual else "go")
    write = (
        _submit("write", say("tools.send_written"), "go")
        if manual
        else f'<button type="button" class="pill" data-act="t-write" '
        f'data-then="{escape(say("tools.send_written"))}">{escape(say("tools.write"))}</button>'
    )
    skip = _submit("skip", say("tools.skip"), "")
    first = write if manual else run
    return f'<div class="row">{first}{"" if manual else write}{skip}</div>'


def _toggle(key: str, what: str, say: Say) -> str:
    return (
        f'<button type="button" class="link small" data-act="t-{what}">{escape(say(key))}</button>'
    )


def _submit(action: str, label: str, kind: str) -> str:
    return (
        f'<button type="submit" class="pill {kind}" name="action" value="{action}">'
        f"{escape(label)}</button>"
    )
