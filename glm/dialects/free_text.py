"""The free text of an answer in a grammar: up to a mark, or without certain marks.

A mark that the vocabulary holds stands for itself and can be in no text. One that it does not
hold is ordinary text to the model and is found in the text (marks.py), so the text before it
ends where it is first spelled.
"""

from __future__ import annotations

from collections.abc import Sequence

from glm.dialects.literals import quoted, without
from glm.dialects.regular import escaped
from glm.dialects.value_grammar import Rules
from glm.dialects.vocabulary import Vocabulary

ANY = "(?s:.)"


class FreeText:
    """Rules of text among `marks`; `refused` is a regular expression that no text matches."""

    def __init__(
        self, tokenizer: Vocabulary, rules: Rules, marks: Sequence[str], refused: str = ""
    ) -> None:
        self._tokenizer, self._rules = tokenizer, rules
        self._spelled = [mark for mark in marks if mark not in tokenizer.special]
        self._refused = f" & ~/{refused}/" if refused else ""

    def text(self, pattern: str = f"{ANY}+") -> str:
        """Text that the pattern matches, without a mark."""
        limits = without(*self._spelled) + self._refused
        return self._rules.add(f"/{pattern}/{limits}", terminal=True)

    def upto(self, mark: str, character: str = ANY) -> str:
        """Text of such characters, which may be empty, and then the mark."""
        if mark not in self._spelled:
            return self._rules.add(f"{self.text(f'{character}+')}? {self.mark(mark)}")
        earlier = f"(?s:.*)({'|'.join(map(escaped, self._spelled))})(?s:.+)"
        text = f"/{character}*{escaped(mark)}/ & ~/{earlier}/{self._refused}"
        return self._rules.add(text, terminal=True)

    def mark(self, mark: str) -> str:
        """The mark alone."""
        known = self._tokenizer.special.get(mark)
        return quoted(mark) if known is None else f"<[{known}]>"
