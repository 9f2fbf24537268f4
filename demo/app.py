"""The page: a head, and one tab for each thing a visitor does here.

    page = build(app)
    gr.mount_gradio_app(server, page, path="/", **mount_options())

Who is asking comes from `scope["user"]`, which the server puts there. Offline by construction:
no fonts, scripts or pictures from elsewhere.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Else gradio sums up its last 10,000 events, in pandas, after every one.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")

import gradio as gr

from demo import tab_chat, theme, top
from demo.desk import Desk
from demo.labels import Labels
from demo.text import LANGUAGES, choose_language
from glm.app import App

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
        with gr.Tabs(elem_id="tabs"):
            tab = gr.Tab(desk.words.say(lang, "chat.tab"), id="chat")
            labels.add(tab, lambda say: {"label": say("chat.tab")})
            with tab:
                tab_chat.build(desk, labels, bar, page)
    return page


def mount_options() -> dict[str, Any]:
    """Arguments for `gr.mount_gradio_app`: the look. The rest is the server's."""
    return theme.look()


__all__ = ["LANGUAGES", "build", "mount_options"]
