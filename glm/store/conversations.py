"""Conversations that outlive the program: trees of messages with owners, in one SQLite file.

    store = Store("data/conversations.db")
    chat = store.create("local", "Weather", system="Be brief.")
    question = store.append("local", chat, Message("user", "Is it raining?"), None)
    answer = store.append("local", chat, Message("assistant", "No."), question)
    [node.message for node in store.path("local", chat)]

Retry, edit and fork are branches: several messages with one parent. `append` makes the new
message the end of the active branch. The system prompt is a setting (`settings()["system"]`),
not a message. Another owner's conversation does not exist: NotFound, as for an unknown id.
A write is on the disk when the method returns. All methods may be called from any thread.
"""

from __future__ import annotations

import builtins
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from glm.errors import BadRequest, NotFound
from glm.messages import Message, ToolCall
from glm.store import records, search
from glm.store.database import Database
from glm.store.records import Feedback, FeedbackRow, FeedbackValue, Node, Pair, Summary, TurnRecord

__all__ = ["Feedback", "FeedbackRow", "Node", "Pair", "Store", "Summary", "TurnRecord"]

# `list` is a method of Store, so the type is written builtins.list in its signatures.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TITLE = 200  # characters kept of a title


class Store:
    """The conversations of everybody; every method checks whose they are."""

    def __init__(self, path: Path | str) -> None:
        self._db = Database(path)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- conversations -------------------------------------------------------------------

    def create(
        self,
        owner: str,
        title: str = "",
        system: str = "",
        model: str = "base",
        id: str | None = None,
    ) -> str:
        """A new conversation's id. Without a title, the first thing the user says becomes it.

        With `id`, the conversation of that id is made unless the owner has it already; ids of
        different owners do not meet. Raises BadRequest for an id of a strange form.
        """
        id = secrets.token_urlsafe(16) if id is None else id
        if not _ID.fullmatch(id):
            raise BadRequest("a conversation id has 1 to 64 letters, digits, '-' or '_'")
        with self._db.write() as db:
            _create(db, owner, (id, title, model), {"system": system} if system else {})
        return id

    def list(self, owner: str, query: str = "") -> builtins.list[Summary]:
        """The owner's conversations, newest first; with `query`, those that have each of its
        words in the title or in a message of any branch."""
        matching, values = search.conditions(query, self._db.searchable)
        with self._db.read() as db:
            rows = db.execute(
                f"{_SUMMARY} WHERE {' AND '.join(['c.owner = ?', *matching])} "
                "ORDER BY c.updated DESC, c.key DESC",
                [owner, *values],
            ).fetchall()
        return [Summary(*row) for row in rows]

    def summary(self, owner: str, id: str) -> Summary:
        """One line of that list."""
        with self._db.read() as db:
            key = _key(db, owner, id)
            return Summary(*db.execute(f"{_SUMMARY} WHERE c.key = ?", (key,)).fetchone())

    def rename(self, owner: str, id: str, title: str) -> None:
        with self._db.write() as db:
            key = _key(db, owner, id)
            db.execute("UPDATE conversations SET title = ? WHERE key = ?", (_title(title), key))

    def delete(self, owner: str, id: str) -> None:
        """Remove the conversation with its messages, turns, feedback and pairs."""
        with self._db.write() as db:
            db.execute("DELETE FROM conversations WHERE key = ?", (_key(db, owner, id),))

    def settings(self, owner: str, id: str) -> dict[str, Any]:
        """What was last set: the system prompt under "system", and whatever the page keeps."""
        with self._db.read() as db:
            key = _key(db, owner, id)
            row = db.execute("SELECT settings FROM conversations WHERE key = ?", (key,)).fetchone()
        kept: dict[str, Any] = records.unpack_json(row[0])
        return kept

    def set_settings(self, owner: str, id: str, settings: Mapping[str, Any]) -> None:
        """Replace all settings by these; any JSON."""
        text = records.pack_json(dict(settings))
        with self._db.write() as db:
            key = _key(db, owner, id)
            db.execute("UPDATE conversations SET settings = ? WHERE key = ?", (text, key))

    # ---- the tree ------------------------------------------------------------------------

    def append(
        self,
        owner: str,
        conversation_id: str,
        message: Message,
        parent: int | None,
        turn: TurnRecord | None = None,
    ) -> int:
        """Add a message under `parent` (None: a first message); it ends the active branch."""
        with self._db.write() as db:
            return _append(db, _key(db, owner, conversation_id), message, parent, turn)

    def restore(
        self,
        owner: str,
        messages: Iterable[Message],
        title: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> str:
        """A new conversation of these messages (an import, a fork); all of it or nothing."""
        id = secrets.token_urlsafe(16)
        with self._db.write() as db:
            _create(db, owner, (id, title, "base"), settings or {})
            key = _key(db, owner, id)
            node = None
            for message in messages:
                node = _append(db, key, message, node, None)
        return id

    def path(
        self, owner: str, conversation_id: str, leaf: int | None = None
    ) -> builtins.list[Node]:
        """The messages from the root to `leaf`, or along the active branch."""
        with self._db.read() as db:
            key = _key(db, owner, conversation_id)
            if leaf is None:
                leaf = _leaf(db, key)
            else:
                _node(db, key, leaf)
            rows = db.execute(_PATH, (leaf,)).fetchall()
        return [_read_node(row) for row in rows]

    def activate(self, owner: str, conversation_id: str, node_id: int) -> None:
        """Switch to the branch that holds the node: to the newest leaf under it."""
        with self._db.write() as db:
            key = _key(db, owner, conversation_id)
            _node(db, key, node_id)
            newest = db.execute(_NEWEST_UNDER, (node_id, key)).fetchone()[0]
            db.execute("UPDATE conversations SET leaf = ? WHERE key = ?", (newest, key))

    def rewind(self, owner: str, conversation_id: str, node_id: int | None) -> None:
        """Undo: end the active branch at the node (None: before the first message).

        What came after it stays in the tree as a branch.
        """
        with self._db.write() as db:
            key = _key(db, owner, conversation_id)
            if node_id is not None:
                _node(db, key, node_id)
            db.execute("UPDATE conversations SET leaf = ? WHERE key = ?", (node_id, key))

    def siblings(self, owner: str, conversation_id: str, node_id: int) -> builtins.list[int]:
        """The messages with the same parent, this one included, oldest first."""
        with self._db.read() as db:
            key = _key(db, owner, conversation_id)
            parent, _ = _node(db, key, node_id)
            rows = db.execute(
                "SELECT id FROM nodes WHERE conversation = ? AND parent IS ? ORDER BY id",
                (key, parent),
            ).fetchall()
        return [row[0] for row in rows]

    # ---- labelling -----------------------------------------------------------------------

    def feedback(
        self,
        owner: str,
        conversation_id: str,
        node_id: int,
        value: FeedbackValue | None,
        note: str = "",
    ) -> None:
        """Like or dislike a message; None takes it back."""
        if value not in ("like", "dislike", None):
            raise BadRequest(f"feedback is 'like', 'dislike' or None, not {value!r}")
        with self._db.write() as db:
            _node(db, _key(db, owner, conversation_id), node_id)
            db.execute("DELETE FROM feedback WHERE node = ?", (node_id,))
            if value is not None:
                db.execute(
                    "INSERT INTO feedback VALUES (?, ?, ?, ?)",
                    (node_id, value, records.valid_text(note), time.time()),
                )

    def pair(
        self,
        owner: str,
        conversation_id: str,
        node_id: int,
        model_call: ToolCall | None,
        your_call: ToolCall | None,
    ) -> None:
        """Keep what the model called and what it should have called; the last word counts."""
        row = (node_id, records.pack_call(model_call), records.pack_call(your_call), time.time())
        with self._db.write() as db:
            _node(db, _key(db, owner, conversation_id), node_id)
            db.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?, ?)", row)

    def feedback_rows(self, owner: str | None = None) -> builtins.list[FeedbackRow]:
        """Judged messages, oldest judgement first; of everybody with None."""
        with self._db.read() as db:
            rows = db.execute(
                "SELECT c.owner, c.id, n.id, n.role, n.content, n.extra, n.ids, "
                "f.value, f.note, f.created FROM feedback f " + _OF_OWNER.format("f"),
                (owner, owner),
            ).fetchall()
        return [
            FeedbackRow(owner, id, node, records.unpack_message(*message), value, note, created)
            for owner, id, node, *message, value, note, created in rows
        ]

    def pairs(self, owner: str | None = None) -> builtins.list[Pair]:
        """Corrected calls, oldest first; of everybody with None."""
        with self._db.read() as db:
            rows = db.execute(
                "SELECT c.owner, c.id, n.id, p.model_call, p.your_call, p.created "
                "FROM pairs p " + _OF_OWNER.format("p"),
                (owner, owner),
            ).fetchall()
        return [
            Pair(owner, id, node, records.unpack_call(model), records.unpack_call(yours), created)
            for owner, id, node, model, yours, created in rows
        ]


_SUMMARY = """
SELECT c.id, c.title, c.updated, coalesce(n.turn, 0), c.model
FROM conversations c LEFT JOIN nodes n ON n.id = c.leaf
"""

_PATH = """
WITH RECURSIVE up (id, parent, depth) AS (
    SELECT id, parent, 0 FROM nodes WHERE id = ?
    UNION ALL
    SELECT n.id, n.parent, up.depth + 1 FROM nodes n JOIN up ON n.id = up.parent
)
SELECT n.id, n.parent, n.role, n.content, n.extra, n.ids, t.prompt, t.produced, t.facts,
    (SELECT count(*) FROM nodes s
     WHERE s.conversation = n.conversation AND s.parent IS n.parent AND s.id < n.id),
    (SELECT count(*) FROM nodes s
     WHERE s.conversation = n.conversation AND s.parent IS n.parent),
    f.value, f.note
FROM up JOIN nodes n ON n.id = up.id
LEFT JOIN turns t ON t.node = n.id LEFT JOIN feedback f ON f.node = n.id
ORDER BY up.depth DESC
"""

_NEWEST_UNDER = """
WITH RECURSIVE under (id) AS (
    SELECT ?
    UNION ALL
    SELECT n.id FROM nodes n JOIN under ON n.parent = under.id WHERE n.conversation = ?
)
SELECT max(id) FROM under
"""

_OF_OWNER = """
JOIN nodes n ON n.id = {0}.node JOIN conversations c ON c.key = n.conversation
WHERE ? IS NULL OR c.owner = ? ORDER BY {0}.created, {0}.rowid
"""


def _create(
    db: sqlite3.Connection, owner: str, names: tuple[str, str, str], settings: Mapping[str, Any]
) -> None:
    """A conversation's row, unless the owner has one of that id; names are id, title, model."""
    id, title, model = names
    now = time.time()
    db.execute(
        "INSERT INTO conversations (owner, id, title, model, created, updated, settings) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, id) DO NOTHING",
        (owner, id, _title(title), model, now, now, records.pack_json(dict(settings))),
    )


def _append(
    db: sqlite3.Connection,
    key: int,
    message: Message,
    parent: int | None,
    turn: TurnRecord | None,
) -> int:
    """A node's row; it becomes the leaf, its model the conversation's, its text a title."""
    role, content, extra, ids = records.pack_message(message)
    now = time.time()
    said = _node(db, key, parent)[1] if parent is not None else 0
    node = db.execute(
        "INSERT INTO nodes (conversation, parent, turn, created, role, content, extra, ids)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (key, parent, said + (role == "user"), now, role, content, extra, ids),
    ).lastrowid
    assert node is not None
    db.execute("UPDATE conversations SET leaf = ?, updated = ? WHERE key = ?", (node, now, key))
    if turn is not None:
        packed = records.pack_ids(turn.prompt), records.pack_ids(turn.produced)
        db.execute("INSERT INTO turns VALUES (?, ?, ?, ?)", (node, *packed, turn.facts()))
        db.execute("UPDATE conversations SET model = ? WHERE key = ?", (turn.model, key))
    if role == "user":
        db.execute(
            "UPDATE conversations SET title = ? WHERE key = ? AND title = ''",
            (_first_line(content), key),
        )
    return node


def _key(db: sqlite3.Connection, owner: str, id: str) -> int:
    """The row of the owner's conversation; one sentence for unknown and for somebody else's."""
    row: tuple[int] | None = db.execute(
        "SELECT key FROM conversations WHERE owner = ? AND id = ?",
        (owner, records.valid_text(str(id))),
    ).fetchone()
    if row is None:
        raise NotFound("there is no such conversation")
    return row[0]


def _node(db: sqlite3.Connection, key: int, node_id: int) -> tuple[int | None, int]:
    """(parent, turn) of a node of this conversation."""
    row: tuple[int | None, int] | None = None
    if isinstance(node_id, int) and abs(node_id) < 2**63:
        row = db.execute(
            "SELECT parent, turn FROM nodes WHERE id = ? AND conversation = ?", (node_id, key)
        ).fetchone()
    if row is None:
        raise NotFound("there is no such message in this conversation")
    return row


def _leaf(db: sqlite3.Connection, key: int) -> int | None:
    row = db.execute("SELECT leaf FROM conversations WHERE key = ?", (key,)).fetchone()
    leaf: int | None = row[0]
    return leaf


def _read_node(row: tuple[Any, ...]) -> Node:
    id, parent, role, content, extra, ids, prompt, produced, facts, index, count, value, note = row
    return Node(
        id=id,
        parent=parent,
        message=records.unpack_message(role, content, extra, ids),
        turn=None if facts is None else TurnRecord.stored(prompt, produced, facts),
        branch=(index, count),
        feedback=None if value is None else Feedback(value, note),
    )


def _title(text: str) -> str:
    return " ".join(records.valid_text(text).split())[:_TITLE]


def _first_line(text: str) -> str:
    words = _title(text)
    return words if len(words) <= 60 else words[:59].rstrip() + "…"
