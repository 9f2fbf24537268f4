"""Control tokens by name: parts of a prompt to ids, ids of an answer to parts.

A part is a `Mark` (a control token) or plain text. Where the vocabulary holds a mark, its id and
nothing else is the mark, both ways: text that spells `<tool_call>` stays text. A mark that the
vocabulary does not hold is ordinary text to the model, so it is found in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from glm.dialects.vocabulary import Vocabulary


class Mark(str):
    """The name of a control token; a plain str beside it is text."""

    __slots__ = ()


BREAK = Mark("")  # text before and after it is encoded apart


def encode(tokenizer: Vocabulary, parts: Iterable[str]) -> tuple[int, ...]:
    """Marks by id; the text between two of them is encoded as one."""
    ids: list[int] = []
    text: list[str] = []
    for part in [*parts, BREAK]:
        known = isinstance(part, Mark) and (not part or part in tokenizer.special)
        if not known:
            text.append(part)
            continue
        if any(text):
            ids += tokenizer.encode("".join(text))
        text = []
        if part:
            ids.append(tokenizer.special[part])
    return tuple(ids)


class Reader:
    """The ids of an answer, one after the other, as text and marks."""

    def __init__(self, tokenizer: Vocabulary, marks: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._by_id = {tokenizer.special[m]: Mark(m) for m in marks if m in tokenizer.special}
        written = [m for m in marks if m not in tokenizer.special]
        self._written = re.compile("|".join(map(re.escape, written))) if written else None
        self._heads = {m[:n] for m in written for n in range(1, len(m))}
        self._longest = max(map(len, self._heads), default=0)
        self._decoder = tokenizer.decoder()
        self._held = ""  # the text so far may end with the start of a mark

    def push(self, token: int) -> list[str]:
        """The parts that are certain after this token."""
        mark = self._by_id.get(token)
        if mark is None:
            return self._scan(self._decoder.push(token))
        out = [*self.flush(), mark]
        self._decoder = self._tokenizer.decoder()
        return out

    def flush(self) -> list[str]:
        """What was held back."""
        out = self._scan(self._decoder.flush())
        held, self._held = self._held, ""
        return [*out, held] if held else out

    def _scan(self, text: str) -> list[str]:
        if self._written is None or not text:
            return [text] if text else []
        text, at = self._held + text, 0
        out: list[str] = []
        for match in self._written.finditer(text):
            out += [text[at : match.start()], Mark(match.group())]
            at = match.end()
        longest = min(self._longest, len(text) - at)
        keep = next((n for n in range(longest, 0, -1) if text[-n:] in self._heads), 0)
        out.append(text[at : len(text) - keep])
        self._held = text[len(text) - keep :]
        return [part for part in out if part]
