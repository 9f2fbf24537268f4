"""Code as HTML with its comments, strings, numbers and keywords marked. Standard library only.

A reader's aid in exported files, not a parser: one pass over the text, never more than one
look at a character, the same few keywords for every language.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path

_WORDS = Path(__file__).parents[1] / "assets" / "export" / "keywords.json"
_HASH = {"bash", "dockerfile", "ini", "make", "perl", "py", "python", "python3", "r", "ruby"}
_HASH |= {"sh", "shell", "toml", "yaml", "yml", "zsh"}
_DASHES = {"haskell", "lua", "sql"}
_PLAIN = {"", "console", "markdown", "md", "output", "plain", "text", "txt"}

# Each alternative that has begun also ends, if need be with the line or the text: no search
# for an end that is not there is ever repeated.
_STRING = r'"""[\s\S]*?(?:"""|\Z)|"(?:[^"\\\n]|\\.)*"?|' + r"'(?:[^'\\\n]|\\.)*'?"
_NUMBER = r"\b\d[\w.]*"
_WORD = r"[A-Za-z_]\w*"
_SLASHES = r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)"
_KINDS = ("comment", "string", "number", "word")


def highlight(code: str, language: str) -> str:
    """The code as escaped HTML with `<span class="...">` around what has a colour."""
    language = language.lower()
    if language in _PLAIN:
        return html.escape(code, quote=False)
    comment = r"#[^\n]*" if language in _HASH else _SLASHES
    if language in _DASHES:
        comment = r"--[^\n]*|" + comment
    if language in ("html", "xml", "svg"):
        comment = r"<!--[\s\S]*?(?:-->|\Z)"
    if language in ("json", "jsonl"):
        comment = r"(?!)"
    pattern = f"({comment})|({_STRING})|({_NUMBER})|({_WORD})"
    words = _keywords()["sql" if language == "sql" else "code"]
    parts: list[str] = []
    end = 0
    for found in re.finditer(pattern, code):
        parts.append(html.escape(code[end : found.start()], quote=False))
        end = found.end()
        kind = _KINDS[(found.lastindex or 1) - 1]
        text = html.escape(found[0], quote=False)
        if kind == "word" and found[0] not in words:
            parts.append(text)
        else:
            parts.append(f'<span class="{kind}">{text}</span>')
    return "".join([*parts, html.escape(code[end:], quote=False)])


@cache
def _keywords() -> dict[str, frozenset[str]]:
    table = json.loads(_WORDS.read_text(encoding="utf-8"))
    return {name: frozenset(words) for name, words in table.items()}
