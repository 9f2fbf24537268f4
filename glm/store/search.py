"""What a person types into the search box, as conditions of SQL. Standard library only.

Every word has to be in the title or in a message. Words of three characters and more are looked
up in the full-text index, where there is one; shorter words, common in Chinese, are compared.
Nothing in a query is syntax: quotes, `*`, `%` and `OR` stand for themselves.
"""

from __future__ import annotations

import re

from glm.store.records import valid_text

WORDS = 8  # words of a query that count
LENGTH = 1000  # characters of it that count; SQLite takes no pattern over 50,000
_TRIGRAM = 3  # shorter words are not in the index


def conditions(query: str, indexed: bool) -> tuple[list[str], list[str]]:
    """(conditions on a conversation `c`, their values) for one query."""
    found: list[str] = []
    values: list[str] = []
    for word in valid_text(query[:LENGTH]).split()[:WORDS]:
        if indexed and len(word) >= _TRIGRAM:
            message = (
                "c.key IN (SELECT n.conversation FROM search s JOIN nodes n ON n.id = s.rowid "
                "WHERE s.content MATCH ?)"
            )
            value = '"' + word.replace('"', '""') + '"'
        else:
            message = (
                "EXISTS (SELECT 1 FROM nodes n WHERE n.conversation = c.key "
                "AND n.content LIKE ? ESCAPE '\\')"
            )
            value = _like(word)
        found.append(f"(c.title LIKE ? ESCAPE '\\' OR {message})")
        values += [_like(word), value]
    return found, values


def _like(word: str) -> str:
    return "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"
