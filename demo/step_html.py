"""One step of a conversation with tools as safe HTML: said, thought, called, observed, ended.

All text of models, tools and visitors is escaped or goes through `rich_text`, which lets no
markup pass. `tools.js` acts on the data attributes that are written here, and on no others.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from demo.rich_text import rich_text
from demo.text import Say
from glm.loop.observations import PERSON, SKIPPED
from glm.loop.replay import MOCK, REPLAY
from glm.messages import Image, Table, ToolCall, ToolResult

LONG = 1200  # characters of an observation that are shown unfolded
MOST = 30_000  # characters that are shown at all
ROWS = 200  # of a table
ONLY_PICTURES = re.compile(r"```(result)?|\[Image\]|\s")  # what stands for pictures in a text
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
RECORDED = {PERSON: "tools.by_you", REPLAY: "tools.replayed", MOCK: "tools.mocked"}


def question(text: str, bar: str = "") -> str:
    """What the user said."""
    return f'<div class="said">{escape(text)}</div>{bar}'


def thought(text: str, say: Say, live: bool = False) -> str:
    """The reasoning before a call or an answer; open while it is written."""
    mark = ' class="writing"' if live else ""
    return (
        f'<details class="thought" open><summary{mark}>{escape(say("tools.thought"))}</summary>'
        f"<p>{escape(text)}</p></details>"
    )


def answer(text: str, bar: str = "") -> str:
    """The answer itself, as rich text."""
    return f'<div class="answer md">{rich_text(text[:MOST])}</div>{bar}'


def writing_call(text: str, say: Say) -> str:
    """A call while the model writes it."""
    head = f'<b>{escape(say("tools.writing_call"))}</b><span class="spin"></span>'
    return f'<div class="card call"><div class="card-head">{head}</div>{_raw(text)}</div>'


def call(asked: ToolCall, state: str, say: Say, more: str = "") -> str:
    """A call, its arguments as a table; `state` is waiting, running, done or open."""
    spin = '<span class="spin"></span>' if state == "running" else ""
    label = escape(say(f"call.{state}"))
    head = (
        f'<span class="verb">{label}</span> <b class="name">{escape(asked.name)}</b>{spin}'
        f'<span class="gap"></span>'
    )
    raw = asked.text if asked.text is not None else _json(dict(asked.arguments))
    raw_title = escape(say("tools.as_json" if asked.text is None else "tools.raw"))
    return (
        f'<div class="card call {state}"><div class="card-head">{head}</div>'
        f"{_arguments(asked.arguments, say)}"
        f'<details class="source"><summary>{raw_title}</summary>{_raw(raw)}</details>{more}</div>'
    )


def malformed(name: str, raw: str, reason: str, say: Say) -> str:
    """Text that should have been a call."""
    head = f'<span class="verb">{escape(say("tools.malformed"))}</span> <b>{escape(name)}</b>'
    return (
        f'<div class="card call bad"><div class="card-head">{head}</div>'
        f'<p class="why">{escape(reason)}</p>{_raw(raw)}</div>'
    )


def observation(name: str, result: ToolResult, say: Say, more: str = "") -> str:
    """What came back: text, JSON or a table, pictures, how long it took, where it comes from."""
    badges = ""
    if result.error and result.text != SKIPPED.text:
        badges += _badge("bad", say("tools.error"))
    if result.text == SKIPPED.text:
        badges += _badge("", say("tools.skipped"))
    elif result.recorded:
        badges += _badge("recorded", say(RECORDED.get(result.recorded, "tools.recorded")))
    elif "recorded" in result.text[:400].lower():
        badges += _badge("recorded", say("tools.recorded"))
    seconds = ""
    if result.seconds:
        seconds = f'<span class="took">{escape(_seconds(result.seconds, say))}</span>'
    head = (
        f'<span class="verb">{escape(say("tools.answered"))}</span> '
        f'<b class="name">{escape(name)}</b>{badges}<span class="gap"></span>{seconds}'
    )
    kind = " bad" if result.error else ""
    body = "".join(map(_picture, result.images))
    body += _body(result, say)
    return f'<div class="card seen{kind}"><div class="card-head">{head}</div>{body}{more}</div>'


def ending(reason: str, error: str, say: Say) -> str:
    """Why a run ended, when that is not plain to see."""
    text = say(f"ended.{reason}")
    detail = f" <small>{escape(error)}</small>" if error and reason != "rounds" else ""
    return f'<div class="ending {reason}">{escape(text)}{detail}</div>'


def button(icon: str, label: str, action: str, **data: object) -> str:
    """A round button that `tools.js` listens to."""
    text = escape(label)
    values = "".join(f' data-{key}="{escape(str(value))}"' for key, value in data.items())
    return (
        f'<button type="button" class="icon i-{icon}" data-act="{action}"{values} '
        f'aria-label="{text}" title="{text}"></button>'
    )


def pill(label: str, action: str, extra: str = "", **data: object) -> str:
    """A button with words."""
    values = "".join(f' data-{key}="{escape(str(value))}"' for key, value in data.items())
    return (
        f'<button type="button" class="pill {extra}" data-act="{action}"{values}>'
        f"{escape(label)}</button>"
    )


def _body(result: ToolResult, say: Say) -> str:
    text = result.text[:MOST]
    if result.table is not None or (result.images and not ONLY_PICTURES.sub("", text)):
        shown = "" if result.table is None else _table(result.table)
        exact = f'<details class="source"><summary>{escape(say("tools.read_by_model"))}</summary>'
        return f"{shown}{exact}{_raw(text)}</details>"
    found = _parsed(text)
    shown = text if found is None else _json(found)
    if len(shown) <= LONG:
        return _raw(shown, "json" if found is not None else "")
    more = escape(say("tools.long", count=f"{len(result.text):,}"))
    return f'<details class="source"><summary>{more}</summary>{_raw(shown)}</details>'


def _parsed(text: str) -> Any:
    """JSON objects and lists; a number or a word is better left as it is."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _arguments(arguments: Mapping[str, Any], say: Say) -> str:
    rows = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(_value(value))}</td></tr>"
        for key, value in arguments.items()
    )
    if not rows:
        return f'<p class="none">{escape(say("tools.no_arguments"))}</p>'
    return f'<table class="args">{rows}</table>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    return (
        f'<div class="wide"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{_rows(table.rows[:ROWS])}</tbody></table></div>"
    )


def _rows(rows: Sequence[Sequence[Any]]) -> str:
    return "".join(
        "<tr>" + "".join(f"<td>{escape(_value(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )


def _picture(image: Image) -> str:
    if image.mime not in PICTURES:
        return ""
    data = base64.b64encode(image.data).decode()
    return f'<img class="plot" alt="" src="data:{image.mime};base64,{data}">'


def _raw(text: str, kind: str = "") -> str:
    return f'<pre class="text {kind}" tabindex="0">{escape(text[:MOST])}</pre>'


def _value(value: Any) -> str:
    return value if isinstance(value, str) else _json(value, None)


def _json(value: Any, indent: int | None = 2) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def _badge(kind: str, text: str) -> str:
    return f'<span class="badge {kind}">{escape(text)}</span>'


def _seconds(seconds: float, say: Say) -> str:
    if seconds < 0.0995:
        return say("tools.milliseconds", ms=max(1, round(seconds * 1000)))
    return say("tools.seconds", seconds=f"{seconds:.1f}")
