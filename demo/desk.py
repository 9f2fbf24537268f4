"""What the page of one program holds, and who is asking. No gradio, no widgets.

`Desk` is made once by `demo.app.build`; its only state of its own is who is being answered now,
so that Stop and a closed browser tab end the right answer and nobody else's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from demo.text import Say, Words
from demo.tool_tries import Tries
from glm.app import App
from glm.identity import User
from glm.messages import Message, Sampling


@dataclass(frozen=True, slots=True)
class Visitor:
    """One browser tab of one user, and the language of its page."""

    user: User
    tab: str
    say: Say

    @property
    def key(self) -> tuple[str, str]:
        return self.user.id, self.tab


@dataclass(frozen=True, slots=True)
class Wish:
    """How the visitor wants to be answered. `sampling` None is the family's default, `model` ""
    whatever answers where nothing was chosen."""

    system: str = ""
    sampling: Sampling | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked where: a new message under `parent`, or with None the question at `parent`.

    `files` were read into the message; a refused one gives them back.
    """

    conversation: str
    parent: int | None
    message: Message | None
    files: tuple[str, ...] = ()


class Closable(Protocol):
    """An answer, or a run with tools."""

    def close(self) -> None: ...


class Ticket:
    """One answer in the making; `stop` may come from any thread, before or after the stream.

    `started` once somebody writes it, `model` what answers, `kept` is the conversation it is in
    once the question was stored, `notice` what went wrong, `context` the tokens (used, available)
    at its end.
    """

    def __init__(self, question: Question, wish: Wish) -> None:
        self.question, self.wish = question, wish
        self.started = False
        self.model = wish.model
        self.kept = ""
        self.notice = ""
        self.context = (0, 0)
        self.stopped = threading.Event()
        self._stream: Closable | None = None
        self._lock = threading.Lock()

    def hold(self, stream: Closable) -> None:
        """The stream that `stop` closes."""
        with self._lock:
            self._stream = stream
        if self.stopped.is_set():
            stream.close()

    def stop(self) -> None:
        self.stopped.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.close()


class Answers:
    """The answers being written, one at most for each browser tab."""

    def __init__(self) -> None:
        self._tickets: dict[tuple[str, str], Ticket] = {}
        self._ended: dict[tuple[str, str], Ticket] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: Visitor, ticket: Ticket) -> bool:
        """Make this the tab's answer; False while another one is being written."""
        with self._lock:
            other = self._tickets.get(visitor.key)
            if other and other.started:
                return False
            self._tickets[visitor.key] = ticket
            return True

    def start(self, visitor: Visitor) -> Ticket | None:
        """The tab's answer that nobody writes yet."""
        with self._lock:
            ticket = self._tickets.get(visitor.key)
            if ticket is None or ticket.started:
                return None
            ticket.started = True
            return ticket

    def end(self, visitor: Visitor, ticket: Ticket) -> None:
        """The answer is written, or never will be."""
        ticket.stop()
        with self._lock:
            if self._tickets.get(visitor.key) is ticket:
                del self._tickets[visitor.key]
                self._ended[visitor.key] = ticket

    def take(self, visitor: Visitor) -> Ticket | None:
        """The tab's answer that has ended, once."""
        with self._lock:
            return self._ended.pop(visitor.key, None)

    def current(self, visitor: Visitor) -> Ticket | None:
        """The tab's answer that is being written."""
        with self._lock:
            return self._tickets.get(visitor.key)

    def stop(self, key: tuple[str, str]) -> bool:
        """Stop the answer of this tab; False when there is none."""
        with self._lock:
            ticket = self._tickets.get(key)
        if ticket:
            ticket.stop()
        return ticket is not None

    def forget(self, key: tuple[str, str]) -> None:
        """The tab is gone."""
        self.stop(key)
        with self._lock:
            ticket = self._tickets.get(key)
            if ticket and not ticket.started:
                del self._tickets[key]
            self._ended.pop(key, None)

    def __len__(self) -> int:
        return len(self._tickets)


@dataclass(frozen=True, slots=True)
class Desk:
    """The program, the words, the answers, the runs with tools and the tries under way."""

    app: App
    words: Words = field(default_factory=Words)
    answers: Answers = field(default_factory=Answers)
    runs: Answers = field(default_factory=Answers)
    tries: Tries = field(default_factory=Tries)
