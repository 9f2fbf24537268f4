"""The components of the Tools tab and where they stand; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.drawer import sheet_head
from demo.labels import Labels
from demo.parts import plain

# gradio offers the events whose names stand in the script.
EVENTS = "'ask' 'decide' 'act' 'look' 'set' 'attempt' 'halt' 'paste' 'server' 'save' 'isolate'"
EVENTS += " 'visitors'"


@dataclass(frozen=True, slots=True)
class ToolParts:
    """The components of the tab. `setup` is the panel's state as JSON, `act` what `tools.js`
    sends events through."""

    conversation: gr.Textbox
    lang: gr.Textbox
    setup: gr.Textbox
    fresh: gr.Button
    search: gr.Textbox
    listing: gr.HTML
    hero: gr.HTML
    history: gr.HTML
    live: gr.HTML
    meter: gr.HTML
    state: gr.HTML
    notice: gr.HTML
    composer: gr.MultimodalTextbox
    panel: gr.HTML
    files: gr.HTML
    isolation: gr.HTML
    servers: gr.HTML
    own: gr.HTML
    tape: gr.UploadButton
    sheet: gr.HTML
    choice: gr.HTML
    gone: gr.HTML
    reply: gr.HTML

    @property
    def drawn(self) -> list[Component]:
        """What a frame may change."""
        return [
            self.history,
            self.live,
            self.meter,
            self.state,
            self.notice,
            self.composer,
            self.conversation,
            self.listing,
            self.files,
            self.panel,
            self.setup,
            self.choice,
            self.gone,
        ]


def layout(labels: Labels, lang: gr.Textbox) -> ToolParts:
    """Make the components where they belong, inside the tab."""
    made: dict[str, Any] = {"lang": lang}
    made["conversation"] = gr.Textbox(visible=False)
    made["setup"] = gr.Textbox(visible=False)
    with gr.Row(elem_id="tools", elem_classes="w-columns"):
        with gr.Column(elem_id="t-side", elem_classes="w-side", scale=0):
            made |= _side(labels)
        with gr.Column(elem_id="t-main", elem_classes="w-main"):
            with gr.Column(elem_id="t-scroll", elem_classes="w-scroll"):
                made |= _talk()
            with gr.Column(elem_id="t-dock", elem_classes="w-dock"):
                made |= _dock(labels)
        with gr.Column(elem_id="t-panel", elem_classes="w-drawer", scale=0):
            made |= _panel(labels)
    with gr.Column(elem_id="t-sheet", elem_classes="sheet"):
        labels.html(lambda say: sheet_head("", say), elem_classes="sheet-head")
        made["sheet"] = plain(elem_id="t-sheet-body", elem_classes="sheet-body")
    made["state"] = plain(
        value="{}",
        elem_id="t-state",
        html_template="",
        js_on_load=f"glm.tools(element, trigger, props, watch) // {EVENTS}",
    )
    made["reply"] = plain(elem_id="t-reply", html_template="", js_on_load="glm.reply(props, watch)")
    return ToolParts(**made)


def _side(labels: Labels) -> dict[str, Component]:
    fresh = labels.make(gr.Button, {"value": "tools.new"}, elem_id="t-new", elem_classes="w-new")
    search = labels.make(
        gr.Textbox,
        {"placeholder": "side.search", "label": "side.search"},
        elem_id="t-search",
        elem_classes="w-search",
        show_label=False,
        container=False,
    )
    script = "glm.list(element, trigger, 'tools') // 'open' 'rename' 'remove'"
    return {
        "fresh": fresh,
        "search": search,
        "listing": plain(elem_id="t-list", js_on_load=script),
    }


def _talk() -> dict[str, Component]:
    steps = {"html_template": "", "value": "[]"}
    return {
        "hero": plain(elem_id="t-hero", js_on_load=None),
        "history": plain(
            elem_id="t-history", js_on_load="glm.steps(element, props, watch)", **steps
        ),
        "live": plain(elem_id="t-live", js_on_load="glm.steps(element, props, watch)", **steps),
        "meter": plain(elem_id="t-meter", elem_classes="w-meter", js_on_load=None),
    }


def _dock(labels: Labels) -> dict[str, Component]:
    notice = plain(elem_id="t-notice", js_on_load=None)
    gone = plain(elem_id="t-gone", elem_classes="w-gone", js_on_load=None)
    composer = labels.make(
        gr.MultimodalTextbox,
        {"placeholder": "tools.placeholder", "label": "tools.placeholder"},
        elem_id="t-composer",
        elem_classes="w-composer",
        show_label=False,
        container=False,
        file_count="multiple",
        max_lines=8,
        max_plain_text_length=1_000_000,
    )
    with gr.Row(elem_id="t-foot", elem_classes="w-foot"):
        script = "glm.choice(element, trigger) // 'refresh'"
        choice = plain(elem_id="t-choice", elem_classes="w-choice", js_on_load=script)
    return {"notice": notice, "gone": gone, "composer": composer, "choice": choice}


def _panel(labels: Labels) -> dict[str, Component]:
    labels.html(lambda say: sheet_head(say("tools.panel"), say), elem_classes="sheet-head")
    panel = plain(elem_id="t-cards", js_on_load=None)
    own = plain(elem_id="t-own", js_on_load=None)
    files = plain(elem_id="t-files", js_on_load=None)
    tape = labels.make(
        gr.UploadButton,
        {"label": "tools.load_tape"},
        file_types=[".json"],
        size="sm",
        variant="secondary",
        elem_id="t-tape",
    )
    return {
        "panel": panel,
        "own": own,
        "files": files,
        "tape": tape,
        "servers": plain(elem_id="t-servers", js_on_load=None),
        "isolation": plain(elem_id="t-isolation", js_on_load=None),
    }
