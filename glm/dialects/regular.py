"""The pattern of a JSON schema as a regular expression of the grammar library."""

from __future__ import annotations

import re

# Python and the grammar library mean the same by a pattern made of anything but these.
NOT_REGULAR = re.compile(
    r"\(\?|\\[bBAZzGkgpPWSDCXRKQE0-9uUxN]|(?<!\\)[*+?}][+?]|\[[^\]]*(\[|&&|--|~~)"
)
# Of \w and \d what both have; of digits, which differ by the age of Unicode, those of ASCII.
CLASSES = {r"\w": r"\p{L}0-9_", r"\d": "0-9"}
ANCHORED = re.compile(r"(\^)?(.*?)(?<!\\)((?:\\\\)*)(\$)?\Z", re.DOTALL)


def regular(pattern: str) -> str | None:
    """A pattern of JSON Schema, which may match anywhere, as a regular expression of the whole
    string; None where the grammar library has no such expression."""
    match = ANCHORED.match(pattern)
    if NOT_REGULAR.search(pattern) or match is None:
        return None
    start, inside, slashes, end = match.groups()
    inside += slashes or ""
    if re.search(r"(?<![\[\\])[\^$]", inside) or ((start or end) and _alternates(inside)):
        return None
    inside = _classes(inside)
    before, after = ("" if start else "(?s:.*)"), ("" if end else "(?s:.*)")
    return f"{before}({inside}){after}".replace("\n", "\\n")


def escaped(text: str) -> str:
    """A text as a regular expression that matches it alone."""
    return re.sub(r"[\\.+*?()|\[\]{}^$#&\-~/]", r"\\\g<0>", text).replace("\n", "\\n")


def _classes(pattern: str) -> str:
    """The pattern in the library's words."""
    out, in_class = [], False
    for token in re.findall(r"\\.|[^\\]", pattern, re.DOTALL):
        if token in CLASSES:
            token = CLASSES[token] if in_class else f"[{CLASSES[token]}]"
        elif token == "/":
            token = "\\/"
        in_class = token == "[" or (in_class and token != "]")
        out.append(token)
    return "".join(out)


def _alternates(pattern: str) -> bool:
    """Does a | stand outside all brackets?"""
    depth, skip = 0, False
    for char in pattern:
        if skip or char == "\\":
            skip = not skip
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "|" and depth == 0:
            return True
    return False
