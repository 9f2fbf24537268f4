"""Send, retry, edit, fork, rewrite: draw the question at once; `demo.tool_run` then answers it.

As in the Chat tab a question is three events: one of these, the run, and `rest`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import decision_form
from demo.desk import Desk, Question, Visitor
from demo.text import Refused, sentence
from demo.tool_keep import new_conversation, recordings, settings
from demo.tool_run import RunTicket, drawn, known, last_question
from demo.tool_setup import Setup, read_setup
from demo.tool_steps import Step, said
from glm.errors import GlmError, NotFound
from glm.loop.observations import PERSON, STOPPED, observation
from glm.messages import Message, ToolCall, ToolResult
from glm.store import Node


@dataclass(frozen=True, slots=True)
class ToolFrame:
    """One step of the tab. None leaves a part as it is.

    `history` is all but the last exchange, `live` the last one. `setup` draws the panel anew.
    """

    history: list[Step] | None = None
    live: list[Step] | None = None
    busy: bool = False
    meter: str = ""
    notice: str = ""
    composer: str | None = None
    files: tuple[str, ...] = ()
    conversation: str | None = None
    setup: Setup | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What was in the input: text, and paths of uploaded files."""

    text: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class At:
    """A message of a conversation, and how it is run."""

    conversation: str
    node: int
    setup: Setup


def whole(desk: Desk, visitor: Visitor, conversation: str, **more: Any) -> ToolFrame:
    """A conversation as it rests; "" is a new one. Raises NotFound."""
    if not conversation:
        return ToolFrame([], [], conversation="", **more)
    nodes = desk.app.store.path(visitor.user.id, conversation)
    at, where = last_question(nodes), (conversation, known(desk, visitor))
    history = drawn(desk, visitor, where, nodes[:at], tail=False)
    live = drawn(desk, visitor, where, nodes[at:])
    return ToolFrame(history, live, conversation=conversation, **more)


def send(desk: Desk, visitor: Visitor, conversation: str, asked: Asked, setup: Setup) -> ToolFrame:
    """Ask a new question at the end of the conversation ("" begins one)."""
    text = asked.text.strip()
    if not text and not asked.files:
        return ToolFrame()
    fresh = not conversation
    try:
        if fresh:
            conversation = new_conversation(desk, visitor.user.id, text[:60])
        parent = _end(desk, visitor, conversation)
        names = add_files(desk, visitor, conversation, asked.files)
    except (GlmError, OSError) as error:
        if fresh and conversation:
            forget(desk, visitor, conversation)
        return ToolFrame(notice=sentence(visitor.say, error), composer=asked.text)
    text = text or visitor.say("file.default")
    unsaid = [n for n in names if n not in text and Path(n).stem not in text]
    if unsaid:  # the model knows of a file what the words say
        text += "\n" + visitor.say("tools.files_named", names=", ".join(unsaid))
    question = Question(conversation, parent, Message("user", text), asked.files)
    ticket = RunTicket(question, setup, fresh=fresh)
    return begin(desk, visitor, ticket, composer="")


def add_files(desk: Desk, visitor: Visitor, conversation: str, files: Sequence[str]) -> list[str]:
    """Uploaded files become the conversation's; the names that its tools know them by."""
    add = desk.app.tools.add_file
    return [add(visitor.user, conversation, Path(f), Path(f).name) for f in files]


def _end(desk: Desk, visitor: Visitor, conversation: str) -> int | None:
    """Where a new question goes: after the answer, after calls that nobody answered are told to
    be stopped, or beside a question without an answer."""
    store, owner = desk.app.store, visitor.user.id
    path = store.path(owner, conversation)
    if not path:
        return None
    if path[-1].message.role == "user":
        return path[-1].parent
    last = path[-1].id
    for call in open_calls(path):
        message = Message("tool", observation(STOPPED), name=call.name, call_id=call.id)
        last = store.append(owner, conversation, message, last)
    return last


def open_calls(path: Sequence[Node]) -> list[ToolCall]:
    """The calls at the end of a path that have no observation."""
    seen: set[str] = set()
    for node in reversed(path):
        if node.message.role == "tool":
            seen.add(node.message.call_id)
            continue
        return [call for call in node.message.calls if call.id not in seen]
    return []


def retry(desk: Desk, visitor: Visitor, at: At) -> ToolFrame:
    """Another turn of the model beside the one at `at`; at a question or an observation, the
    turn after it."""
    node = _node(desk, visitor, at)
    parent = node.parent if node.message.role == "assistant" else node.id
    ticket = RunTicket(Question(at.conversation, parent, None), at.setup)
    return begin(desk, visitor, ticket)


def edit(desk: Desk, visitor: Visitor, at: At, text: str) -> ToolFrame:
    """Another question instead of the one at `at`, as a branch."""
    node = _node(desk, visitor, at)
    if not text.strip() or node.message.role != "user":
        return ToolFrame()
    question = Question(at.conversation, node.parent, node.message.edited(content=text.strip()))
    return begin(desk, visitor, RunTicket(question, at.setup))


def fork(desk: Desk, visitor: Visitor, at: At, sent: Mapping[str, Any]) -> ToolFrame:
    """Go on from a call of the past as it is decided now, or from an observation as it is
    written now. Raises Refused."""
    if sent.get("kind") == "seen":
        return rewrite(desk, visitor, at, str(sent.get("text") or ""))
    path = desk.app.store.path(visitor.user.id, at.conversation, leaf=at.node)
    call = str(sent.get("call"))
    if call not in {c.id for c in path[-1].message.calls}:
        raise NotFound("there is no such call")
    decision = decision_form.decision(sent, known(desk, visitor))
    parent = _before_call(desk, visitor, at, path[-1], call)
    question = Question(at.conversation, parent, None)
    return begin(desk, visitor, RunTicket(question, at.setup, (call, decision)))


def _before_call(desk: Desk, visitor: Visitor, at: At, turn: Node, call: str) -> int:
    """The message after which this call is the next to be answered: of several calls in one
    turn, those before it keep their observations."""
    wanted = [c.id for c in turn.message.calls]
    before = wanted[: wanted.index(call)]
    if not before:
        return turn.id
    path = desk.app.store.path(visitor.user.id, at.conversation)
    found = [n for n in path if n.message.role == "tool" and n.message.call_id in before]
    if len(found) < len(before):
        raise Refused("tools.fork_in_order")
    return found[-1].id


def rewrite(desk: Desk, visitor: Visitor, at: At, text: str) -> ToolFrame:
    """Another observation instead of the one at `at`, as a branch; the model goes on from it."""
    node = _node(desk, visitor, at)
    if node.message.role != "tool":
        return ToolFrame()
    store, owner = desk.app.store, visitor.user.id
    changed = store.append(owner, at.conversation, node.message.edited(content=text), node.parent)
    call = ToolCall(node.message.name, {}, node.message.call_id)
    place = (owner, at.conversation)
    recordings(desk).keep(place, changed, call, ToolResult(text, recorded=PERSON))
    ticket = RunTicket(Question(at.conversation, changed, None), at.setup)
    return begin(desk, visitor, ticket)


def go_on(desk: Desk, visitor: Visitor, at: At) -> ToolFrame:
    """The model's next turn after the message at `at`."""
    ticket = RunTicket(Question(at.conversation, at.node, None), at.setup)
    return begin(desk, visitor, ticket)


def begin(
    desk: Desk, visitor: Visitor, ticket: RunTicket, composer: str | None = None
) -> ToolFrame:
    """Draw a question; nothing when the tab runs one already. Raises NotFound."""
    question, owner = ticket.question, visitor.user.id
    desk.app.store.summary(owner, question.conversation)  # raises NotFound for another's
    if not desk.runs.begin(visitor, ticket):
        return ToolFrame()
    desk.app.store.set_settings(owner, question.conversation, settings(ticket.setup))
    path: list[Node] = []
    if question.parent is not None:
        path = desk.app.store.path(owner, question.conversation, leaf=question.parent)
    where = (question.conversation, known(desk, visitor))
    at = len(path) if question.message else last_question(path)
    live = drawn(desk, visitor, where, path[at:], tail=False)
    if question.message:
        live = [said(question.message.content)]
    history = drawn(desk, visitor, where, path[:at], tail=False)
    return ToolFrame(
        history,
        live,
        True,
        visitor.say("chat.reading"),
        composer=composer,
        conversation=question.conversation,
    )


def rest(desk: Desk, visitor: Visitor, ticket: RunTicket) -> ToolFrame:
    """The conversation after a run; a question that was refused is in the input again."""
    question, conversation = ticket.question, ticket.kept
    message = None if conversation else question.message
    if not conversation:
        conversation = question.conversation
        if ticket.fresh:
            forget(desk, visitor, conversation)
            conversation = ""
    more = {
        "notice": ticket.notice,
        "composer": message.content if message else None,
        "files": question.files if message else (),
    }
    try:
        return whole(desk, visitor, conversation, setup=ticket.setup, **more)
    except NotFound:  # deleted in another tab
        return whole(desk, visitor, "", setup=ticket.setup, **more)


def setup_of(desk: Desk, visitor: Visitor, conversation: str) -> Setup:
    """How the conversation was run last; the defaults for a new one."""
    if not conversation:
        return Setup()
    return read_setup(desk.app.store.settings(visitor.user.id, conversation).get("tools"))


def forget(desk: Desk, visitor: Visitor, conversation: str) -> None:
    """Delete a conversation with its files and recordings. Raises NotFound."""
    desk.app.delete(visitor.user, conversation)
    recordings(desk).forget((visitor.user.id, conversation))


def _node(desk: Desk, visitor: Visitor, at: At) -> Node:
    return desk.app.store.path(visitor.user.id, at.conversation, leaf=at.node)[-1]
