"""search_files: find words in the files of the conversation.

A line matches that holds the whole query, whatever the case and the width of the letters; where
none does, a line that holds all its words. No stemming, no ranking.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glm.errors import ToolError
from glm.messages import Table, ToolResult, ToolSpec

if TYPE_CHECKING:
    from glm.cancel import Cancel


SPEC = ToolSpec(
    "search_files",
    "Search the uploaded files for words",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "The words to look for"}},
        "required": ["query"],
    },
)

HITS, ROWS = 5, 200  # what the model reads, what a person sees
WIDTH = 160  # characters of a line that are told
QUERY = 200
NOTHING = "nothing found"
TRUNCATED = " [truncated]"


@dataclass(frozen=True, slots=True)
class _File:
    """An upload's text, and the same text as it is compared, line for line."""

    name: str
    text: str
    plain: str


def search_files(query: str, files: Mapping[str, Path], cancel: Cancel | None = None) -> ToolResult:
    """The lines with the words, as JSON, or "nothing found". Raises ToolError without files."""
    words = _plain(query[:QUERY]).split()
    if not words:
        raise ToolError("the argument 'query' is missing")
    if not files:
        raise ToolError("no files have been uploaded")
    unread: list[str] = []
    texts = list(_texts(files, cancel, unread))
    found = [(file, line) for file in texts for line in _lines_with_phrase(file.plain, words)]
    if not found:
        found = [(file, line) for file in texts for line in _lines_with_words(file.plain, words)]
    if not found and len(unread) == len(files):
        raise ToolError(unread[0])
    return _result(found, words[0])


def _texts(files: Mapping[str, Path], cancel: Cancel | None, unread: list[str]) -> Iterator[_File]:
    """All files that can be read; `unread` collects why one could not."""
    from tools.builtin.read_file import text_of

    for name in files:
        if cancel is not None and cancel.is_set():
            return
        try:
            text = text_of(name, files, cancel)
        except ToolError as error:
            unread.append(str(error))
        else:
            yield _File(name, text, _plain(text))


def _lines_with_phrase(plain: str, words: list[str]) -> Iterator[int]:
    """Numbers from 0 of the lines with the words side by side, each once."""
    phrase = re.compile(r"[^\S\n]+".join(map(re.escape, words)))
    number, counted, last = 0, 0, -1
    for found in phrase.finditer(plain):
        number += plain.count("\n", counted, found.start())
        counted = found.start()
        if number != last:
            yield number
        last = number


def _lines_with_words(plain: str, words: list[str]) -> Iterator[int]:
    if all(word in plain for word in words):
        for number, line in enumerate(plain.split("\n")):
            if all(word in line for word in words):
                yield number


def _result(found: list[tuple[_File, int]], word: str) -> ToolResult:
    if not found:
        return ToolResult(NOTHING)
    rows = []
    lines: dict[str, list[str]] = {}
    for file, number in found[:ROWS]:
        texts = lines.setdefault(file.name, file.text.split("\n"))
        rows.append((file.name, number + 1, _part(texts[number], word)))
    hits = [{"file": name, "line": line, "text": text} for name, line, text in rows[:HITS]]
    text = json.dumps(hits, ensure_ascii=False)
    if len(found) > HITS:
        text += TRUNCATED
    return ToolResult(text, table=Table(("file", "line", "text"), tuple(rows)))


def _part(line: str, word: str) -> str:
    """The line, or of a long one the part round the word."""
    text = " ".join(line.split())
    if len(text) <= WIDTH:
        return text
    start = max(0, min(_plain(text).find(word) - WIDTH // 3, len(text) - WIDTH))
    part = text[start : start + WIDTH].strip()
    return ("…" if start else "") + part + ("…" if start + WIDTH < len(text) else "")


def _plain(text: str) -> str:
    """Without case and width of the letters; the lines stay the same lines."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
