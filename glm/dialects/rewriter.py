"""Replace what a pattern finds in text that arrives in parts.

However the text is cut, the joined output is that of `re.sub` on the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable


class Rewriter:
    """`whole` finds what `replace` rewrites; `begun` matches what may still become a find.

    `whole` may look one character behind its start. `begun` is only asked at the end of what has
    arrived, and has to match wherever the next characters decide; that much is held back.
    """

    def __init__(self, whole: str, begun: str, replace: Callable[[re.Match[str]], str]) -> None:
        self._live = re.compile(rf"(?P<begun>(?:{begun})\Z)|(?:{whole})")
        self._last = re.compile(whole)
        self._replace = replace
        self._before, self._held = "", ""  # the last character that was let go, and what was not

    def push(self, text: str) -> str:
        """What is certain after this text."""
        return self._rewrite(text, self._live) if text else ""

    def flush(self) -> str:
        """What is held back."""
        return self._rewrite("", self._last)

    def _rewrite(self, new: str, pattern: re.Pattern[str]) -> str:
        text, start = self._before + self._held + new, len(self._before)
        out, end = [], len(text)
        for match in pattern.finditer(text, start):
            out.append(text[start : match.start()])
            start = match.end()
            if match.groupdict().get("begun") is not None:
                end = match.start()
                break
            out.append(self._replace(match))
        else:
            out.append(text[start:])
        self._before, self._held = text[:end][-1:], text[end:]
        return "".join(out)


def beginnings(*words: str) -> str:
    """A pattern for every proper beginning of the words."""
    found = {word[:n] for word in words for n in range(1, len(word))}
    return "|".join(map(re.escape, sorted(found, key=len, reverse=True)))
