"""Which model answers: the line under the chat, and the dialog with models worth opening.

Visitors read the dialog; the operator's choice goes to the Models tab, where models are opened.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from demo.text import Say
from glm.manager import ModelState

TABLE = Path(__file__).parents[1] / "assets" / "models.json"
UNLOADED = "unloaded"  # why a model stepped aside when a person asked it to


def line(state: ModelState, say: Say) -> str:
    """What answers now, and the way to something better."""
    info = state.info
    if state.status == "loading" and info is None:
        return (
            f'<span class="spin"></span><span><b>{escape(say("model.loading"))}{_done(state)}</b> '
            f"{escape(say('model.loading_hint'))}</span>"
        )
    if info is None:
        key = "model.aside" if state.status == "aside" else "model.failed"
        text = say(key, reason=why_none(state, say))
    elif info.embedded:
        text = say("model.embedded", size=f"{info.parameters / 1e6:.1f}")
    else:
        text = say("model.other", name=info.name, context=f"{info.context:,}")
    action = escape(say("model.better" if info is None or info.embedded else "model.title"))
    return f'<span>{escape(text)}</span> <button class="link" data-do="models">{action}</button>'


def why_none(state: ModelState, say: Say) -> str:
    """Why no model answers, for people."""
    return say("model.unloaded") if state.message == UNLOADED else state.message


def rows() -> list[dict[str, Any]]:
    """The models worth opening, from assets/models.json."""
    found: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def table(say: Say, lang: str, operator: bool) -> str:
    """The models worth opening."""
    heads = "".join(f"<th>{escape(say(f'model.{key}'))}</th>" for key in ("size", "memory"))
    body = "".join(_row(row, say, lang, operator) for row in rows())
    intro = escape(say("model.intro" if operator else "model.visitor"))
    button = f'<button class="pill" data-do="manage">{escape(say("model.manage"))}</button>'
    more = f'<p class="more">{button}</p>' if operator else ""
    return (
        f'<p>{intro}</p><table class="models"><thead><tr><th>{escape(say("model.family"))}</th>'
        f"{heads}<th></th></tr></thead><tbody>{body}</tbody></table>{more}"
    )


def _row(row: dict[str, Any], say: Say, lang: str, operator: bool) -> str:
    name = escape(row["id"])
    button = ""
    if operator:
        button = (
            f'<button class="pill" data-do="choose" data-id="{name}">'
            f"{escape(say('model.use'))}</button>"
        )
    return (
        f"<tr><td><b>{name}</b><small>{escape(row['note'][lang])}</small></td>"
        f"<td>{escape(row['size'])}</td><td>{escape(row['memory'])}</td><td>{button}</td></tr>"
    )


def _done(state: ModelState) -> str:
    return "…" if state.progress is None else f" {state.progress:.0%}"
