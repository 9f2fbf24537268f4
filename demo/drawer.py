"""The settings of a conversation: system prompt, sampling, saving and importing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.conversation_files import KINDS
from demo.desk import Wish
from demo.labels import Labels
from demo.text import Say
from glm.identity import User
from glm.messages import Sampling


@dataclass(frozen=True, slots=True)
class Drawer:
    """The components, in the order in which a handler gets their values.

    `model` is not shown: what is chosen beside the input, see `demo.model_choice`.
    """

    system: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    top_k: gr.Slider
    repetition: gr.Slider
    max_tokens: gr.Slider
    seed: gr.Number
    model: gr.Textbox
    reset: gr.Button
    save: gr.HTML
    load: gr.UploadButton
    account: gr.HTML

    @property
    def inputs(self) -> list[Component]:
        return [self.system, *self.sampling, self.max_tokens, self.seed, self.model]

    @property
    def sampling(self) -> list[Component]:
        return [self.temperature, self.top_p, self.top_k, self.repetition]

    def updates(self, wish: Wish, context: int = 0) -> dict[Component, Any]:
        """Show how a conversation is answered."""
        chosen = wish.sampling or Sampling()
        longest = {"maximum": max(context, chosen.max_tokens)} if context else {}
        return {
            self.system: gr.update(value=wish.system),
            self.temperature: gr.update(value=chosen.temperature),
            self.top_p: gr.update(value=chosen.top_p),
            self.top_k: gr.update(value=chosen.top_k),
            self.repetition: gr.update(value=chosen.repetition_penalty),
            self.max_tokens: gr.update(value=chosen.max_tokens, **longest),
            self.seed: gr.update(value=chosen.seed),
            self.model: wish.model,
        }


def wish(values: Sequence[Any]) -> Wish:
    """The values of `Drawer.inputs`. An emptied field is the default."""
    system, temperature, top_p, top_k, repetition, max_tokens, seed, model = values
    normal = Sampling()

    def number(value: Any, otherwise: Any, kind: type) -> Any:
        return otherwise if value is None else kind(value)

    sampling = Sampling(
        max_tokens=number(max_tokens, normal.max_tokens, int),
        temperature=number(temperature, normal.temperature, float),
        top_p=number(top_p, normal.top_p, float),
        top_k=number(top_k, normal.top_k, int),
        repetition_penalty=number(repetition, normal.repetition_penalty, float),
        seed=number(seed, None, int),
    )
    return Wish(str(system or ""), sampling, str(model or ""))


def build(labels: Labels) -> Drawer:
    """Inside the drawer's column."""

    def slider(key: str, low: float, high: float, step: float, value: float) -> gr.Slider:
        words = {"label": f"settings.{key}", "info": f"settings.{key}_hint"}
        return labels.make(
            gr.Slider, words, minimum=low, maximum=high, step=step, value=value, buttons=[]
        )

    labels.html(lambda say: sheet_head(say("settings.title"), say), elem_classes="sheet-head")
    words = {"label": "settings.system", "placeholder": "settings.system_hint"}
    system = labels.make(gr.Textbox, words, lines=3, max_lines=8, elem_id="system")
    temperature = slider("temperature", 0, 2, 0.05, 0.8)
    top_p = slider("top_p", 0.05, 1, 0.05, 0.8)
    top_k = slider("top_k", 0, 200, 1, 0)
    repetition = slider("repetition", 0.8, 2, 0.05, 1)
    max_tokens = labels.make(
        gr.Slider,
        {"label": "settings.max_tokens"},
        minimum=1,
        maximum=4096,
        step=1,
        value=1024,
        buttons=[],
    )
    words = {"label": "settings.seed", "placeholder": "settings.seed_hint"}
    seed = labels.make(gr.Number, words, value=None, precision=0, minimum=0, elem_id="seed")
    model = gr.Textbox(visible=False)
    reset = labels.make(gr.Button, {"value": "settings.reset"}, size="sm", variant="secondary")
    save = labels.html(_save, elem_id="save", js_on_load="glm.save(element, trigger, 'save')")
    load = labels.make(
        gr.UploadButton,
        {"label": "settings.import"},
        file_types=[".json", ".md"],
        size="sm",
        variant="secondary",
        elem_id="import",
    )
    account = gr.HTML("", apply_default_css=False, elem_id="account")
    sampling = (temperature, top_p, top_k, repetition)
    return Drawer(system, *sampling, max_tokens, seed, model, reset, save, load, account)


def who(user: User, say: Say) -> str:
    """The account a visitor is logged in with and the way out; nothing where there is no login."""
    if not user.id.startswith("login:"):
        return ""
    name, leave = escape(say("account.signed_in", name=user.name)), escape(say("account.leave"))
    return (
        f'<div class="account"><span>{name}</span><a class="pill" href="logout">{leave}</a></div>'
    )


def _save(say: Say) -> str:
    buttons = "".join(
        f'<button class="pill" data-kind="{kind}">{escape(say(f"settings.{kind}"))}</button>'
        for kind in KINDS
    )
    return f'<h3>{escape(say("settings.save"))}</h3><div class="kinds">{buttons}</div>'


def sheet_head(title: str, say: Say) -> str:
    """The head of a drawer or dialog, with the button that closes it."""
    close = escape(say("page.close"))
    return (
        f'<h2>{escape(title)}</h2><button class="icon i-close" data-do="close" '
        f'aria-label="{close}" title="{close}"></button>'
    )
