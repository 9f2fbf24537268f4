"""How JSON values are written inside calls: as Python literals, or as JSON.

A notation holds what a grammar needs of each: the texts of a value that is known, and regular
expressions for those that are not. All that they match is read back by `glm/dialects/calls.py`;
there are no lone surrogates and no infinite numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glm.dialects.regular import escaped

CONTROL = r"\x00-\x1F\x7F"
INTEGER = r"/-?(0|[1-9][0-9]{0,17})/"
NUMBER = r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+\-]?[0-9]{1,2})?/"
_BMP = r"([0-9a-cA-CeEfF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})"


@dataclass(frozen=True, slots=True)
class Notation:
    """`write` makes the text of a value, its strings in the quote given; `escape` is one escaped
    character. The other texts are pieces of grammar. A string never holds the texts of `never`.
    """

    quotes: str
    escape: str
    write: Callable[[Any, str], str]
    null: str
    booleans: str
    comma: str = '", "'
    colon: str = '": "'
    brackets: tuple[str, str] = ('"["', '"]"')
    braces: tuple[str, str] = ('"{"', '"}"')
    never: tuple[str, ...] = ()

    def forms(self, value: Any) -> list[str]:
        """The texts of a value."""
        found = [self.write(value, quote) for quote in self.quotes]
        for text in self.never:  # JSON reads <\/ as </
            found = [form.replace(text, text.replace("</", "<\\/")) for form in found]
        return list(dict.fromkeys(found))

    def string(self, quote: str, count: str = "*") -> str:
        """The terminal of a string of any characters, so many of them."""
        inside = f"[^{quote}\\\\{CONTROL}]"
        return f"/{quote}({inside}|{self.escape}){count}{quote}/{self.limits}"

    def matching(self, quote: str, pattern: str, count: str) -> str:
        """The terminal of a string that a regular expression matches; nothing is escaped."""
        inside = f"[^{quote}\\\\{CONTROL}]"
        edge = quoted(quote)
        return f"{edge} (/{pattern}/ & /{inside}{count}/{self.limits}) {edge}"

    @property
    def limits(self) -> str:
        """What a terminal goes on with so that it holds nothing of `never`."""
        return without(*self.never)


def without(*texts: str) -> str:
    """The end of a terminal that is to hold none of these texts."""
    inside = "|".join(map(escaped, texts))
    return f" & ~/(?s:.*)({inside})(?s:.*)/" if texts else ""


def quoted(text: str) -> str:
    """A text as a literal of the grammar."""
    return json.dumps(text, ensure_ascii=False)


def literal(value: Any, quote: str) -> str:
    """A JSON value as a Python literal whose strings stand in `quote`."""
    if isinstance(value, str):
        inside = repr(f"{value}\"'")[1:-4].replace("\\'", "'")  # escaped, but for the quotes
        return quote + inside.replace(quote, f"\\{quote}") + quote
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item, quote) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{literal(k, quote)}: {literal(v, quote)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)


def written(value: Any, quote: str = '"') -> str:
    """A value as JSON, as the models write it."""
    return json.dumps(value, ensure_ascii=False)


PYTHON = Notation(
    quotes="'\"",
    escape=(
        rf"\\([\\'\"nrtbf]|x[0-9a-fA-F]{{2}}|u{_BMP}"
        rf"|U(0000{_BMP}|000[1-9a-fA-F][0-9a-fA-F]{{4}}|0010[0-9a-fA-F]{{4}}))"
    ),
    write=literal,
    null='"None"',
    booleans='"True" | "False"',
)
# Models write JSON on one line, with or without spaces, or indented.
GAP = r"( |\n {0,24})?"
JSON = Notation(
    quotes='"',
    escape=(
        r'\\(["\\\/bfnrt]'
        rf"|u{_BMP}|u[dD][89abAB][0-9a-fA-F]{{2}}\\u[dD][c-fC-F][0-9a-fA-F]{{2}})"
    ),
    write=written,
    null='"null"',
    booleans='"true" | "false"',
    comma=f"/,{GAP}/",
    colon="/: ?/",
    brackets=(rf"/\[{GAP}/", rf"/{GAP}\]/"),
    braces=(rf"/\{{{GAP}/", rf"/{GAP}\}}/"),
)
