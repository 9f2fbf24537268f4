"""Frames of the Tools tab to updates of its components: the only place that knows both."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import gradio as gr

from demo import gallery, model_choice, own_tools, tool_acts, tool_cards
from demo.desk import Desk, Visitor
from demo.painter import Updates, as_json
from demo.text import LANGUAGES
from demo.tool_asking import ToolFrame
from demo.tool_run import RunFrame
from demo.tool_setup import Setup
from demo.tool_steps import Step
from demo.tools_parts import ToolParts


def paint(desk: Desk, parts: ToolParts, visitor: Visitor, frame: ToolFrame) -> Updates:
    """The updates of one frame. An empty frame changes nothing."""
    out: Updates = {parts.notice: notice(frame.notice)}
    if frame.history is not None:
        out[parts.history] = as_text(frame.history)
    if frame.live is not None:
        out |= {parts.live: as_text(frame.live), parts.meter: meter(frame.meter)}
        blank = not frame.history and not frame.live
        out[parts.state] = state(frame.busy, blank, frame.conversation)
        out[parts.composer] = composer(frame)
    elif frame.composer is not None:
        out[parts.composer] = composer(frame)
    if frame.conversation is not None:
        chat = frame.conversation
        out[parts.conversation] = chat
        out[parts.listing] = tool_acts.conversations(desk, visitor, chat)
        out[parts.files] = tool_acts.draw_files(desk, visitor, chat)
    if frame.setup is not None:
        out |= panel(desk, parts, visitor, frame.setup)
    return out


def live(parts: ToolParts, frame: RunFrame) -> Updates:
    """One step of a run: the same two components every time."""
    return {parts.live: as_text(frame.live), parts.meter: meter(frame.meter, frame.waits)}


def panel(desk: Desk, parts: ToolParts, visitor: Visitor, setup: Setup) -> Updates:
    cards = desk.app.tools.cards(visitor.user)
    return {
        parts.panel: tool_cards.panel(cards, setup, visitor.say, desk.app.public),
        parts.setup: setup.text(),
        **choice(desk, parts, visitor, setup),
    }


def choice(desk: Desk, parts: ToolParts, visitor: Visitor, setup: Setup) -> Updates:
    """Which model answers the session, and a word when it is gone."""
    manager, say = desk.app.manager, visitor.say
    button = f'data-act="t-model" data-model="{model_choice.BASE}"'
    return {
        parts.choice: model_choice.draw(manager, setup.model, say, 'data-set="model"'),
        parts.gone: model_choice.draw_gone(manager, setup.model, say, button),
    }


def whole(desk: Desk, parts: ToolParts, visitor: Visitor, lang: str) -> Updates:
    """What depends on the language and on who is there, not on the conversation."""
    lang = lang if lang in LANGUAGES else "en"
    names = [c.name for c in desk.app.tools.cards(visitor.user) if c.available]
    return {
        parts.hero: gallery.draw(visitor.say, lang, names),
        parts.own: own_tools.draw(visitor.say),
        parts.isolation: tool_acts.draw_isolation(desk, visitor),
    }


def as_text(steps: list[Step]) -> str:
    return json.dumps(steps, ensure_ascii=False).replace("<", "\\u003c")


def state(busy: bool, blank: bool, conversation: str | None) -> str:
    data: dict[str, Any] = {"busy": busy, "blank": blank}
    if conversation is not None:
        data["conversation"] = conversation
    return as_json(data)


def meter(text: str, waits: bool = False) -> str:
    mark = '<span class="hand"></span>' if waits else '<span class="dots"></span>'
    return f"{mark}{escape(text)}" if text else ""


def notice(text: str) -> str:
    return f'<div class="notice" role="alert">{escape(text)}</div>' if text else ""


def composer(frame: ToolFrame) -> Any:
    """Send or stop, and the text where a frame replaces it; what is being typed stays."""
    change: dict[str, Any] = {}
    if frame.live is not None:
        change = {"submit_btn": not frame.busy, "stop_btn": frame.busy}
    if frame.composer is not None:
        change["value"] = {"text": frame.composer, "files": list(frame.files)}
    return gr.update(**change)
