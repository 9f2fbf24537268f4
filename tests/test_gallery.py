"""Every example of the gallery with the embedded model and the real tools, in both languages."""

from __future__ import annotations

import re

import pytest

from demo import gallery, tool_acts
from demo.desk import Desk
from demo.tool_run import RunTicket, decide, run
from glm.app import App
from glm.identity import User
from glm.loop.pause import Decision
from glm.manager import Manager
from glm.store import Store
from tests.page_desk import visitor
from tools.workshop import Workshop

pytestmark = pytest.mark.slow
TINY = gallery.FOLDER / "tiny"
FACTS = {  # what an answer repeats of what came back
    "weather": r"-?\d+",
    "sum": r"503",
    "time": r"\d{1,2}:\d\d",
    "units": r"8\.04",
    "random": r"\d+",
    "table": r"Paris|45",
    "search": r"the lighthouse was built in 1874|灯塔靠近老城",
    "read": r"Friday evening|周五晚上",
    "own": r"12 euros|30 元",
    "plot": r"\w",
    "step": r"96",
    "fork": r"-?\d+",
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    manager, shop = Manager(TINY), Workshop(folder)
    manager.start()
    assert manager.wait(60).status == "ready"
    store = Store(folder / "chats.db")
    yield Desk(App(manager, store, folder, tools=shop))
    manager.close()
    shop.close()
    store.close()


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("example", gallery.examples(), ids=lambda one: one.id)
def test_an_example_works_with_the_embedded_model(desk, example, lang):
    who = visitor(desk, User("ann", operator=True), f"{example.id}-{lang}", lang)
    frame = tool_acts.play(desk, who, example.id, lang)
    assert frame.notice == "" and frame.busy
    ticket = desk.runs.start(who)
    assert isinstance(ticket, RunTicket)
    for step in run(desk, who, ticket):
        if step.waits:
            waiting = re.findall(r'data-call="([^"]+)"', step.live[-1]["html"])
            decide(desk, who, waiting[-1], Decision())
    conversation = ticket.kept
    turns = [n.message for n in desk.app.store.path(who.user.id, conversation)]
    said = [(turn.role, turn.name, turn.content) for turn in turns]
    print(*said, sep="\n")
    seen = [turn for turn in turns if turn.role == "tool"]
    assert [turn.name for turn in seen] == list(example.tools), said
    assert not seen[0].content.lower().startswith("error"), said
    assert re.search(FACTS[example.id], turns[-1].content), said
    assert turns[-1].role == "assistant"
