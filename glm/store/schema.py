"""The tables of the conversation store: one script per version, applied in order, never edited.

`PRAGMA user_version` holds how many have been applied. A change of the tables is a new script
at the end. The full-text index is not among them: it is made and rebuilt from `nodes` where
SQLite has the trigram tokenizer (3.34), and searching works without it.
"""

from __future__ import annotations

APPLICATION = 0x474C4D57  # "GLMW" in PRAGMA application_id: this file is ours

# `turn` counts the user messages from the root to the node. Ids are never used twice
# (AUTOINCREMENT), and a child's id is always greater than its parent's, so that the newest
# leaf under a node is the greatest id under it. Token ids are little-endian 32-bit integers.
_FIRST = """
CREATE TABLE conversations (
    key INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    title TEXT NOT NULL,
    model TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    settings TEXT NOT NULL,
    leaf INTEGER,
    UNIQUE (owner, id)
);
CREATE INDEX conversations_newest ON conversations (owner, updated);

CREATE TABLE nodes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL REFERENCES conversations (key) ON DELETE CASCADE,
    parent INTEGER REFERENCES nodes (id),
    turn INTEGER NOT NULL,
    created REAL NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    extra TEXT,
    ids BLOB
);
CREATE INDEX nodes_children ON nodes (conversation, parent);
CREATE INDEX nodes_parent ON nodes (parent);

CREATE TABLE turns (
    node INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    prompt BLOB NOT NULL,
    produced BLOB NOT NULL,
    facts TEXT NOT NULL
);

CREATE TABLE feedback (
    node INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    value TEXT NOT NULL CHECK (value IN ('like', 'dislike')),
    note TEXT NOT NULL,
    created REAL NOT NULL
);

CREATE TABLE pairs (
    node INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    model_call TEXT NOT NULL,
    your_call TEXT NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (node, model_call)
);
"""

MIGRATIONS: tuple[str, ...] = (_FIRST,)

# The triggers are made together with a complete index. Where the tokenizer is missing they are
# dropped, so a missing trigger means: rebuild.
INDEX = """
CREATE VIRTUAL TABLE IF NOT EXISTS search
    USING fts5(content, content='nodes', content_rowid='id', tokenize='trigram');
CREATE TRIGGER search_insert AFTER INSERT ON nodes BEGIN
    INSERT INTO search (rowid, content) VALUES (new.id, new.content);
END;
CREATE TRIGGER search_delete AFTER DELETE ON nodes BEGIN
    INSERT INTO search (search, rowid, content) VALUES ('delete', old.id, old.content);
END;
INSERT INTO search (search) VALUES ('rebuild');
"""
NO_INDEX = """
DROP TRIGGER IF EXISTS search_insert;
DROP TRIGGER IF EXISTS search_delete;
"""
