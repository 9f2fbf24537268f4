"""The Models tab: which event calls what.

The work is in model_acts.py, over plain values; here its steps become HTML. `models.js` sends
everything that is clicked through a few private events of `state`. What a visitor may see is
drawn for visitors; everything else is drawn, and done, for the operator alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from demo import model_acts, model_cards, model_finds, model_lists
from demo.desk import Desk, Visitor
from demo.labels import Labels
from demo.model_acts import Steps
from demo.models_parts import ModelParts, layout
from demo.painter import Updates, language_of, sent, visitor_of
from demo.text import choose_language
from glm.adapters.shelf import Shelved
from glm.adapters.values import AdapterInfo
from glm.errors import GlmError


def build(desk: Desk, labels: Labels, bar: gr.HTML) -> Callable[[gr.Blocks], None]:
    """The components, inside the tab; what is returned connects them once all tabs are made."""
    tab = ModelsTab(desk, layout(labels))

    def connect(page: gr.Blocks) -> None:
        tab.connect()
        page.load(tab.on_load, None, tab.parts.everything, **tab.quick)
        bar.language(tab.on_language, None, tab.parts.everything, **tab.quick)

    return connect


class ModelsTab:
    """The events; what they carry goes to model_acts and comes back as steps."""

    def __init__(self, desk: Desk, parts: ModelParts) -> None:
        self.desk, self.parts = desk, parts
        self.quick: dict[str, Any] = {
            "queue": False,
            "api_visibility": "private",
            "show_progress": "hidden",
            "show_progress_on": parts.lang,
        }
        self.slow = {**self.quick, "queue": True, "concurrency_limit": None}
        self._told: dict[Path, AdapterInfo | None] = {}  # adapters that no engine has read yet

    def connect(self) -> None:
        """Each thing that takes time is two events: its steps, then what it changed."""
        p, quick, slow, state = self.parts, self.quick, self.slow, self.parts.state
        state.look(self.on_look, p.lang, [p.work, p.look], **slow)
        state.finds(self.on_finds, p.lang, p.finds, **slow)
        state.folder(self.on_folder, p.lang, p.work, **slow).then(
            self.on_finds, p.lang, p.finds, **slow
        )
        for event, run, shown in (
            (state.begin, self.on_open, [p.work, p.look]),
            (state.back, self.on_back, p.work),
            (state.aside, self.on_aside, p.work),
            (state.attach, self.on_add, p.added),
            (state.forget, self.on_forget, p.added),
        ):
            done = event(run, p.lang, shown, **slow)
            after = done.then(self.on_changed, [*p.drawn, p.lang], p.drawn, **quick)
            if shown is not p.added:  # the list marks what answers now
                after.then(self.on_finds, p.lang, p.finds, **slow)
        state.write(self.on_export, p.lang, p.exported, **slow)
        state.refresh(self.on_changed, [*p.drawn, p.lang], p.drawn, **quick)

    # ---- the page ----

    def on_load(self, request: gr.Request) -> Updates:
        return self.page(request, language_of(self.desk, request))

    def on_language(self, request: gr.Request, event: gr.EventData) -> Updates:
        return self.page(request, choose_language(str(event.lang), None))

    def page(self, request: gr.Request, lang: str) -> Updates:
        """Everything, in a language; the lists come when the tab is looked at."""
        visitor, p = visitor_of(self.desk, request, lang), self.parts
        mine = visitor.user.operator
        return {
            **self.drawn(visitor),
            p.lang: lang,
            p.work: "",
            p.look: "",
            p.finds: "",
            p.added: "",
            p.exported: "",
            p.form: model_lists.open_form(visitor.say) if mine else "",
            p.add: model_cards.add_form(visitor.say) if mine else "",
        }

    def drawn(self, visitor: Visitor) -> Updates:
        """What follows the manager: the card, and for the operator adapters and export."""
        p, manager, say = self.parts, self.desk.app.manager, visitor.say
        mine = visitor.user.operator
        seen = model_cards.now(manager, mine)
        out: Updates = {p.now: model_cards.answers(seen, say), p.adapters: "", p.export: ""}
        if not mine:
            return out
        items, info = manager.adapters(), seen.state.info
        out[p.adapters] = model_cards.adapters(items, self.describe, info is not None, say)
        names = [item.name for item in items]
        exports = self.desk.app.data_dir / "exports"
        out[p.export] = model_lists.export_form(info, names, exports, say)
        return out

    def on_changed(self, request: gr.Request, *shown: str) -> Updates:
        """What is not shown yet; anybody may have changed the models meanwhile."""
        *before, lang = shown
        now = self.drawn(visitor_of(self.desk, request, lang))
        known = dict(zip(self.parts.drawn, before, strict=True))
        changed = {one: html for one, html in now.items() if html != (known[one] or "")}
        return changed or {self.parts.export: gr.skip()}

    def describe(self, item: Shelved) -> AdapterInfo | None:
        """What the files of an adapter say that nobody opened yet."""
        if item.path not in self._told:
            try:
                self._told[item.path] = model_finds.describe(item.path)
            except GlmError:
                self._told[item.path] = None
        return self._told[item.path]

    # ---- looking ----

    def on_look(self, request: gr.Request, event: gr.EventData, lang: str) -> Iterator[Updates]:
        visitor, p = visitor_of(self.desk, request, lang), self.parts
        for step in model_acts.look(self.desk, visitor, sent(event)):
            if not step.done:
                yield {p.work: model_cards.working(step.text, None), p.look: gr.skip()}
            elif step.value is None:
                yield {p.work: model_cards.said(step.text, True), p.look: ""}
            else:
                memory = self.desk.app.manager.memory()
                found = step.value
                text = model_finds.report(found.at) if found.kind == "model" else ""
                html = model_lists.report(found, memory, text, visitor.say)
                yield {p.work: "", p.look: html}

    def on_finds(self, request: gr.Request, lang: str) -> str:
        """The lists, for the operator."""
        visitor = visitor_of(self.desk, request, lang)
        if not visitor.user.operator:
            return ""
        info = self.desk.app.manager.state().info
        current = str(info.path.resolve()) if info else ""
        groups = model_acts.groups(self.desk, visitor)
        return model_lists.lists(groups, current, lang, visitor.say)

    def on_folder(self, request: gr.Request, event: gr.EventData, lang: str) -> Iterator[str]:
        visitor = visitor_of(self.desk, request, lang)
        yield from shown(model_acts.change_folders(self.desk, visitor, sent(event)))

    # ---- acting ----

    def on_open(self, request: gr.Request, event: gr.EventData, lang: str) -> Iterator[Updates]:
        """What was looked at goes once it is open."""
        visitor, p = visitor_of(self.desk, request, lang), self.parts
        for step in model_acts.open_model(self.desk, visitor, sent(event)):
            gone = step.done and not step.failed
            [html] = shown(iter([step]))
            yield {p.work: html, p.look: "" if gone else gr.skip()}

    def on_back(self, request: gr.Request, lang: str) -> Iterator[str]:
        visitor = visitor_of(self.desk, request, lang)
        yield from shown(model_acts.come_back(self.desk, visitor))

    def on_aside(self, request: gr.Request, lang: str) -> Iterator[str]:
        visitor = visitor_of(self.desk, request, lang)
        yield from shown(model_acts.unload(self.desk, visitor))

    def on_add(self, request: gr.Request, event: gr.EventData, lang: str) -> Iterator[str]:
        """An adapter; a file that does not say its alpha asks for it."""
        visitor, data = visitor_of(self.desk, request, lang), sent(event)
        for step in model_acts.add_adapter(self.desk, visitor, data):
            if step.rank is None:
                yield from shown(iter([step]))
            else:
                at, name = str(data.get("at") or ""), str(data.get("name") or "")
                yield model_cards.alpha_form(step.text, at, name, visitor.say)

    def on_forget(self, request: gr.Request, event: gr.EventData, lang: str) -> Iterator[str]:
        visitor = visitor_of(self.desk, request, lang)
        yield from shown(model_acts.remove_adapter(self.desk, visitor, sent(event)))

    def on_export(self, request: gr.Request, event: gr.EventData, lang: str) -> Iterator[str]:
        visitor = visitor_of(self.desk, request, lang)
        for step in model_acts.export(self.desk, visitor, sent(event)):
            if step.value is None:
                yield from shown(iter([step]))
            else:
                done = step.value
                yield model_lists.exported(step.text, done.verdict, done.notes, visitor.say)


def shown(steps: Steps) -> Iterator[str]:
    """Steps as HTML: how far, then how it ended."""
    for step in steps:
        if step.done:
            yield model_cards.said(step.text, step.failed)
        else:
            yield model_cards.working(step.text, step.part)
