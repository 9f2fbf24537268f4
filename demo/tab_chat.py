"""The Chat tab: which event calls what.

The work is in asking.py, writing.py, acts.py and models.py, over plain values; here they come in
from widgets and go out through the painter. Every event is private: none is a public endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr

from demo import acts, asking, models, writing
from demo.desk import Desk, Wish
from demo.drawer import wish
from demo.frame import Frame
from demo.labels import Labels
from demo.model_choice import is_here
from demo.painter import Painter, Updates, as_json, language_of, visitor_of
from demo.parts import Parts, layout
from demo.text import choose_language, sentence
from glm.errors import GlmError, NotFound


def build(desk: Desk, labels: Labels, bar: gr.HTML) -> Callable[[gr.Blocks], None]:
    """The components, inside the tab; what is returned connects them once all tabs are made."""
    parts = layout(labels, bar)

    def connect(page: gr.Blocks) -> None:
        Asking(desk, parts, labels).connect()
        Keeping(desk, parts, labels).connect()
        Opening(desk, parts, labels).connect(page)

    return connect


class Asking(Painter):
    """Send, an example, retry, edit, stop. Each is three events: see `demo.asking`."""

    def connect(self) -> None:
        p, quick, slow = self.parts, self.quick, self.slow
        form = [p.conversation, p.lang, *p.drawer.inputs]
        for event, run, inputs in (
            (p.composer.submit, self.on_send, [p.composer, *form]),
            (p.hero.ask, self.on_ask, form),
            (p.turns.again, self.on_again, form),
        ):
            asked = event(run, inputs, p.drawn, **quick)
            written = asked.then(self.on_write, p.lang, [p.live, p.meter, p.usage], **slow)
            written.then(self.on_rest, p.lang, p.drawn, **quick)
        p.composer.stop(self.on_stop, None, None, **quick)
        p.turns.files(self.on_files, [p.composer, p.lang], p.files, **quick)

    def on_send(self, request: gr.Request, composer: dict[str, Any], *form: Any) -> Updates:
        files = tuple(str(file) for file in composer.get("files") or ())
        draft = asking.Draft(str(composer.get("text") or ""), files)
        return self._send(request, draft, form)

    def on_ask(self, request: gr.Request, event: gr.EventData, *form: Any) -> Updates:
        return self._send(request, asking.Draft(str(event.text)), form)

    def _send(self, request: gr.Request, draft: asking.Draft, form: tuple[Any, ...]) -> Updates:
        conversation, lang, *values = form
        visitor = visitor_of(self.desk, request, lang)
        frame = asking.send(self.desk, visitor, conversation, draft, wish(values))
        return self.frame(visitor, conversation, frame)

    def on_again(self, request: gr.Request, event: gr.EventData, *form: Any) -> Updates:
        conversation, lang, *values = form
        visitor = visitor_of(self.desk, request, lang)
        try:
            place, wanted = asking.Place(conversation, int(event.node)), wish(values)
            if event.kind == "edit":
                frame = asking.edit(self.desk, visitor, place, str(event.text), wanted)
            else:
                frame = asking.retry(self.desk, visitor, place, wanted)
        except GlmError as error:
            frame = Frame(notice=sentence(visitor.say, error))
        return self.frame(visitor, conversation, frame)

    def on_write(self, request: gr.Request, lang: str) -> Iterator[Updates]:
        """The answer; the components of the history are no outputs here."""
        visitor = visitor_of(self.desk, request, lang)
        ticket = self.desk.answers.start(visitor)
        if ticket is None:  # a generator without a step would empty its outputs
            yield self.frame(visitor, "", Frame())
            return
        for frame in writing.write(self.desk, visitor, ticket):
            yield self.frame(visitor, "", frame)

    def on_rest(self, request: gr.Request, lang: str) -> Updates:
        visitor = visitor_of(self.desk, request, lang)
        ticket = self.desk.answers.take(visitor)
        frame = asking.rest(self.desk, visitor, ticket) if ticket else Frame()
        return self.frame(visitor, "", frame)

    def on_stop(self, request: gr.Request) -> None:
        self.desk.answers.stop(visitor_of(self.desk, request, "").key)

    def on_files(self, request: gr.Request, composer: dict[str, Any], lang: str) -> str:
        """Files were attached or taken away."""
        visitor = visitor_of(self.desk, request, lang)
        said = acts.count_files(self.desk, visitor, composer.get("files") or ())
        rows = (f'<span class="file {"" if ok else "bad"}">{escape(t)}</span>' for t, ok in said)
        return "".join(rows)


class Keeping(Painter):
    """What happens to conversations: open, new, rename, delete, search, undo, branches, marks."""

    def connect(self) -> None:
        p, quick = self.parts, self.quick
        here = [p.conversation, p.lang]
        opened = [*p.drawn, *p.drawer.inputs, p.choice, p.gone]
        p.turns.act(self.on_act, here, p.drawn, **quick)
        p.turns.xray(self.on_xray, here, p.xray, **quick)
        p.listing.open(self.on_open, here, opened, **quick)
        p.fresh.click(self.on_new, [p.lang, p.drawer.model], opened, **quick)
        p.listing.rename(self.on_rename, [*here, p.search], p.listing, **quick)
        p.listing.remove(self.on_remove, here, p.drawn, **quick)
        p.drawer.save.save(self.on_save, here, [p.saved, p.meter], **quick)
        p.drawer.load.upload(self.on_load_file, [p.drawer.load, *here], opened, **quick)
        p.search.change(self.on_search, [*here, p.search], p.listing, **quick)

    def on_act(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        visitor, node = visitor_of(self.desk, request, lang), int(event.node)
        try:
            if event.kind == "undo":
                frame = acts.undo(self.desk, visitor, conversation, node)
            elif event.kind == "branch":
                frame = acts.branch(self.desk, visitor, conversation, node, int(event.step))
            else:
                acts.judge(self.desk, visitor, conversation, node, event.mark)
                frame = Frame()
        except GlmError as error:
            frame = Frame(notice=sentence(visitor.say, error))
        return self.frame(visitor, conversation, frame)

    def on_xray(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> str:
        visitor = visitor_of(self.desk, request, lang)
        try:
            return acts.look_inside(self.desk, visitor, conversation, int(event.node))
        except GlmError as error:
            return escape(sentence(visitor.say, error))

    def on_open(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        return self.opened(visitor_of(self.desk, request, lang), str(event.id))

    def on_new(self, request: gr.Request, lang: str, model: str) -> Updates:
        """The model stays chosen, unless it is gone."""
        visitor = visitor_of(self.desk, request, lang)
        opened = self.opened(visitor, "")
        if not is_here(self.desk.app.manager, model):
            return opened
        return {**opened, **self.choice(visitor, model), self.parts.drawer.model: model}

    def on_rename(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str, query: str
    ) -> str:
        visitor = visitor_of(self.desk, request, lang)
        with suppress(NotFound):  # deleted in another tab: the list below shows it
            acts.rename(self.desk, visitor, str(event.id), str(event.title))
        return acts.conversations(self.desk, visitor, conversation, query)

    def on_remove(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        visitor = visitor_of(self.desk, request, lang)
        try:
            frame = acts.remove(self.desk, visitor, str(event.id), conversation)
        except GlmError as error:
            frame = Frame(notice=sentence(visitor.say, error), listing=True)
        return self.frame(visitor, conversation, frame)

    def on_save(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        """The browser keeps the file; nothing stays on the server."""
        visitor, kind = visitor_of(self.desk, request, lang), str(event.kind)
        try:
            name, text = acts.save(self.desk, visitor, conversation, (kind, lang))
        except NotFound:
            return self.frame(visitor, "", Frame(notice=visitor.say("settings.nothing")))
        return {self.parts.saved: as_json({"name": name, "text": text, "at": time.time()})}

    def on_load_file(self, request: gr.Request, file: str, conversation: str, lang: str) -> Updates:
        visitor = visitor_of(self.desk, request, lang)
        try:
            return self.opened(visitor, acts.load(self.desk, visitor, file))
        except GlmError as error:
            return self.frame(visitor, conversation, Frame(notice=sentence(visitor.say, error)))

    def on_search(self, request: gr.Request, conversation: str, lang: str, query: str) -> str:
        visitor = visitor_of(self.desk, request, lang)
        return acts.conversations(self.desk, visitor, conversation, query)


class Opening(Painter):
    """The page itself, its language, and the model behind it."""

    def connect(self, page: gr.Blocks) -> None:
        p, quick = self.parts, self.quick
        here, settings = [p.conversation, p.lang], p.drawer.inputs
        known = [
            *p.drawn,
            *settings,
            *self.labels.components,
            p.lang,
            p.choice,
            p.gone,
            p.table,
            p.timer,
            p.drawer.account,
        ]
        everything = list(dict.fromkeys(known))
        page.load(self.on_load, None, everything, **quick)
        page.unload(self.on_unload)
        p.top.language(self.on_language, here, everything, **quick)
        mine = [p.drawer.system, p.drawer.model]
        p.drawer.reset.click(self.on_reset, mine, settings, **quick)
        changed = [p.line, p.timer, *settings, p.choice, p.gone]
        p.timer.tick(self.on_tick, [*here, p.drawer.model], changed, **quick)
        shown = [p.choice, p.gone, p.line]
        p.choice.choose(self.on_choose, here, [*shown, p.drawer.model, p.meter], **quick)
        p.choice.refresh(self.on_refresh, [*shown, p.drawer.model, p.lang], shown, **quick)

    def on_load(self, request: gr.Request) -> Updates:
        """Which language, who, and which conversation."""
        lang = language_of(self.desk, request)
        conversation = request.query_params.get("c") or ""
        return self.page(visitor_of(self.desk, request, lang), lang, conversation)

    def on_language(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        other = choose_language(str(event.lang), None)
        return self.page(visitor_of(self.desk, request, other), other, conversation)

    def on_unload(self, request: gr.Request) -> None:
        """The browser tab was closed: its answer ends."""
        self.desk.answers.forget(visitor_of(self.desk, request, "").key)

    def on_reset(self, system: str, model: str) -> Updates:
        defaults = Wish(system, self.desk.app.manager.defaults(), model)
        return self.parts.drawer.updates(defaults, self.context())

    def on_tick(self, request: gr.Request, conversation: str, lang: str, model: str) -> Updates:
        """While a model loads; the last tick brings its defaults to a new conversation."""
        visitor, state = visitor_of(self.desk, request, lang), self.desk.app.manager.state()
        out: Updates = {self.parts.line: models.line(state, visitor.say)}
        if state.status != "loading":
            out[self.parts.timer] = gr.Timer(active=False)
            if not conversation:
                out |= self.parts.drawer.updates(
                    acts.wish_of(self.desk, visitor, ""), self.context()
                )
            out |= self.choice(visitor, model if conversation else "")
        return out

    def on_choose(
        self, request: gr.Request, event: gr.EventData, conversation: str, lang: str
    ) -> Updates:
        """Another model is to answer this conversation."""
        visitor, model = visitor_of(self.desk, request, lang), str(event.model)
        try:
            acts.choose(self.desk, visitor, conversation, model)
        except GlmError as error:
            return self.frame(visitor, conversation, Frame(notice=sentence(visitor.say, error)))
        return {
            **self.choice(visitor, model),
            self.parts.drawer.model: model,
            self.parts.meter: "",
        }

    def on_refresh(self, request: gr.Request, *form: str) -> Updates:
        """What others did to the models meanwhile: only what is not shown yet."""
        choice, gone, line, model, lang = form
        visitor, p = visitor_of(self.desk, request, lang), self.parts
        now = self.choice(visitor, model)
        now[p.line] = models.line(self.desk.app.manager.state(), visitor.say)
        shown = {p.choice: choice, p.gone: gone, p.line: line}
        return {c: html for c, html in now.items() if html != (shown[c] or "")} or {
            p.line: gr.skip()
        }


__all__ = ["Parts", "build"]
