"""The components of the Models tab and where they stand; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.labels import Labels
from demo.parts import plain

# gradio offers the events whose names stand in the script; one called "unload" would be taken
# for the end of a visit.
EVENTS = "'look' 'begin' 'aside' 'back' 'folder' 'finds' 'attach' 'forget' 'write' 'refresh'"


@dataclass(frozen=True, slots=True)
class ModelParts:
    """The components of the tab. `state` is what `models.js` sends events through; below each
    form stands what came of it: `work` and `look`, `added`, `exported`."""

    lang: gr.Textbox
    state: gr.HTML
    now: gr.HTML
    work: gr.HTML
    form: gr.HTML
    look: gr.HTML
    finds: gr.HTML
    adapters: gr.HTML
    add: gr.HTML
    added: gr.HTML
    export: gr.HTML
    exported: gr.HTML

    @property
    def drawn(self) -> list[Component]:
        """What follows the manager."""
        return [self.now, self.adapters, self.export]

    @property
    def everything(self) -> list[Component]:
        return [
            *self.drawn,
            self.lang,
            self.work,
            self.form,
            self.look,
            self.finds,
            self.add,
            self.added,
            self.exported,
        ]


def layout(labels: Labels) -> ModelParts:
    """Make the components where they belong, inside the tab."""
    made: dict[str, Any] = {"lang": gr.Textbox(visible=False)}
    with gr.Column(elem_id="m-page"), gr.Row(elem_id="m-grid"):
        with gr.Column(elem_id="m-answers"):
            made["now"] = plain(elem_id="m-now", js_on_load=None)
        with gr.Column(elem_id="m-opening", elem_classes="m-section"):
            _heading(labels, "models.another", "models.another_about")
            made |= _blank("form", "work", "look", "finds")
        with gr.Column(elem_id="m-adapting", elem_classes="m-section"):
            _heading(labels, "models.adapters", "models.adapters_about")
            made |= _blank("adapters", "add", "added")
        with gr.Column(elem_id="m-exporting", elem_classes="m-section"):
            _heading(labels, "models.export_title", "models.export_about")
            made |= _blank("export", "exported")
    made["state"] = plain(
        value="",
        elem_id="m-state",
        html_template="",
        js_on_load=f"glm.models(element, trigger) // {EVENTS}",
    )
    return ModelParts(**made)


def _blank(*names: str) -> dict[str, Component]:
    """Pieces that the server draws for the operator alone."""
    return {name: plain(elem_id=f"m-{name}", js_on_load=None) for name in names}


def _heading(labels: Labels, title: str, about: str) -> None:
    labels.html(
        lambda say: f"<h2>{escape(say(title))}</h2><p>{escape(say(about))}</p>",
        elem_classes="m-heading",
    )
