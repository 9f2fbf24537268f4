"""Frames and states to updates of the components: the only place that knows both."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from demo import acts, model_choice, models
from demo.desk import Desk, Visitor
from demo.drawer import who
from demo.frame import Frame
from demo.labels import Labels
from demo.parts import Parts
from demo.text import choose_language
from glm.identity import LOCAL, User

Updates = dict[Component, Any]
COOKIE = "glm_lang"


def language_of(desk: Desk, request: gr.Request) -> str:
    """The language of a page that opens: chosen before, the program's, or the browser's."""
    wanted = request.cookies.get(COOKIE) or desk.app.lang
    return choose_language(wanted, request.headers.get("accept-language"))


def sent(event: gr.EventData) -> dict[str, Any]:
    """The data of an event of one of our scripts."""
    data = getattr(event, "_data", None)
    return data if isinstance(data, dict) else {}


def visitor_of(desk: Desk, request: gr.Request, lang: str) -> Visitor:
    """Who asks. Without a server in front (tests), the person at the machine."""
    scope = getattr(getattr(request, "request", None), "scope", None) or {}
    user = scope.get("user")
    user = user if isinstance(user, User) else LOCAL
    say = desk.words.of(lang if lang in desk.words else desk.words.default)
    return Visitor(user, request.session_hash or "", say)


def joined(*many: Updates) -> Updates:
    """Updates of one component from several places, as one."""
    out: Updates = {}
    for updates in many:
        for component, update in updates.items():
            both = isinstance(update, dict) and isinstance(out.get(component), dict)
            out[component] = {**out[component], **update} if both else update
    return out


class Painter:
    """Turns what handlers say into what gradio sends."""

    def __init__(self, desk: Desk, parts: Parts, labels: Labels) -> None:
        self.desk, self.parts, self.labels = desk, parts, labels
        # At every step gradio's page copies the data of each component that may show progress;
        # one that is not on the page costs nothing.
        self.quick: dict[str, Any] = {
            "queue": False,
            "api_visibility": "private",
            "show_progress": "hidden",
            "show_progress_on": parts.lang,
        }
        self.slow = {**self.quick, "queue": True, "concurrency_limit": None}

    def frame(
        self, visitor: Visitor, conversation: str, frame: Frame, words: dict[str, str] | None = None
    ) -> Updates:
        """The updates of one frame."""
        parts = self.parts
        out: Updates = {}
        if frame.conversation is not None:
            conversation = frame.conversation
        if frame.history is not None:
            out[parts.history] = frame.history
        if frame.live is not None:
            out[parts.live] = frame.live
        if frame.conversation is not None:
            out[parts.conversation] = frame.conversation
        if frame.rows is not None or words:
            out[parts.turns] = _turns(frame, conversation, words)
        if frame.meter is not None or frame.notice is not None:
            out[parts.meter] = _meter(frame)
        if frame.context is not None:
            out[parts.usage] = _usage(visitor, *frame.context)
        if frame.listing:
            out[parts.listing] = acts.conversations(self.desk, visitor, conversation, "")
        out.update(self._composer(frame))
        if frame.rows is not None and not frame.rows.busy:
            out[parts.line] = models.line(self.desk.app.manager.state(), visitor.say)
        return out or {parts.meter: gr.skip()}  # gradio does not know an empty dictionary

    def _composer(self, frame: Frame) -> Updates:
        """Send or stop, and the text where a frame replaces it; what is being typed stays."""
        change: dict[str, Any] = {}
        if frame.rows is not None:
            change = {"submit_btn": not frame.rows.busy, "stop_btn": frame.rows.busy}
        if frame.composer is not None:
            change["value"] = {"text": frame.composer, "files": list(frame.files)}
        return {self.parts.composer: gr.update(**change)} if change else {}

    def opened(self, visitor: Visitor, conversation: str, lang: str = "") -> Updates:
        """A conversation with its settings; with `lang`, the whole page in that language."""
        self.desk.answers.stop(visitor.key)
        frame = acts.open_one(self.desk, visitor, conversation)
        words = self.desk.words.group(lang, "page") if lang else None
        current = frame.conversation or ""
        wish = acts.wish_of(self.desk, visitor, current)
        return {
            **self.frame(visitor, current, frame, words),
            **self.parts.drawer.updates(wish, self.context()),
            **self.choice(visitor, wish.model),
        }

    def choice(self, visitor: Visitor, model: str) -> Updates:
        """Which model answers the conversation, and a word when it is gone."""
        manager, say = self.desk.app.manager, visitor.say
        button = f'data-choose="{model_choice.BASE}"'
        return {
            self.parts.choice: model_choice.draw(manager, model, say, "data-choice"),
            self.parts.gone: model_choice.draw_gone(manager, model, say, button),
        }

    def page(self, visitor: Visitor, lang: str, conversation: str) -> Updates:
        """Everything, in a language."""
        parts, operator = self.parts, visitor.user.operator
        state = self.desk.app.manager.state()
        return joined(
            self.labels.updates(visitor.say),
            self.opened(visitor, conversation, lang),
            {parts.lang: lang},
            {parts.drawer.account: who(visitor.user, visitor.say)},
            {parts.table: models.table(visitor.say, lang, operator)},
            {parts.timer: gr.Timer(active=state.status == "loading")},
        )

    def context(self) -> int:
        info = self.desk.app.manager.state().info
        return info.context if info else 0


def _turns(frame: Frame, conversation: str, words: dict[str, str] | None) -> str:
    """What page.js draws the footers from."""
    rows = frame.rows
    data: dict[str, Any] = {"conversation": conversation}
    if rows:
        data |= {"history": rows.history, "live": rows.live, "busy": rows.busy}
    if words:
        data["words"] = words
    return as_json(data)


def as_json(data: dict[str, Any]) -> str:
    """JSON without "<": gradio warns of markup in values."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _meter(frame: Frame) -> str:
    notice = (
        f'<div class="notice" role="alert">{escape(frame.notice)}</div>' if frame.notice else ""
    )
    if frame.meter:
        return f'{notice}<span class="dots" aria-hidden="true"></span>{escape(frame.meter)}'
    return notice


def _usage(visitor: Visitor, used: int, total: int) -> str:
    if not used or not total:
        return ""
    share = min(100, round(100 * used / total))
    text = visitor.say("chat.context", used=f"{used:,}", total=f"{total:,}")
    full = " full" if share >= 85 else ""
    return (
        f'<span class="usage{full}" title="{escape(text)}"><i style="--share:{share}%"></i>'
        f"<span>{escape(text)}</span></span>"
    )
