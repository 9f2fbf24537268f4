"""The page: a head, and one tab for each thing a visitor does here.

    page = build(app)
    gr.mount_gradio_app(server, page, path="/", **mount_options())

Who is asking comes from `scope["user"]`, which the server puts there. Offline by construction:
no fonts, scripts or pictures from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Else gradio sums up its last 10,000 events, in pandas, after every one.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")

import gradio as gr

from demo import tab_chat, tab_models, tab_tools, theme, top
from demo.desk import Desk
from demo.labels import Labels
from demo.text import LANGUAGES, Say, choose_language
from glm.app import App

TITLES = {"chat": "chat.tab", "tools": "tools.tab", "models": "models.tab"}
KEPT = 24 * 3600  # seconds an uploaded file stays on the server


def build(app: App) -> gr.Blocks:
    """The whole page, not yet mounted."""
    desk = Desk(app)
    lang = choose_language(app.lang, None)
    labels = Labels(desk.words.of(lang))
    with gr.Blocks(
        title=desk.words.say(lang, "app.name"),
        analytics_enabled=False,
        fill_height=True,
        delete_cache=(3600, KEPT),
    ) as page:
        bar = labels.html(
            top.head,
            elem_id="top",
            js_on_load="glm.top(element, trigger, 'language')",
        )
        connects = []
        with gr.Tabs(elem_id="tabs"):
            for name, build_tab in tabs(app).items():
                key = TITLES[name]
                tab = gr.Tab(desk.words.say(lang, key), id=name, elem_id=f"tab-{name}")
                labels.add(tab, partial(_tab_label, key))
                with tab:
                    connects.append(build_tab(desk, labels, bar))
        for connect in connects:  # now all words of the page are known
            connect(page)
    return page


Connect = Callable[[gr.Blocks], None]


def tabs(app: App) -> dict[str, Callable[[Desk, Labels, gr.HTML], Connect]]:
    """The tabs in their order, each with what makes its components and returns what connects its
    events; tools only in a program that has some."""
    found: dict[str, Callable[[Desk, Labels, gr.HTML], Connect]] = {"chat": tab_chat.build}
    if app.tools is not None:
        found["tools"] = tab_tools.build
    found["models"] = tab_models.build
    return found


def _tab_label(key: str, say: Say) -> dict[str, Any]:
    return {"label": say(key)}


def mount_options() -> dict[str, Any]:
    """Arguments for `gr.mount_gradio_app`: the look. The rest is the server's."""
    return theme.look()


__all__ = ["LANGUAGES", "build", "mount_options"]
