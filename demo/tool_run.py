"""Run a question with tools and draw it as it goes.

    desk.runs.begin(visitor, RunTicket(...))
    for frame in run(desk, visitor, ticket): ...      # only the live steps and the line below

Decisions come from other requests while this generator waits: `decide`. Every step takes at most
a fifth of a second, so that a run can be stopped and its page closed at any time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from demo import tool_steps
from demo.decision_form import Known
from demo.desk import Desk, Question, Ticket, Visitor, Wish
from demo.model_choice import chosen
from demo.models import why_none
from demo.text import sentence
from demo.tool_keep import Keep, recordings, settings
from demo.tool_live import Live
from demo.tool_setup import Setup
from demo.tool_steps import Step
from demo.writing import seeded
from glm import loop
from glm.chat import EventStream, Options
from glm.errors import GlmError, NotFound, NotReady
from glm.loop.replay import Mock, Replay
from glm.loop.toolbox import Toolbox
from glm.messages import Conversation, Event, Finish, Message, Policy, Sampling, Text
from glm.store import Node

STEP, WAITING = 0.05, 0.2  # seconds between two drawings; while a person decides
_log = logging.getLogger(__name__)


class RunTicket(Ticket):
    """One run. `decision` answers the first call that waits: a fork was decided before it began.
    `fresh`: the conversation was made for this question and goes if that is refused. `words` are
    an example's own closing words, for a model that cannot find any."""

    def __init__(
        self,
        question: Question,
        setup: Setup,
        decision: tuple[str, loop.Decision] | None = None,
        fresh: bool = False,
    ) -> None:
        super().__init__(question, Wish(setup.system, model=setup.model))
        self.setup, self.decision, self.fresh = setup, decision, fresh
        self.words = ""
        self.tools: Sequence[Known] = ()
        self.loop: loop.LoopStream | None = None

    def choose(self, model: str) -> None:
        """This is what answers."""
        self.model, self.setup = model, replace(self.setup, model=model)


@dataclass(frozen=True, slots=True)
class RunFrame:
    """The live steps and the line under them; `waits` while a person is asked."""

    live: list[Step]
    meter: str = ""
    waits: bool = False


def known(desk: Desk, visitor: Visitor) -> tuple[Known, ...]:
    """What forms need of the tools that this visitor may use."""
    return tuple(
        Known(card.name, card.spec.parameters, card.origin == "schema")
        for card in desk.app.tools.cards(visitor.user)
        if card.available
    )


def decide(desk: Desk, visitor: Visitor, call_id: str, decision: loop.Decision) -> bool:
    """Answer the call that this tab's run waits for; False when it does not (any more)."""
    ticket = desk.runs.current(visitor)
    stream = ticket.loop if isinstance(ticket, RunTicket) else None
    return stream is not None and stream.decide(call_id, decision)


def run(desk: Desk, visitor: Visitor, ticket: RunTicket) -> Iterator[RunFrame]:
    """The frames of a run."""
    try:
        yield from _run(desk, visitor, ticket)
    except GlmError as error:
        ticket.notice = sentence(visitor.say, error)
    except Exception as error:  # the border of a request: the next question must work
        _log.exception("a run with tools failed")
        ticket.notice = sentence(visitor.say, error)
    finally:
        desk.runs.end(visitor, ticket)


def _run(desk: Desk, visitor: Visitor, ticket: RunTicket) -> Iterator[RunFrame]:
    question, owner = ticket.question, visitor.user.id
    path: list[Node] = []
    if question.parent is not None:
        path = desk.app.store.path(owner, question.conversation, leaf=question.parent)
    past = [node.message for node in path]
    if question.message:
        past.append(question.message)
    ticket.tools = known(desk, visitor)
    before = _before(desk, visitor, ticket, path)
    yield from _until_ready(desk, visitor, ticket, before)
    if ticket.stopped.is_set():
        return
    ticket.choose(chosen(desk.app.manager, ticket.setup.model))
    sampling = seeded(_sampling(desk, ticket.setup))
    stream = _begin(desk, visitor, ticket, (past, sampling))
    ticket.loop = stream
    ticket.hold(stream)
    keep = Keep(desk, owner, ticket, path, sampling)
    try:
        keep.question()
        desk.app.store.set_settings(*keep.place, settings(ticket.setup))
    except BaseException:
        stream.close()
        raise
    yield from _draw(keep, visitor, stream, before)


def _begin(
    desk: Desk, visitor: Visitor, ticket: RunTicket, asked: tuple[list[Message], Sampling]
) -> loop.LoopStream:
    (past, sampling), setup = asked, ticket.setup
    box = toolbox(desk, visitor, ticket)
    head = (Message("system", setup.system),) if setup.system.strip() else ()
    options = Options(owner=visitor.user.id, constrain=setup.constrained)

    def ask(conversation: Conversation) -> EventStream:
        if ticket.words:
            return Spoken(ticket.words)  # type: ignore[return-value]
        model = ticket.model
        return desk.app.manager.chat(conversation, sampling, model=model, options=options)

    step, review = setup.mode != "auto", setup.mode == "review"
    limits = loop.LoopOptions(rounds=setup.rounds, step=step, review=review)
    return loop.run(ask, Conversation((*head, *past), tools=box.specs()), box, limits)


class Spoken:
    """An answer that is known already, in the form of an `EventStream`."""

    prompt: tuple[int, ...] = ()

    def __init__(self, words: str) -> None:
        self.produced: list[int] = []
        self._left: list[Event] = [Text(words), Finish("stop", Message("assistant", words))]

    def next(self, timeout: float | None = None) -> list[Event]:
        events, self._left = self._left, []
        return events

    def close(self) -> None:
        """There is nothing to end."""


def toolbox(desk: Desk, visitor: Visitor, ticket: RunTicket) -> Toolbox:
    """The conversation's tools, or what answers in their place."""
    setup, user, conversation = ticket.setup, visitor.user, ticket.question.conversation
    cards = desk.app.tools.cards(user)
    names = setup.enabled(cards)
    policies = {card.name: setup.policy(card) for card in cards if card.name in names}
    box: Toolbox = desk.app.tools.toolbox(user, conversation, names, policies)
    if setup.mocks:
        box = Mock(box, setup.mocks)
    if setup.replay:
        box = Replay(box, recordings(desk).tape((user.id, conversation)))
    return AskFirst(box, ticket) if ticket.decision else box


class AskFirst:
    """The tools of `inner`; whatever its policy, the loop waits for the call that was decided."""

    def __init__(self, inner: Toolbox, ticket: RunTicket) -> None:
        self._inner, self._ticket = inner, ticket
        self.specs, self.call, self.limit = inner.specs, inner.call, inner.limit

    def policy(self, name: str) -> Policy:
        return "ask" if self._ticket.decision else self._inner.policy(name)


def last_question(path: Sequence[Node]) -> int:
    """Where the last exchange of a path begins."""
    return max((i for i, n in enumerate(path) if n.message.role == "user"), default=0)


def _before(desk: Desk, visitor: Visitor, ticket: RunTicket, path: Sequence[Node]) -> list[Step]:
    """The exchange so far: the new question, or the last one and the steps after it."""
    if ticket.question.message:
        return [tool_steps.said(ticket.question.message.content)]
    rest = path[last_question(path) :]
    return drawn(desk, visitor, (ticket.question.conversation, ticket.tools), rest, tail=False)


def drawn(
    desk: Desk,
    visitor: Visitor,
    where: tuple[str, Sequence[Known]],
    nodes: Sequence[Node],
    tail: bool = True,
) -> list[Step]:
    """The steps of messages of a conversation; `where` is its id and the tools."""
    conversation, tools = where
    observed = [node.id for node in nodes if node.message.role == "tool"]
    answers = recordings(desk).found((visitor.user.id, conversation), observed)
    return tool_steps.draw(nodes, tool_steps.Shown(answers, tools, visitor.say), tail)


def _sampling(desk: Desk, setup: Setup) -> Sampling:
    normal: Sampling = desk.app.manager.defaults()
    temperature = normal.temperature if setup.temperature is None else setup.temperature
    longest = min(normal.max_tokens, setup.longest)
    return replace(normal, temperature=temperature, max_tokens=longest)


def _until_ready(
    desk: Desk, visitor: Visitor, ticket: RunTicket, before: list[Step]
) -> Iterator[RunFrame]:
    while (state := desk.app.manager.state()).info is None and not ticket.stopped.is_set():
        if state.status != "loading":
            raise NotReady(why_none(state, visitor.say))
        done = "" if state.progress is None else f" {state.progress:.0%}"
        yield RunFrame(before, visitor.say("model.loading") + done)
        desk.app.manager.wait(STEP)


def _draw(
    keep: Keep, visitor: Visitor, stream: loop.LoopStream, before: list[Step]
) -> Iterator[RunFrame]:
    ticket = keep.ticket
    assert isinstance(ticket, RunTicket)
    live = Live(visitor.say, ticket.tools, len(keep.path))
    last, pace, stale = 0.0, STEP, False
    frame = RunFrame(before, visitor.say("chat.reading"))
    try:
        while stream.ended is None:
            events = stream.next(timeout=WAITING if live.waits else STEP)
            live.read(events, stream)
            _decided(ticket, stream, live)
            now, stale = time.monotonic(), stale or bool(events)
            if stream.ended or (stale and now - last < pace and not live.waits):
                continue
            if stale:
                frame = RunFrame([*before, *live.steps()], live.meter(), bool(live.waits))
                pace = max(STEP, 6 * (time.monotonic() - now))
            last, stale = now, False
            yield frame
        keep.save(stream.ended, stream, live.results)
        if stream.ended.reason == "error":
            ticket.notice = visitor.say("error.engine")
            _log.warning("a run with tools failed: %s", stream.ended.error)
    finally:
        if not keep.done:  # the tab was closed: keep what there is, free the slot
            stream.close()
            while stream.ended is None:
                live.read(stream.next(timeout=1.0), stream)
            with suppress(NotFound):  # the conversation was deleted
                keep.save(stream.ended, stream, live.results)


def _decided(ticket: RunTicket, stream: loop.LoopStream, live: Live) -> None:
    """A fork's call was decided before the run began."""
    if ticket.decision and live.waits == ticket.decision[0]:
        decision, ticket.decision = ticket.decision[1], None
        stream.decide(live.waits, decision)
        live.decided()
