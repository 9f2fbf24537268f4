"""What the page of one program holds, and who is asking. No gradio, no widgets.

`Desk` is made once by `demo.app.build`; its only state of its own is who is being answered now,
so that Stop and a closed browser tab end the right answer and nobody else's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from demo.text import Say, Words
from glm.app import App
from glm.chat import EventStream
from glm.identity import User
from glm.messages import Sampling


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
    """How the visitor wants to be answered. `sampling` None is the family's default."""

    system: str = ""
    sampling: Sampling | None = None


class Ticket:
    """One answer in the making; `stop` may come from any thread, before or after the stream.

    `conversation` is where the question was kept, once it was.
    """

    def __init__(self) -> None:
        self.conversation = ""
        self._stream: EventStream | None = None
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def hold(self, stream: EventStream) -> None:
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
        self._lock = threading.Lock()

    @contextmanager
    def ticket(self, visitor: Visitor) -> Iterator[Ticket | None]:
        """A ticket for as long as the block runs; None when this tab is being answered already."""
        ticket = Ticket()
        with self._lock:
            free = visitor.key not in self._tickets
            if free:
                self._tickets[visitor.key] = ticket
        try:
            yield ticket if free else None
        finally:
            if free:
                ticket.stop()
                with self._lock:
                    del self._tickets[visitor.key]

    def stop(self, key: tuple[str, str]) -> bool:
        """End the answer of this tab; False when there is none."""
        with self._lock:
            ticket = self._tickets.get(key)
        if ticket:
            ticket.stop()
        return ticket is not None

    def __len__(self) -> int:
        return len(self._tickets)


@dataclass(frozen=True, slots=True)
class Desk:
    """The program, the words, and the answers under way."""

    app: App
    words: Words = field(default_factory=Words)
    answers: Answers = field(default_factory=Answers)
