"""The components of the Chat tab and where they stand; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from demo import drawer, top
from demo.drawer import Drawer, sheet_head
from demo.labels import Labels

LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "$", "right": "$", "display": False},
    {"left": "\\(", "right": "\\)", "display": False},
]
FILES = [".txt", ".md", ".csv", ".tsv", ".json", ".pdf", ".py", ".log"]  # what a dialog offers


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of the tab."""

    top: gr.HTML
    conversation: gr.Textbox
    lang: gr.Textbox
    fresh: gr.Button
    search: gr.Textbox
    listing: gr.HTML
    hero: gr.HTML
    history: gr.Chatbot
    live: gr.Chatbot
    meter: gr.HTML
    turns: gr.HTML
    saved: gr.HTML
    files: gr.HTML
    composer: gr.MultimodalTextbox
    line: gr.HTML
    usage: gr.HTML
    drawer: Drawer
    xray: gr.HTML
    table: gr.HTML
    choice: gr.HTML
    gone: gr.HTML
    timer: gr.Timer

    @property
    def drawn(self) -> list[Component]:
        """What a frame may change."""
        return [
            self.history,
            self.live,
            self.turns,
            self.meter,
            self.usage,
            self.composer,
            self.conversation,
            self.listing,
            self.line,
        ]


def plain(**options: Any) -> gr.HTML:
    """HTML whose look is style.css alone."""
    return gr.HTML(apply_default_css=False, **options)


def layout(labels: Labels, bar: gr.HTML) -> Parts:
    """Make the components where they belong, inside the tab."""
    made: dict[str, Any] = {"top": bar}
    made["conversation"] = gr.Textbox(visible=False)
    made["lang"] = gr.Textbox(visible=False)
    with gr.Row(elem_id="chat", elem_classes="w-columns"):
        with gr.Column(elem_id="side", elem_classes="w-side", scale=0):
            made |= _side(labels)
        with gr.Column(elem_id="main", elem_classes="w-main"):
            with gr.Column(elem_id="scroll", elem_classes="w-scroll"):
                made |= _talk(labels)
            with gr.Column(elem_id="dock", elem_classes="w-dock"):
                made |= _dock(labels)
        with gr.Column(elem_id="drawer", elem_classes="w-drawer", scale=0):
            made["drawer"] = drawer.build(labels)
    made |= _sheets(labels)
    made["turns"] = plain(
        value="{}",
        elem_id="turns",
        html_template="",
        js_on_load="glm.turns(element, trigger, props, watch, 'act', 'again', 'xray', 'files')",
    )
    made["saved"] = plain(elem_id="saved", html_template="", js_on_load="glm.saved(props, watch)")
    return Parts(**made, timer=gr.Timer(1.0, active=False))


def _side(labels: Labels) -> dict[str, Component]:
    fresh = labels.make(gr.Button, {"value": "side.new"}, elem_id="new", elem_classes="w-new")
    words = {"placeholder": "side.search", "label": "side.search"}
    bare = {"show_label": False, "container": False}
    search = labels.make(gr.Textbox, words, elem_id="search", elem_classes="w-search", **bare)
    script = "glm.list(element, trigger, 'chat') // 'open' 'rename' 'remove'"
    return {
        "fresh": fresh,
        "search": search,
        "listing": plain(elem_id="list", js_on_load=script),
    }


def _talk(labels: Labels) -> dict[str, Component]:
    script = "glm.hero(element, trigger, 'ask')"
    return {
        "hero": labels.html(top.hero, elem_id="hero", js_on_load=script),
        "history": _chatbot(labels, "history", "chat.label"),
        "live": _chatbot(labels, "live", "chat.live"),
        "meter": plain(elem_id="meter", elem_classes="w-meter"),
    }


def _dock(labels: Labels) -> dict[str, Component]:
    gone = plain(elem_id="gone", elem_classes="w-gone")
    files = plain(elem_id="files")
    composer = labels.make(
        gr.MultimodalTextbox,
        {"placeholder": "chat.placeholder", "label": "chat.placeholder"},
        elem_id="composer",
        elem_classes="w-composer",
        show_label=False,
        container=False,
        file_count="multiple",
        file_types=FILES,
        max_lines=10,
        max_plain_text_length=1_000_000,
        autofocus=True,
    )
    with gr.Row(elem_id="foot"):
        script = "glm.choice(element, trigger) // 'choose' 'refresh'"
        choice = plain(elem_id="choice", elem_classes="w-choice", js_on_load=script)
        line, usage = plain(elem_id="line"), plain(elem_id="usage")
    made = {"gone": gone, "files": files, "composer": composer, "choice": choice}
    return {**made, "line": line, "usage": usage}


def _chatbot(labels: Labels, name: str, label: str) -> gr.Chatbot:
    return labels.make(
        gr.Chatbot,
        {"label": label},
        elem_id=name,
        elem_classes="talk",
        show_label=False,
        container=False,
        height=None,
        max_height=None,
        buttons=[],
        feedback_options=None,
        latex_delimiters=LATEX,
        allow_tags=False,
        autoscroll=False,
        layout="bubble",
    )


def _sheets(labels: Labels) -> dict[str, Component]:
    """The dialogs: the X-ray of a turn, and models worth opening."""
    with gr.Column(elem_id="xray", elem_classes="sheet"):
        labels.html(lambda say: sheet_head(say("xray.title"), say), elem_classes="sheet-head")
        xray = plain(elem_classes="sheet-body")
    with gr.Column(elem_id="models", elem_classes="sheet"):
        labels.html(lambda say: sheet_head(say("model.title"), say), elem_classes="sheet-head")
        table = plain(elem_classes="sheet-body")
    return {"xray": xray, "table": table}
