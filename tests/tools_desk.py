"""A desk with a fake workshop and a model that plays a script of answers, without a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.desk import Desk, Visitor
from demo.tool_asking import Asked, ToolFrame, rest, send
from demo.tool_run import RunFrame, RunTicket, run
from demo.tool_setup import Setup
from glm.app import App
from glm.engines.base import Request
from glm.engines.fake import FakeEngine
from glm.manager import Manager
from glm.store import Store
from tests.fake_workshop import FakeWorkshop
from tests.page_desk import visitor
from tests.scripted_tools import call, say
from tests.tiny_checkpoint import write_shell

__all__ = ["call", "make", "say", "visitor"]


DEFAULT = Setup()


class Script:
    """Answers in order; `prompts` are the ids that were sent."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self.left, self.prompts = list(answers), []
        self.requests: list[Request] = []

    def __call__(self, info, how) -> FakeEngine:
        return FakeEngine(self._answer, context=8192, pause=0.0)

    def _answer(self, request: Request) -> Any:
        self.requests.append(request)
        return self.left.pop(0) if self.left else say("The script is over.")


def make(folder: Path, answers: Sequence[Any] = ()) -> tuple[Desk, Script, FakeWorkshop]:
    script, shop = Script(answers), FakeWorkshop(folder / "files")
    model = write_shell(folder / "model")
    manager = Manager(model, opener=script)
    manager.open(model)
    app = App(manager, Store(folder / "chats.db"), folder, tools=shop)
    return Desk(app), script, shop


def frames(desk: Desk, who: Visitor) -> Iterator[RunFrame]:
    """The run that was begun."""
    ticket = desk.runs.start(who)
    assert isinstance(ticket, RunTicket)
    yield from run(desk, who, ticket)


def end(desk: Desk, who: Visitor) -> ToolFrame:
    ticket = desk.runs.take(who)
    assert isinstance(ticket, RunTicket)
    return rest(desk, who, ticket)


def finish(desk: Desk, who: Visitor) -> ToolFrame:
    """The whole run and what it leaves."""
    list(frames(desk, who))
    return end(desk, who)


def ask(
    desk: Desk, who: Visitor, text: str, conversation: str = "", setup: Setup = DEFAULT
) -> ToolFrame:
    send(desk, who, conversation, Asked(text), setup)
    return finish(desk, who)


def html(frame: ToolFrame | RunFrame) -> str:
    return "".join(step["html"] for step in frame.live or ())
