"""What tests of the Models tab share: its handlers without a browser, and who asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from demo import model_cards
from demo.desk import Desk, Visitor
from demo.labels import Labels
from demo.model_acts import Step, Steps
from demo.models_parts import layout
from demo.tab_models import ModelsTab
from glm.identity import User
from tests.page_desk import ANN

ATTACK = '"><img src=x onerror="window.pwned=1">'
GB = 10**9


def end(steps: Steps) -> Step:
    """The last step."""
    return list(steps)[-1]


def request(user: User = ANN) -> Any:
    scope = SimpleNamespace(scope={"user": user})
    return SimpleNamespace(request=scope, session_hash="tab", cookies={}, headers={})


def event(**data: Any) -> Any:
    """What a script of the page sends."""
    return SimpleNamespace(_data=data)


def tab_of(desk: Desk) -> ModelsTab:
    with gr.Blocks():
        return ModelsTab(desk, layout(Labels(desk.words.of("en"))))


def card(desk: Desk, who: Visitor) -> str:
    """What answers now, as drawn."""
    return model_cards.answers(model_cards.now(desk.app.manager, who.user.operator), who.say)
