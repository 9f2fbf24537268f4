"""Which model answers: the line under the chat, and the dialog that opens another one.

Visitors read the dialog; opening is the operator's, checked again here on the server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from demo.desk import Desk, Visitor
from demo.text import Say, sentence
from glm.errors import GlmError
from glm.manager import ModelState

TABLE = Path(__file__).parents[1] / "assets" / "models.json"
STEP = 0.1


def line(state: ModelState, say: Say) -> str:
    """What answers now, and the way to something better."""
    info = state.info
    if state.status == "loading" and info is None:
        return (
            f'<span class="spin"></span><span><b>{escape(say("model.loading"))}{_done(state)}</b> '
            f"{escape(say('model.loading_hint'))}</span>"
        )
    if info is None:
        text = say("model.failed", reason=state.message)
    elif info.embedded:
        text = say("model.embedded", size=f"{info.parameters / 1e6:.1f}")
    else:
        text = say("model.other", name=info.name, context=f"{info.context:,}")
    action = escape(say("model.better" if info is None or info.embedded else "model.title"))
    return f'<span>{escape(text)}</span> <button class="link" data-do="models">{action}</button>'


def short(state: ModelState, say: Say) -> str:
    """The name for the head of the page."""
    return state.info.name if state.info else say("model.loading")


def table(say: Say, lang: str, operator: bool) -> str:
    """The models worth opening."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    heads = "".join(f"<th>{escape(say(f'model.{key}'))}</th>" for key in ("size", "memory"))
    body = "".join(_row(row, say, lang, operator) for row in rows)
    intro = escape(say("model.intro" if operator else "model.visitor"))
    return (
        f'<p>{intro}</p><table class="models"><thead><tr><th>{escape(say("model.family"))}</th>'
        f"{heads}<th></th></tr></thead><tbody>{body}</tbody></table>"
    )


def _row(row: dict[str, Any], say: Say, lang: str, operator: bool) -> str:
    name = escape(row["id"])
    button = ""
    if row.get("later"):
        button = f'<span class="later">{escape(say("model.later"))}</span>'
    elif operator:
        button = (
            f'<button class="pill" data-do="choose" data-id="{name}">'
            f"{escape(say('model.use'))}</button>"
        )
    return (
        f"<tr><td><b>{name}</b><small>{escape(row['note'][lang])}</small></td>"
        f"<td>{escape(row['size'])}</td><td>{escape(row['memory'])}</td><td>{button}</td></tr>"
    )


@dataclass(frozen=True, slots=True)
class Opening:
    """One step of opening a model: a sentence, and whether it has ended."""

    text: str
    done: bool = False
    failed: bool = False


def open_model(desk: Desk, visitor: Visitor, name: str) -> Iterator[Opening]:
    """Replace the model, showing how far it is; the one before it answers meanwhile."""
    name, say, failure = name.strip(), visitor.say, []
    if not name:
        return
    try:
        visitor.user.require_operator("open models")
    except GlmError as error:
        yield Opening(sentence(say, error), True, True)
        return

    def work() -> None:
        try:
            desk.app.manager.open(name)
        except GlmError as error:
            failure.append(sentence(say, error))

    thread = threading.Thread(target=work, name="open-model", daemon=True)
    thread.start()
    while thread.is_alive():
        state = desk.app.manager.state()
        yield Opening(f"{say('model.opening', name=name)}{_done(state)} {state.message}")
        thread.join(STEP)
    text = failure[0] if failure else say("model.opened", name=name)
    yield Opening(text, True, bool(failure))


def _done(state: ModelState) -> str:
    return "…" if state.progress is None else f" {state.progress:.0%}"
