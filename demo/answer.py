"""Ask the model and draw its answer as it comes: send, retry and edit are one generator.

Every step takes at most a tenth of a second, so a page can be stopped or closed at any time; what
was written until then is kept. A refused question changes nothing and goes back to the input.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from demo.attachments import as_context, read_attachment, split_context
from demo.bubbles import Bubble, bubbles
from demo.desk import Desk, Ticket, Visitor, Wish
from demo.frame import STILL, Frame, asking, whole
from demo.text import sentence
from glm.chat import EventStream, Options
from glm.errors import GlmError, NotFound, NotReady
from glm.messages import CallText, Conversation, Event, Finish, Message, Sampling, Text, Thinking
from glm.store import Node, TurnRecord

STEP = 0.05  # seconds between two drawings of an answer
FIGURES = 0.25  # seconds between two changes of the figures under it
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A message of a conversation."""

    conversation: str
    node: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked where: a new message under `parent`, or with None the question at `parent`.

    `files` were read into the message; a refused one gives them back.
    """

    conversation: str
    parent: int | None
    message: Message | None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """What was in the input: text, and paths of uploaded files."""

    text: str
    files: tuple[str, ...] = ()


def send(
    desk: Desk, visitor: Visitor, conversation: str, draft: Draft, wish: Wish
) -> Iterator[Frame]:
    """Answer a new message at the end of the conversation ("" begins one)."""
    if not draft.text.strip() and not draft.files:
        return
    try:
        attached = as_context([read_attachment(path) for path in draft.files])
        parent = _end(desk, visitor, conversation)
    except GlmError as error:
        yield Frame(notice=sentence(visitor.say, error))
        return
    text = draft.text if draft.text.strip() else visitor.say("file.default")
    question = Question(conversation, parent, Message("user", attached + text), draft.files)
    yield from answer(desk, visitor, question, wish)


def _end(desk: Desk, visitor: Visitor, conversation: str) -> int | None:
    """Where a new message goes; an unanswered question is replaced, it becomes a branch."""
    path = desk.app.store.path(visitor.user.id, conversation) if conversation else []
    if not path:
        return None
    return path[-1].parent if path[-1].message.role == "user" else path[-1].id


def retry(desk: Desk, visitor: Visitor, place: Place, wish: Wish) -> Iterator[Frame]:
    """Another answer beside the one at `place`; at a question, an answer to it."""
    found = desk.app.store.path(visitor.user.id, place.conversation, leaf=place.node)
    asked = [n for n in found if n.message.role == "user"]
    if asked:
        yield from answer(desk, visitor, Question(place.conversation, asked[-1].id, None), wish)


def edit(desk: Desk, visitor: Visitor, place: Place, text: str, wish: Wish) -> Iterator[Frame]:
    """Other words instead of those at `place`, as a branch; a changed question is answered."""
    store, owner, conversation = desk.app.store, visitor.user.id, place.conversation
    old = store.path(owner, conversation, leaf=place.node)[-1]
    attached, said = split_context(old.message.content)
    if not text.strip() or text == said:
        return
    changed = old.message.edited(content=attached + text)
    if changed.role == "user":
        yield from answer(desk, visitor, Question(conversation, old.parent, changed), wish)
    else:
        store.append(owner, conversation, changed, old.parent)
        yield whole(store.path(owner, conversation), visitor.say, listing=True)


def answer(desk: Desk, visitor: Visitor, question: Question, wish: Wish) -> Iterator[Frame]:
    """Draw the question, then the answer, then the conversation at rest."""
    with desk.answers.ticket(visitor) as ticket:
        if ticket is None:
            return
        try:
            yield from _answer(desk, visitor, question, wish, ticket)
        except GlmError as error:
            yield _refused(desk, visitor, question, ticket, sentence(visitor.say, error))
        except Exception as error:  # the border of a request: the next message must work
            _log.exception("an answer failed")
            yield _refused(desk, visitor, question, ticket, sentence(visitor.say, error))


def _answer(
    desk: Desk, visitor: Visitor, question: Question, wish: Wish, ticket: Ticket
) -> Iterator[Frame]:
    store, owner = desk.app.store, visitor.user.id
    cid, message = question.conversation, question.message
    before = store.path(owner, cid, leaf=question.parent) if question.parent is not None else []
    asked = message or before[-1].message
    shown = bubbles(asked, visitor.say)
    yield asking(
        before if message else before[:-1], shown, visitor.say, composer="" if message else None
    )
    yield from _until_ready(desk, visitor, ticket)
    if ticket.stopped.is_set():
        yield _refused(desk, visitor, question, ticket, "")
        return
    sampling = seeded(wish.sampling or desk.app.manager.defaults())
    past = [n.message for n in before] + ([message] if message else [])
    stream = desk.app.manager.chat(
        _conversation(wish.system, past), sampling, options=Options(owner=owner)
    )
    ticket.hold(stream)
    try:
        node = question.parent
        if message:
            cid = cid or store.create(owner, _title(message.content), wish.system)
            node = store.append(owner, cid, message, question.parent)
            ticket.conversation = cid
        store.set_settings(owner, cid, settings(wish))
    except BaseException:
        stream.close()
        raise
    yield Frame(conversation=cid, listing=True)
    keep = Keep(desk, owner, cid, node, sampling)
    yield from _write(keep, visitor, stream, shown)


def _until_ready(desk: Desk, visitor: Visitor, ticket: Ticket) -> Iterator[Frame]:
    """Wait for the first model, showing how far it is. Raises NotReady when it cannot load."""
    while (state := desk.app.manager.state()).info is None and not ticket.stopped.is_set():
        if state.status == "failed":
            raise NotReady(state.message)
        done = "" if state.progress is None else f" {state.progress:.0%}"
        yield Frame(meter=visitor.say("model.loading") + done)
        desk.app.manager.wait(STEP)


@dataclass(slots=True)
class Keep:
    """Where an answer is kept, once, however it ends."""

    desk: Desk
    owner: str
    conversation: str
    parent: int | None
    sampling: Sampling
    done: bool = False

    def path(self) -> list[Node]:
        return self.desk.app.store.path(self.owner, self.conversation)

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
            model="base",
            sampling=self.sampling,
            finish=finish.reason,
        )
        self.desk.app.store.append(self.owner, self.conversation, message, self.parent, record)


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

    def rate(self, produced: int) -> float:
        seconds = time.monotonic() - (self.first or self.started)
        return produced / seconds if self.first and seconds > 0.2 else 0.0

    def message(self) -> Message:
        return Message("assistant", self.text, thinking=self.thinking)


def _write(
    keep: Keep, visitor: Visitor, stream: EventStream, question: list[Bubble]
) -> Iterator[Frame]:
    state = keep.desk.app.manager.state()
    context = state.info.context if state.info else 0
    writing = Writing()
    drawn = counted = 0.0
    try:
        while writing.finish is None:
            changed = writing.read(stream.next(timeout=STEP))
            now = time.monotonic()
            if writing.finish or (changed and now - drawn < STEP):
                continue
            drawn = now
            frame = _step(writing, visitor, question) if writing.first else STILL
            if now - counted >= FIGURES:
                counted, used = now, len(stream.prompt) + len(stream.produced)
                line = _line(writing, visitor, len(stream.produced))
                frame = replace(frame, meter=line, context=(used, context))
            yield frame
        keep.save(stream, writing.finish)
        yield _rest(keep, visitor, stream, writing.finish, context)
    finally:
        if not keep.done:  # the tab was closed: keep what there is, free the slot
            stream.close()
            with suppress(NotFound):  # the conversation was deleted
                keep.save(stream, _cut(stream, writing))


def _step(writing: Writing, visitor: Visitor, question: list[Bubble]) -> Frame:
    message = writing.message()
    shown = bubbles(message, visitor.say, thinking=not message.content)
    return Frame(live=question + shown)


def _line(writing: Writing, visitor: Visitor, produced: int) -> str:
    if not writing.first:
        return visitor.say("chat.reading")
    return visitor.say("chat.figures", tokens=produced, rate=f"{writing.rate(produced):.0f}")


def _rest(keep: Keep, visitor: Visitor, stream: EventStream, finish: Finish, context: int) -> Frame:
    """The conversation after the answer; its history is on the page already."""
    notice = visitor.say("error.engine") if finish.reason == "error" else ""
    if finish.reason == "error":
        _log.warning("the model failed while it answered: %s", finish.error)
    used = len(stream.prompt) + len(stream.produced)
    rest = whole(keep.path(), visitor.say, notice=notice, context=(used, context), listing=True)
    return replace(rest, history=None)


def _cut(stream: EventStream, writing: Writing) -> Finish:
    """The end of an answer whose reader went away."""
    writing.read(stream.next(timeout=STEP))
    seconds = time.monotonic() - writing.started
    return writing.finish or Finish("cancelled", writing.message(), stream.usage, seconds)


def _refused(
    desk: Desk, visitor: Visitor, question: Question, ticket: Ticket, notice: str
) -> Frame:
    """The conversation at rest; a question that was not taken is in the input again."""
    kept = ticket.conversation
    message = None if kept else question.message
    text = split_context(message.content)[1] if message else None
    more = {"notice": notice, "composer": text, "files": question.files if message else ()}
    cid = kept or question.conversation
    try:
        nodes = desk.app.store.path(visitor.user.id, cid) if cid else []
    except NotFound:  # deleted in another tab
        cid, nodes = "", []
    return whole(nodes, visitor.say, conversation=cid, **more)


def _conversation(system: str, messages: Sequence[Message]) -> Conversation:
    head = (Message("system", system),) if system.strip() else ()
    return Conversation((*head, *messages))


def _title(content: str) -> str:
    """ "" lets the store take it from the message; of one with files, from the words after them."""
    attached, said = split_context(content)
    return said.strip()[:60] if attached else ""


def seeded(sampling: Sampling) -> Sampling:
    """A seed of our own where none was asked for, so that every answer can be made again."""
    return (
        sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbelow(2**31))
    )


def settings(wish: Wish) -> dict[str, object]:
    """What a conversation remembers of how it is answered."""
    chosen = wish.sampling
    kept: dict[str, object] = {"system": wish.system}
    if chosen:
        names = ("max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
        kept["sampling"] = {name: getattr(chosen, name) for name in names}
    return kept
