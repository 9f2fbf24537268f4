"""Write an answer as the model gives it, and keep it, however it ends.

Every step takes at most a tenth of a second, so it can be stopped and its page closed at any
time; what was written until then is kept.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from demo.attachments import split_context
from demo.bubbles import Bubble, bubbles
from demo.desk import Desk, Ticket, Visitor, Wish
from demo.frame import Frame
from demo.model_choice import chosen
from demo.models import why_none
from demo.text import Say, sentence
from glm.chat import EventStream, Options
from glm.errors import GlmError, NotFound, NotReady
from glm.messages import CallText, Conversation, Event, Finish, Message, Sampling, Text, Thinking
from glm.store import TurnRecord

STEP = 0.05  # seconds between two drawings of an answer
FIGURES = 0.25  # seconds between two changes of the figures under it
_log = logging.getLogger(__name__)


def write(desk: Desk, visitor: Visitor, ticket: Ticket) -> Iterator[Frame]:
    """The frames of an answer: `live`, `meter` and `context`, all three in every one.

    gradio makes a component anew, at ten times the cost, for each output that is left out.
    """
    try:
        yield from _write(desk, visitor, ticket)
    except GlmError as error:
        ticket.notice = sentence(visitor.say, error)
    except Exception as error:  # the border of a request: the next message must work
        _log.exception("an answer failed")
        ticket.notice = sentence(visitor.say, error)
    finally:
        desk.answers.end(visitor, ticket)


def _write(desk: Desk, visitor: Visitor, ticket: Ticket) -> Iterator[Frame]:
    store, owner, question = desk.app.store, visitor.user.id, ticket.question
    past = []
    if question.parent is not None:
        found = store.path(owner, question.conversation, leaf=question.parent)
        past = [node.message for node in found]
    if question.message:
        past.append(question.message)
    shown = bubbles(past[-1], visitor.say)
    yield from _until_ready(desk, visitor, ticket, shown)
    if ticket.stopped.is_set():
        return
    manager = desk.app.manager
    ticket.model = chosen(manager, ticket.wish.model)
    sampling = seeded(ticket.wish.sampling or manager.defaults())
    conversation, options = _conversation(ticket.wish.system, past), Options(owner=owner)
    stream = manager.chat(conversation, sampling, model=ticket.model, options=options)
    ticket.hold(stream)
    try:
        keep = _keep_question(desk, visitor, ticket, sampling)
    except BaseException:
        stream.close()
        raise
    yield from _draw(keep, visitor, stream, shown)


def _until_ready(
    desk: Desk, visitor: Visitor, ticket: Ticket, question: list[Bubble]
) -> Iterator[Frame]:
    """Wait for the first model, showing how far it is. Raises NotReady when none is to come."""
    while (state := desk.app.manager.state()).info is None and not ticket.stopped.is_set():
        if state.status != "loading":
            raise NotReady(why_none(state, visitor.say))
        done = "" if state.progress is None else f" {state.progress:.0%}"
        yield Frame(live=question, meter=visitor.say("model.loading") + done, context=(0, 0))
        desk.app.manager.wait(STEP)


@dataclass(slots=True)
class Keep:
    """Where an answer is kept, once."""

    desk: Desk
    ticket: Ticket
    owner: str
    parent: int | None
    sampling: Sampling
    done: bool = False

    def save(self, stream: EventStream, finish: Finish) -> None:
        """An answer without a word is not kept: its question stays unanswered."""
        self.done = True
        message = finish.message
        if not (message.content or message.thinking or message.calls):
            return
        record = TurnRecord(
            prompt=stream.prompt,
            produced=tuple(stream.produced),
            usage=finish.usage,
            seconds=finish.seconds,
            model=self.ticket.model,
            sampling=self.sampling,
            finish=finish.reason,
        )
        self.desk.app.store.append(self.owner, self.ticket.kept, message, self.parent, record)


def _keep_question(desk: Desk, visitor: Visitor, ticket: Ticket, sampling: Sampling) -> Keep:
    """The question is taken: store it, and how it was asked."""
    store, owner, question = desk.app.store, visitor.user.id, ticket.question
    conversation, node = question.conversation, question.parent
    if question.message:
        title = _title(question.message.content)
        conversation = conversation or store.create(owner, title, ticket.wish.system)
        node = store.append(owner, conversation, question.message, node)
    store.set_settings(owner, conversation, settings(ticket.wish, ticket.model))
    ticket.kept = conversation
    return Keep(desk, ticket, owner, node, sampling)


class Writing:
    """An answer that is being written: its text so far and its figures."""

    def __init__(self) -> None:
        self.text = self.thinking = ""
        self.started = time.monotonic()
        self.first = 0.0
        self.finish: Finish | None = None

    def read(self, events: Sequence[Event]) -> bool:
        """Take events in; is there something new to see?"""
        for event in events:
            match event:
                case Text(text) | CallText(text):
                    self.text += text
                case Thinking(text):
                    self.thinking += text
                case Finish():
                    self.finish = event
        if events and not self.first:
            self.first = time.monotonic()
        return bool(events)

    def figures(self, produced: int, say: Say) -> str:
        """Tokens and tokens per second; the first token's wait does not count."""
        seconds = time.monotonic() - self.first
        rate = produced / seconds if seconds > 0.2 else 0.0
        return say("chat.figures", tokens=produced, rate=f"{rate:.0f}")

    def message(self) -> Message:
        return Message("assistant", self.text, thinking=self.thinking)

    def bubbles(self, say: Say) -> list[Bubble]:
        return bubbles(self.message(), say, thinking=not self.text)


def _draw(
    keep: Keep, visitor: Visitor, stream: EventStream, question: list[Bubble]
) -> Iterator[Frame]:
    state = keep.desk.app.manager.state()
    context = state.info.context if state.info else 0
    writing = Writing()
    drawn = counted = 0.0
    frame = Frame(live=question, meter=visitor.say("chat.reading"), context=(0, context))
    try:
        while writing.finish is None:
            changed = writing.read(stream.next(timeout=STEP))
            now = time.monotonic()
            if writing.finish or (changed and now - drawn < STEP):
                continue
            drawn = now
            if changed:
                frame = replace(frame, live=question + writing.bubbles(visitor.say))
            if writing.first and now - counted >= FIGURES:
                counted = now
                line = writing.figures(len(stream.produced), visitor.say)
                used = len(stream.prompt) + len(stream.produced)
                frame = replace(frame, meter=line, context=(used, context))
            yield frame
        keep.save(stream, writing.finish)
        _note(keep.ticket, visitor, stream, writing.finish)
    finally:
        keep.ticket.context = (len(stream.prompt) + len(stream.produced), context)
        if not keep.done:  # the tab was closed: keep what there is, free the slot
            stream.close()
            with suppress(NotFound):  # the conversation was deleted
                keep.save(stream, _cut(stream, writing))


def _note(ticket: Ticket, visitor: Visitor, stream: EventStream, finish: Finish) -> None:
    if finish.reason == "error":
        ticket.notice = visitor.say("error.engine")
        _log.warning("the model failed while it answered: %s", finish.error)


def _cut(stream: EventStream, writing: Writing) -> Finish:
    """The end of an answer whose reader went away."""
    writing.read(stream.next(timeout=STEP))
    seconds = time.monotonic() - writing.started
    return writing.finish or Finish("cancelled", writing.message(), stream.usage, seconds)


def _conversation(system: str, messages: Sequence[Message]) -> Conversation:
    head = (Message("system", system),) if system.strip() else ()
    return Conversation((*head, *messages))


def _title(content: str) -> str:
    """ "" lets the store take it from the message; of one with files, from the words after them."""
    attached, said = split_context(content)
    return said.strip()[:60] if attached else ""


def seeded(sampling: Sampling) -> Sampling:
    """A seed of our own where none was asked for, so that every answer can be made again."""
    if sampling.seed is not None:
        return sampling
    return replace(sampling, seed=secrets.randbelow(2**31))


def settings(wish: Wish, model: str) -> dict[str, object]:
    """What a conversation remembers of how it is answered."""
    sampling = wish.sampling
    kept: dict[str, object] = {"system": wish.system, "model": model}
    if sampling:
        names = ("max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
        kept["sampling"] = {name: getattr(sampling, name) for name in names}
    return kept
