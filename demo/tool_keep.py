"""Where a run with tools is kept: its question, its turns, what tools answered, corrections."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.desk import Desk, Ticket
from demo.recordings import Place, Recordings
from demo.tool_setup import PREFIX, Setup
from glm.loop import LoopStream
from glm.loop.observations import STOPPED, observation
from glm.messages import Ended, Message, Sampling, ToolCall, ToolResult
from glm.store import Node, TurnRecord

Results = Mapping[str, tuple[ToolCall, ToolResult]]


def recordings(desk: Desk) -> Recordings:
    """The pictures, tables and tapes of all conversations."""
    return Recordings(desk.app.data_dir / "observations")


def new_conversation(desk: Desk, owner: str, title: str = "") -> str:
    """A conversation of the Tools tab; its id says so."""
    return desk.app.store.create(owner, title, id=PREFIX + secrets.token_urlsafe(16))


def settings(setup: Setup) -> dict[str, object]:
    """What a conversation remembers of how it is run."""
    return {"system": setup.system, "tools": setup.settings()}


@dataclass(slots=True)
class Keep:
    """Keeps one run, once. `path` are the messages it was asked after."""

    desk: Desk
    owner: str
    ticket: Ticket
    path: Sequence[Node]
    sampling: Sampling
    parent: int | None = None
    done: bool = False

    @property
    def place(self) -> Place:
        return self.owner, self.ticket.kept

    def question(self) -> None:
        """The question was taken."""
        question = self.ticket.question
        self.parent, self.ticket.kept = question.parent, question.conversation
        if question.message:
            self.parent = self._append(question.message, self.parent)

    def save(self, ended: Ended, stream: LoopStream, results: Results) -> None:
        """The new turns under the question; those a fork began with are there already."""
        self.done = True
        store = self.desk.app.store
        messages = _finished(ended)
        base = [m for m in stream.conversation.messages if m.role != "system"]
        there = list(self.path[len(base) :])
        parent = there[0].parent if there and messages else self.parent
        nodes: list[int] = []
        for place, message in enumerate(messages):
            if there and there[0].message == message:
                parent = there.pop(0).id
            else:
                there = []
                parent = self._append(message, parent, self._record(place, ended, stream))
                found = results.get(message.call_id) if message.role == "tool" else None
                if found and observation(found[1]) == message.content:
                    recordings(self.desk).keep(self.place, parent, *found)
            nodes.append(parent)
        if nodes:
            store.rewind(*self.place, nodes[-1])
        for changed in ended.corrections:
            if changed.message < len(nodes):
                pair = changed.model_call, changed.your_call
                store.pair(*self.place, nodes[changed.message], *pair)

    def _record(self, place: int, ended: Ended, stream: LoopStream) -> TurnRecord | None:
        answered = stream.answered.get(place)
        if answered is None or not answered.produced:
            return None
        at_limit = ended.reason == "rounds" and place == len(ended.messages) - 1
        return TurnRecord(
            prompt=answered.prompt,
            produced=answered.produced,
            usage=answered.finish.usage,
            seconds=answered.finish.seconds,
            model=self.ticket.model,
            sampling=self.sampling,
            finish="rounds" if at_limit else answered.finish.reason,
        )

    def _append(
        self, message: Message, parent: int | None, record: TurnRecord | None = None
    ) -> int:
        return self.desk.app.store.append(*self.place, message, parent, record)


def _finished(ended: Ended) -> list[Message]:
    """The turns worth keeping: a call that was cut short stays open, and no turn is empty."""
    messages = list(ended.messages)
    stopped = observation(STOPPED)
    while messages and messages[-1].role == "tool" and messages[-1].content == stopped:
        messages.pop()
    if messages and messages[-1].role == "assistant":
        last = messages[-1]
        if not (last.content or last.thinking or last.calls):
            messages.pop()
    return messages
