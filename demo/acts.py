"""What a visitor does to a conversation besides asking: plain functions over plain values.

Every one goes through the store with the visitor's own id, so that another's conversation or
message does not exist for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demo.attachments import as_context, read_attachment, split_context
from demo.conversation_files import KINDS, open_file, save_text, transcript
from demo.desk import Desk, Visitor, Wish
from demo.frame import Frame, whole
from demo.model_choice import chosen
from demo.sidebar import listing
from demo.text import sentence
from demo.tool_setup import PREFIX
from demo.xray import panel
from glm.errors import GlmError, NotFound
from glm.messages import Sampling


def show(desk: Desk, visitor: Visitor, conversation: str, **more: Any) -> Frame:
    """A conversation as it rests; "" is a new one. Raises NotFound."""
    nodes = desk.app.store.path(visitor.user.id, conversation) if conversation else []
    return whole(nodes, visitor.say, conversation=conversation, context=(0, 0), **more)


def open_one(desk: Desk, visitor: Visitor, conversation: str) -> Frame:
    """Open a conversation; one that is not there (any more) is a new one with a sentence."""
    conversation = "" if conversation.startswith(PREFIX) else conversation
    try:
        return show(desk, visitor, conversation, listing=True)
    except NotFound as error:
        return show(desk, visitor, "", listing=True, notice=sentence(visitor.say, error))


def wish_of(desk: Desk, visitor: Visitor, conversation: str) -> Wish:
    """How the conversation was answered last; the defaults for a new one."""
    defaults = desk.app.manager.defaults()
    if not conversation:
        return Wish("", defaults)
    kept = desk.app.store.settings(visitor.user.id, conversation)
    known = {k: v for k, v in dict(kept.get("sampling") or {}).items() if hasattr(defaults, k)}
    sampling = Sampling(**known) if known else defaults
    return Wish(str(kept.get("system") or ""), sampling, str(kept.get("model") or ""))


def choose(desk: Desk, visitor: Visitor, conversation: str, model: str) -> None:
    """Another model answers from now on; "" is a conversation that is not begun.

    Raises Refused for one that is not here.
    """
    chosen(desk.app.manager, model)
    if conversation:
        kept = desk.app.store.settings(visitor.user.id, conversation)
        desk.app.store.set_settings(visitor.user.id, conversation, {**kept, "model": model})


def rename(desk: Desk, visitor: Visitor, conversation: str, title: str) -> None:
    if title.strip():
        desk.app.store.rename(visitor.user.id, conversation, title)


def remove(desk: Desk, visitor: Visitor, conversation: str, current: str) -> Frame:
    """Delete a conversation; the page becomes a new one when it was open."""
    desk.app.delete(visitor.user, conversation)
    if conversation == current:
        desk.answers.stop(visitor.key)
        return show(desk, visitor, "", listing=True)
    return Frame(listing=True)


def undo(desk: Desk, visitor: Visitor, conversation: str, node: int) -> Frame:
    """Take the exchange of `node` back; what was asked returns to the input."""
    store, owner = desk.app.store, visitor.user.id
    path = store.path(owner, conversation, leaf=node)
    asked = [n for n in path if n.message.role == "user"]
    if not asked:
        return Frame()
    store.rewind(owner, conversation, asked[-1].parent)
    composer = split_context(asked[-1].message.content)[1]
    return show(desk, visitor, conversation, composer=composer, listing=True)


def branch(desk: Desk, visitor: Visitor, conversation: str, node: int, step: int) -> Frame:
    """Go to the message before (-1) or after (1) this one among its branches."""
    store, owner = desk.app.store, visitor.user.id
    siblings = store.siblings(owner, conversation, node)
    at = siblings.index(node) + step
    if 0 <= at < len(siblings):
        store.activate(owner, conversation, siblings[at])
    return show(desk, visitor, conversation)


def judge(desk: Desk, visitor: Visitor, conversation: str, node: int, mark: str | None) -> None:
    """Like, dislike, or neither."""
    value = {"like": "like", "dislike": "dislike"}.get(mark or "")
    desk.app.store.feedback(visitor.user.id, conversation, node, value)  # type: ignore[arg-type]


def count_files(desk: Desk, visitor: Visitor, files: Sequence[str]) -> list[tuple[str, bool]]:
    """What is said of each attached file: its tokens, or why it cannot be read (then False)."""
    out = []
    for path in files:
        try:
            attached = read_attachment(path)
        except GlmError as error:
            out.append((sentence(visitor.say, error), False))
            continue
        tokens = desk.app.manager.count(as_context([attached]))
        out.append((visitor.say("file.tokens", name=attached.name, tokens=f"{tokens:,}"), True))
    return out


def save(desk: Desk, visitor: Visitor, conversation: str, form: tuple[str, str]) -> tuple[str, str]:
    """(file name, text) of the conversation in a form: (json, markdown or html; language)."""
    kind, lang = form
    if kind not in KINDS:
        raise NotFound(f"no such form: {kind}")
    return save_text(transcript(desk.app.store, visitor.user.id, conversation), kind, lang)


def load(desk: Desk, visitor: Visitor, path: str) -> str:
    """A saved conversation as a new one; its id."""
    return open_file(desk.app.store, visitor.user.id, path)


def look_inside(desk: Desk, visitor: Visitor, conversation: str, node: int) -> str:
    """The X-ray of an answer: the exact tokens, as HTML."""
    found = desk.app.store.path(visitor.user.id, conversation, leaf=node)[-1]
    if found.turn is None:
        return visitor.say("xray.none")
    try:
        sent = desk.app.manager.xray(found.turn.prompt)
        both = desk.app.manager.xray((*found.turn.prompt, *found.turn.produced))
    except GlmError as error:
        return sentence(visitor.say, error)
    return panel(found.turn, sent, both[len(sent) :], visitor.say)


def conversations(desk: Desk, visitor: Visitor, current: str, query: str) -> str:
    """The sidebar's list."""
    found = desk.app.store.list(visitor.user.id, query)
    found = [one for one in found if not one.id.startswith(PREFIX)]
    return listing(found, current, visitor.say, query)
