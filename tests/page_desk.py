"""A page's desk over a scripted model, without a browser: what tests of handlers start from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from demo.asking import rest
from demo.desk import Desk, Visitor, Wish
from demo.frame import Frame
from demo.writing import write
from glm.app import App
from glm.dialects.chatglm3 import ChatGLM3
from glm.engines.base import Request
from glm.engines.fake import FakeEngine
from glm.identity import User
from glm.manager import Manager
from glm.messages import Sampling
from glm.store import Store
from glm.tokenizer import Tokenizer
from tests.shared_files import tokenizer_file
from tests.tiny_checkpoint import write_shell

ANN, BOB = User("ann", "Ann", operator=True), User("bob", "Bob")
WISH = Wish("", Sampling(max_tokens=200, seed=1))
Script = Callable[[str], str | BaseException]


class Scripted:
    """Opens engines that answer a question with what `script` says to it."""

    def __init__(self, script: Script, pause: float = 0.0, context: int = 4096) -> None:
        self.dialect = ChatGLM3(Tokenizer(tokenizer_file()))
        self.script, self.pause, self.context = script, pause, context
        self.engines: list[FakeEngine] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, info, how) -> FakeEngine:
        self.gate.wait(10)
        engine = FakeEngine(self._answer, context=self.context, pause=self.pause)
        self.engines.append(engine)
        return engine

    def _answer(self, request: Request) -> list[int] | BaseException:
        tokens = self.dialect.tokenizer
        ids = [i for i in request.prompt if not tokens.is_special(i)]
        said = self.script(tokens.decode(ids))
        if isinstance(said, BaseException):
            return said
        return [*tokens.encode("\n " + said), tokens.eos]


def make_desk(
    folder: Path, script: Script = lambda asked: "Fine.", **about
) -> tuple[Desk, Scripted]:
    """A desk whose model has loaded, and the maker of its engines."""
    opener = Scripted(script, **about)
    model = write_shell(folder / "model")
    manager = Manager(model, opener=opener)
    manager.open(model)
    return Desk(App(manager, Store(folder / "chats.db"), folder)), opener


def visitor(desk: Desk, user: User = ANN, tab: str = "tab", lang: str = "en") -> Visitor:
    return Visitor(user, tab, desk.words.of(lang))


def text_of(bubbles) -> list[str]:
    """What bubbles show, in order."""
    return ["".join(part["text"] for part in bubble["content"]) for bubble in bubbles or ()]


def answered(desk: Desk, who: Visitor, asked: Frame) -> Iterator[Frame]:
    """The frames of an answer, as the page's three events draw them."""
    yield asked
    ticket = desk.answers.start(who)
    if ticket is not None:
        yield from write(desk, who, ticket)
    ended = desk.answers.take(who)
    if ended is not None:
        yield rest(desk, who, ended)


def last(frames: Iterator[Frame]) -> Frame:
    return list(frames)[-1]
