"""The Tools tab: which event calls what.

The work is in tool_asking.py, tool_run.py, tool_acts.py and own_tools.py, over plain values.
`tools.js` sends everything that is clicked through a few private events of `state`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import gradio as gr

from demo import acts, gallery, own_tools, tool_acts, tool_asking, tool_painter, tool_run
from demo.decision_form import decision
from demo.desk import Desk, Visitor
from demo.labels import Labels
from demo.painter import Updates, as_json, language_of, sent, visitor_of
from demo.text import choose_language, sentence
from demo.tool_asking import Asked, At, ToolFrame
from demo.tool_run import RunTicket
from demo.tool_setup import changed, read_setup
from demo.tools_parts import ToolParts, layout
from glm.errors import GlmError, NotFound


def build(desk: Desk, labels: Labels, bar: gr.HTML) -> Callable[[gr.Blocks], None]:
    """The components, inside the tab; what is returned connects them once all tabs are made."""
    parts = layout(labels, gr.Textbox(visible=False))
    tab = ToolsTab(desk, parts)

    def connect(page: gr.Blocks) -> None:
        tab.asking()
        tab.keeping()
        tab.tools()
        page.load(tab.on_load, None, tab.everything, **tab.quick)
        page.load(tab.on_servers, None, parts.servers, **tab.slow)
        bar.language(tab.on_language, parts.conversation, tab.everything, **tab.quick)
        page.unload(tab.on_unload)

    return connect


class ToolsTab:
    """The events; what they carry goes to the functions beside and comes back as frames."""

    def __init__(self, desk: Desk, parts: ToolParts) -> None:
        self.desk, self.parts = desk, parts
        self.quick: dict[str, Any] = {
            "queue": False,
            "api_visibility": "private",
            "show_progress": "hidden",
            "show_progress_on": parts.lang,
        }
        self.slow = {**self.quick, "queue": True, "concurrency_limit": None}
        p = parts
        self.everything = [*p.drawn, p.lang, p.hero, p.own, p.servers, p.isolation]

    def asking(self) -> None:
        """Send, an example, retry, edit, fork: each is three events, as in the Chat tab."""
        p, quick, slow = self.parts, self.quick, self.slow
        form = [p.conversation, p.lang, p.setup]
        for event, handler, inputs in (
            (p.composer.submit, self.on_send, [p.composer, *form]),
            (p.state.ask, self.on_ask, form),
        ):
            asked = event(handler, inputs, p.drawn, **quick)
            written = asked.then(self.on_run, p.lang, [p.live, p.meter], **slow)
            written.then(self.on_rest, p.lang, p.drawn, **quick)
        p.composer.stop(self.on_stop, None, None, **quick)
        p.state.decide(self.on_decide, p.lang, p.notice, trigger_mode="multiple", **quick)

    def keeping(self) -> None:
        """Open, new, rename, delete, search, branches, X-ray, side by side."""
        p, quick = self.parts, self.quick
        here = [p.conversation, p.lang]
        p.state.act(self.on_act, here, p.drawn, **quick)
        p.state.look(self.on_look, here, [p.sheet, p.notice], **quick)
        p.listing.open(self.on_open, p.lang, p.drawn, **quick)
        p.fresh.click(self.on_new, p.lang, p.drawn, **quick)
        p.listing.rename(self.on_rename, [*here, p.search], p.listing, **quick)
        p.listing.remove(self.on_remove, here, p.drawn, **quick)
        p.search.change(self.on_search, [*here, p.search], p.listing, **quick)

    def tools(self) -> None:
        """The panel: switches, forms, own tools, servers, files, recordings."""
        p, quick, slow = self.parts, self.quick, self.slow
        here = [p.conversation, p.lang]
        panel = [p.panel, p.setup, p.notice, p.hero, p.choice, p.gone]
        chosen = [p.choice, p.gone]
        p.state.set(self.on_set, here, [p.setup, *chosen], trigger_mode="always_last", **quick)
        p.choice.refresh(self.on_refresh, [*chosen, p.setup, p.lang], chosen, **quick)
        p.state.attempt(self.on_try, here, p.reply, trigger_mode="multiple", **slow)
        p.state.halt(self.on_halt, None, None, trigger_mode="multiple", **quick)
        p.state.visitors(self.on_visitors, p.lang, p.notice, trigger_mode="multiple", **quick)
        p.state.paste(self.on_paste, [p.setup, *here], [*panel, p.reply], **slow)
        p.state.server(self.on_server, [p.setup, p.lang], [p.servers, *panel], **slow)
        p.state.save(self.on_save, here, [p.reply, p.notice], **quick)
        p.state.isolate(self.on_isolate, [p.setup, p.lang], [p.isolation, *panel], **quick)
        p.tape.upload(self.on_tape, [p.tape, *here], [*p.drawn, p.reply], **quick)

    # ---- asking ----

    def on_send(self, request: gr.Request, composer: Mapping[str, Any], *form: Any) -> Updates:
        files = tuple(str(file) for file in composer.get("files") or ())
        asked = Asked(str(composer.get("text") or ""), files)
        conversation, lang, setup = form
        visitor = visitor_of(self.desk, request, lang)
        frame = tool_asking.send(self.desk, visitor, conversation, asked, read_setup(setup))
        return self._paint(visitor, frame)

    def on_ask(self, request: gr.Request, event: gr.EventData, *form: Any) -> Updates:
        """An example, or something that begins at a message of the past."""
        conversation, lang, setup = form
        visitor, data = visitor_of(self.desk, request, lang), sent(event)
        return self._try(visitor, lambda: self._ask(visitor, (conversation, lang, setup), data))

    def _ask(
        self, visitor: Visitor, form: tuple[str, str, str], data: Mapping[str, Any]
    ) -> ToolFrame:
        conversation, lang, setup = form
        if data.get("kind") == "example":
            return tool_acts.play(self.desk, visitor, str(data.get("id")), lang)
        at = At(conversation, int(data.get("node") or 0), read_setup(setup))
        match data.get("kind"):
            case "retry":
                return tool_asking.retry(self.desk, visitor, at)
            case "edit":
                return tool_asking.edit(self.desk, visitor, at, str(data.get("text") or ""))
            case "go":
                return tool_asking.go_on(self.desk, visitor, at)
            case "call" | "seen":
                return tool_asking.fork(self.desk, visitor, at, data)
        return ToolFrame()

    def on_run(self, request: gr.Request, lang: str) -> Iterator[Updates]:
        """The run; the components of the history are no outputs here."""
        visitor = visitor_of(self.desk, request, lang)
        ticket = self.desk.runs.start(visitor)
        if not isinstance(ticket, RunTicket):  # a generator without a step would empty its outputs
            yield {self.parts.meter: gr.skip()}
            return
        for frame in tool_run.run(self.desk, visitor, ticket):
            yield tool_painter.live(self.parts, frame)

    def on_rest(self, request: gr.Request, lang: str) -> Updates:
        visitor = visitor_of(self.desk, request, lang)
        ticket = self.desk.runs.take(visitor)
        if not isinstance(ticket, RunTicket):
            return {self.parts.notice: gr.skip()}
        return self._paint(visitor, tool_asking.rest(self.desk, visitor, ticket))

    def on_decide(self, request: gr.Request, event: gr.EventData, lang: str) -> str:
        """A person's word on the call that waits."""
        visitor, data = visitor_of(self.desk, request, lang), sent(event)
        try:
            choice = decision(data, tool_run.known(self.desk, visitor))
        except GlmError as error:
            return tool_painter.notice(sentence(visitor.say, error))
        tool_run.decide(self.desk, visitor, str(data.get("call")), choice)
        return ""

    def on_stop(self, request: gr.Request) -> None:
        self.desk.runs.stop(visitor_of(self.desk, request, "").key)

    # ---- conversations ----

    def on_load(self, request: gr.Request) -> Updates:
        return self._page(
            request, language_of(self.desk, request), request.query_params.get("c") or ""
        )

    def on_servers(self, request: gr.Request) -> str:
        """The operator's servers, apart: one that starts makes nobody wait for the page."""
        visitor = visitor_of(self.desk, request, language_of(self.desk, request))
        return own_tools.draw_servers(self.desk, visitor)

    def on_language(self, request: gr.Request, event: gr.EventData, conversation: str) -> Updates:
        lang = choose_language(str(event.lang), None)
        servers = own_tools.draw_servers(self.desk, visitor_of(self.desk, request, lang))
        return {**self._page(request, lang, conversation), self.parts.servers: servers}

    def on_unload(self, request: gr.Request) -> None:
        """The browser tab was closed: its run ends."""
        key = visitor_of(self.desk, request, "").key
        self.desk.runs.forget(key)
        self.desk.tries.stop(key)

    def _page(self, request: gr.Request, lang: str, conversation: str) -> Updates:
        visitor = visitor_of(self.desk, request, lang)
        frame = tool_acts.open_one(self.desk, visitor, conversation)
        return {
            **self._paint(visitor, frame),
            **tool_painter.whole(self.desk, self.parts, visitor, lang),
            self.parts.lang: lang,
        }

    def on_act(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        visitor, data = visitor_of(self.desk, request, lang), sent(event)
        at = At(conversation, int(data.get("node") or 0), read_setup(None))
        step = int(data.get("step") or 0)
        return self._try(visitor, lambda: tool_acts.branch(self.desk, visitor, at, step))

    def on_look(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        """What the dialog shows: the tokens of a turn, branches, the form of a fork."""
        visitor, data, p = visitor_of(self.desk, request, lang), sent(event), self.parts
        at = At(conversation, int(data.get("node") or 0), read_setup(None))
        try:
            match data.get("kind"):
                case "xray":
                    html = acts.look_inside(self.desk, visitor, conversation, at.node)
                    html = f'<div class="xray">{html}</div>'
                case "sides":
                    html = tool_acts.side_by_side(self.desk, visitor, at)
                case _:
                    call = str(data.get("call") or "")
                    html = tool_acts.fork_form(self.desk, visitor, at, call)
        except GlmError as error:
            return {p.notice: tool_painter.notice(sentence(visitor.say, error))}
        return {p.sheet: html, p.notice: ""}

    def on_open(self, request: gr.Request, event: gr.EventData, lang: str) -> Updates:
        return self._opened(request, lang, str(event.id))

    def on_new(self, request: gr.Request, lang: str) -> Updates:
        return self._opened(request, lang, "")

    def _opened(self, request: gr.Request, lang: str, conversation: str) -> Updates:
        visitor = visitor_of(self.desk, request, lang)
        self.desk.runs.stop(visitor.key)
        return self._paint(visitor, tool_acts.open_one(self.desk, visitor, conversation))

    def on_rename(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str, query: str
    ) -> str:
        visitor = visitor_of(self.desk, request, lang)
        with suppress(NotFound):  # deleted in another tab: the list below shows it
            acts.rename(self.desk, visitor, str(event.id), str(event.title))
        return tool_acts.conversations(self.desk, visitor, conversation, query)

    def on_remove(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        visitor, gone = visitor_of(self.desk, request, lang), str(event.id)
        return self._try(visitor, lambda: tool_acts.remove(self.desk, visitor, gone, conversation))

    def on_search(self, request: gr.Request, conversation: str, lang: str, query: str) -> str:
        visitor = visitor_of(self.desk, request, lang)
        return tool_acts.conversations(self.desk, visitor, conversation, query)

    # ---- the panel ----

    def on_set(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        """Switches of the panel, all since it was drawn; the page shows them already."""
        visitor, data = visitor_of(self.desk, request, lang), sent(event)
        now = tool_acts.change(self.desk, visitor, data)
        tool_acts.remember(self.desk, visitor, conversation, now)
        choice = {}
        if now.model != read_setup(data.get("base")).model:
            choice = tool_painter.choice(self.desk, self.parts, visitor, now)
        return {self.parts.setup: now.text(), **choice}

    def on_refresh(
        self, request: gr.Request, choice: str, gone: str, setup: str, lang: str
    ) -> Updates:
        """What others did to the models meanwhile: only what is not shown yet."""
        visitor, p = visitor_of(self.desk, request, lang), self.parts
        now = tool_painter.choice(self.desk, p, visitor, read_setup(setup))
        shown = {p.choice: choice, p.gone: gone}
        changed = {c: html for c, html in now.items() if html != (shown[c] or "")}
        return changed or {p.gone: gr.skip()}

    def _panel(self, visitor: Visitor, setup: Any, lang: str, notice: str = "") -> Updates:
        p = self.parts
        names = [c.name for c in self.desk.app.tools.cards(visitor.user) if c.available]
        return {
            **tool_painter.panel(self.desk, p, visitor, read_setup(setup)),
            p.notice: tool_painter.notice(notice),
            p.hero: gallery.draw(visitor.say, lang, names),
        }

    def on_try(self, request: gr.Request, event: gr.EventData, conversation: str, lang: str) -> str:
        visitor = visitor_of(self.desk, request, lang)
        return self._reply(tool_acts.try_tool(self.desk, visitor, conversation, sent(event)))

    def on_halt(self, request: gr.Request, event: gr.EventData) -> None:
        """What is tried by hand is to end."""
        name = str(sent(event).get("name") or "")
        self.desk.tries.stop(visitor_of(self.desk, request, "").key, name)

    def on_visitors(self, request: gr.Request, event: gr.EventData, lang: str) -> str:
        """The operator decides whether others may use a tool."""
        visitor, data = visitor_of(self.desk, request, lang), sent(event)
        try:
            name, on = str(data.get("name")), data.get("on") is True
            self.desk.app.tools.let_visitors(visitor.user, name, on)
        except GlmError as error:
            return tool_painter.notice(sentence(visitor.say, error))
        return ""

    def on_paste(
        self, request: gr.Request, event: gr.EventData, setup: str, conversation: str, lang: str
    ) -> Updates:
        """A function or a schema becomes a tool, and is enabled; "remove" takes one away."""
        visitor, data = visitor_of(self.desk, request, lang), sent(event)
        kind, now = str(data.get("kind")), read_setup(setup)
        try:
            if kind == "remove":
                name = str(data.get("name"))
                self.desk.app.tools.remove(visitor.user, name)
            else:
                name = own_tools.paste(self.desk, visitor, kind, str(data.get("text") or ""))
        except GlmError as error:
            text = sentence(visitor.say, error)
            reply = self._reply({"pasted": kind, "problem": text})
            return {self.parts.reply: reply}
        cards = self.desk.app.tools.cards(visitor.user)
        now = changed(now, "enabled", name, kind != "remove", cards)
        tool_acts.remember(self.desk, visitor, conversation, now)
        reply = self._reply({"pasted": kind, "name": name})
        return {**self._panel(visitor, now.settings(), lang), self.parts.reply: reply}

    def on_server(self, request: gr.Request, event: gr.EventData, setup: str, lang: str) -> Updates:
        visitor = visitor_of(self.desk, request, lang)
        html = own_tools.change_servers(self.desk, visitor, sent(event))
        return {self.parts.servers: html, **self._panel(visitor, setup, lang)}

    def on_isolate(self, request: gr.Request, setup: str, lang: str) -> Updates:
        """The operator lets code run without isolation."""
        visitor, problem = visitor_of(self.desk, request, lang), ""
        try:
            visitor.user.require_operator("let code run without isolation")
            self.desk.app.tools.allow_unisolated(visitor.user)
        except GlmError as error:
            problem = sentence(visitor.say, error)
        html = tool_acts.draw_isolation(self.desk, visitor)
        return {self.parts.isolation: html, **self._panel(visitor, setup, lang, problem)}

    def on_save(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        """A file of the conversation, or its recording, for the browser to keep."""
        visitor, data, p = visitor_of(self.desk, request, lang), sent(event), self.parts
        try:
            if data.get("kind") == "tape":
                reply = tool_acts.tape(self.desk, visitor, conversation)
            else:
                name = str(data.get("name"))
                reply = tool_acts.bring(self.desk, visitor, conversation, name)
        except GlmError as error:
            return {p.notice: tool_painter.notice(sentence(visitor.say, error))}
        return {p.reply: self._reply(reply), p.notice: ""}

    def on_tape(self, request: gr.Request, file: str, conversation: str, lang: str) -> Updates:
        visitor, p = visitor_of(self.desk, request, lang), self.parts
        try:
            chat, said = tool_acts.load_tape(self.desk, visitor, conversation, file)
        except GlmError as error:
            return {p.notice: tool_painter.notice(sentence(visitor.say, error))}
        opened = self._paint(visitor, tool_acts.open_one(self.desk, visitor, chat))
        return {**opened, p.reply: self._reply({"toast": said})}

    # ---- pieces ----

    def _paint(self, visitor: Visitor, frame: ToolFrame) -> Updates:
        return tool_painter.paint(self.desk, self.parts, visitor, frame)

    def _try(self, visitor: Visitor, run: Callable[[], ToolFrame]) -> Updates:
        try:
            frame = run()
        except GlmError as error:
            frame = ToolFrame(notice=sentence(visitor.say, error))
        return self._paint(visitor, frame)

    def _reply(self, data: Mapping[str, Any]) -> str:
        """With the time, so that the same answer twice is a change."""
        return as_json({**data, "at": time.time()})
