"""Send, retry, edit: draw the question at once; `demo.writing` then writes the answer.

    frame = send(...)            # the whole page, the input cleared
    for frame in write(...)      # only what the answer is in: cheap at any length of history
    frame = rest(...)            # the whole page again

They are three events, because gradio's page handles every output of an event at every step.
A refused question changes nothing and goes back to the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from demo.attachments import as_context, read_attachment, split_context
from demo.bubbles import bubbles
from demo.desk import Desk, Question, Ticket, Visitor, Wish
from demo.frame import Frame, asking, whole
from demo.text import sentence
from glm.errors import GlmError, NotFound
from glm.messages import Message


@dataclass(frozen=True, slots=True)
class Place:
    """A message of a conversation."""

    conversation: str
    node: int


@dataclass(frozen=True, slots=True)
class Draft:
    """What was in the input: text, and paths of uploaded files."""

    text: str
    files: tuple[str, ...] = ()


def send(desk: Desk, visitor: Visitor, conversation: str, draft: Draft, wish: Wish) -> Frame:
    """Ask a new message at the end of the conversation ("" begins one)."""
    if not draft.text.strip() and not draft.files:
        return Frame()
    try:
        attached = as_context([read_attachment(path) for path in draft.files])
        parent = _end(desk, visitor, conversation)
    except GlmError as error:
        return Frame(notice=sentence(visitor.say, error))
    text = draft.text if draft.text.strip() else visitor.say("file.default")
    question = Question(conversation, parent, Message("user", attached + text), draft.files)
    return ask(desk, visitor, question, wish)


def _end(desk: Desk, visitor: Visitor, conversation: str) -> int | None:
    """Where a new message goes; an unanswered question is replaced, it becomes a branch."""
    path = desk.app.store.path(visitor.user.id, conversation) if conversation else []
    if not path:
        return None
    return path[-1].parent if path[-1].message.role == "user" else path[-1].id


def retry(desk: Desk, visitor: Visitor, place: Place, wish: Wish) -> Frame:
    """Ask for another answer beside the one at `place`; at a question, for an answer to it."""
    found = desk.app.store.path(visitor.user.id, place.conversation, leaf=place.node)
    asked = [n for n in found if n.message.role == "user"]
    if not asked:
        return Frame()
    return ask(desk, visitor, Question(place.conversation, asked[-1].id, None), wish)


def edit(desk: Desk, visitor: Visitor, place: Place, text: str, wish: Wish) -> Frame:
    """Other words instead of those at `place`, as a branch; a changed question is asked."""
    store, owner, conversation = desk.app.store, visitor.user.id, place.conversation
    old = store.path(owner, conversation, leaf=place.node)[-1]
    attached, said = split_context(old.message.content)
    if not text.strip() or text == said:
        return Frame()
    changed = old.message.edited(content=attached + text)
    if changed.role == "user":
        return ask(desk, visitor, Question(conversation, old.parent, changed), wish)
    store.append(owner, conversation, changed, old.parent)
    return whole(store.path(owner, conversation), visitor.say, listing=True)


def ask(desk: Desk, visitor: Visitor, question: Question, wish: Wish) -> Frame:
    """Draw a question; nothing when the tab is being answered already."""
    store, owner, message = desk.app.store, visitor.user.id, question.message
    before = []
    if question.parent is not None:
        before = store.path(owner, question.conversation, leaf=question.parent)
    if desk.app.manager.state().info is None:  # its defaults are not in the settings yet
        wish = replace(wish, sampling=None)
    if not desk.answers.begin(visitor, Ticket(question, wish)):
        return Frame()
    shown = bubbles(message or before[-1].message, visitor.say)
    rest = before if message else before[:-1]
    return asking(rest, shown, visitor.say, composer="" if message else None)


def rest(desk: Desk, visitor: Visitor, ticket: Ticket) -> Frame:
    """The conversation after an answer; a question that was not taken is in the input again."""
    question = ticket.question
    message = None if ticket.kept else question.message
    more = {
        "notice": ticket.notice,
        "context": ticket.context if any(ticket.context) else None,
        "composer": split_context(message.content)[1] if message else None,
        "files": question.files if message else (),
        "listing": True,
    }
    conversation = ticket.kept or question.conversation
    try:
        nodes = desk.app.store.path(visitor.user.id, conversation) if conversation else []
    except NotFound:  # deleted in another tab
        conversation, nodes = "", []
    frame = whole(nodes, visitor.say, conversation=conversation, **more)
    # The history was drawn with the question and has not changed since.
    return replace(frame, history=None) if ticket.kept and conversation else frame
