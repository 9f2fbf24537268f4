"""Markdown with formulas as inert HTML, for exported files.

Formulas are `$...$`, `\\(...\\)`, `$$...$$` and `\\[...\\]`; "$5 and $6" is money. HTML in the
text is shown, not obeyed; links lead to the web and to mail only; pictures become links, so
that nothing is ever fetched.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from demo.highlight import highlight
from demo.mathml import LENGTH, mathml

FORMULAS = 5000  # per text; the rest is shown as source
_LINES = 100  # of a block formula
_CLOSING = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_LINK = re.compile(r"(https?://|mailto:|#)", re.IGNORECASE)


def rich_text(text: str) -> str:
    """HTML of one message; never a script, a style or an address that is loaded by itself."""
    rendered: str = _MARKDOWN.render(text.replace("\0", "\ufffd"), {"formulas": 0})
    return rendered


def _formula(tex: str, block: bool, env: Any) -> str:
    env["formulas"] += 1
    found = mathml(tex, block) if env["formulas"] <= FORMULAS else None
    if found is None:
        return f'<code class="tex">{html.escape(tex.strip())}</code>'
    return found


def _closing(source: str, start: int, opening: str, env: Any) -> int:
    """Where the formula that starts here ends, or -1."""
    closing = _CLOSING[opening]
    if start > _last(closing, source, env):
        return -1
    end = source.find(closing, start, start + LENGTH)
    while end > 0 and source[end - 1] == "\\":  # \$ and \\] do not end it
        end = source.find(closing, end + 1, start + LENGTH)
    return end


def _last(closing: str, source: str, env: Any) -> int:
    """One search from the end per text, so that many openings without an end stay cheap."""
    key = (closing, source)
    if key not in env:
        env[key] = source.rfind(closing)
    found: int = env[key]
    return found


def _inline_formula(state: StateInline, silent: bool) -> bool:
    source, start = state.src, state.pos
    opening = next((o for o in _CLOSING if source.startswith(o, start)), None)
    if opening is None:
        return False
    inside = start + len(opening)
    end = _closing(source, inside, opening, state.env)
    if end <= inside or (opening == "$" and not _is_formula(source, start, end)):
        if opening == "$$":  # else the second one would open a formula of its own
            state.pending += "" if silent else opening
            state.pos = inside
            return True
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content = source[inside:end]
        token.meta = {"block": opening in ("$$", "\\[")}
    state.pos = end + len(_CLOSING[opening])
    return True


def _is_formula(source: str, start: int, end: int) -> bool:
    """Whether dollars at `start` and `end` enclose a formula and are not two prices."""
    before, after = source[start - 1 : start], source[end + 1 : end + 2]
    return not (
        source[start + 1].isspace()
        or source[end - 1].isspace()
        or (after.isascii() and after.isdigit())
        or (before.isascii() and before.isalnum())
    )


def _block_formula(state: StateBlock, line: int, last_line: int, silent: bool) -> bool:
    start = state.bMarks[line] + state.tShift[line]
    opening = state.src[start : start + 2]
    if opening not in ("$$", "\\[") or state.is_code_block(line):
        return False
    closing = _CLOSING[opening]
    if start + 2 > _last(closing, state.src, state.env):
        return False
    rows = [state.src[start + 2 : state.eMarks[line]]]
    here = line
    while closing not in rows[-1]:
        here += 1
        if here >= min(last_line, line + _LINES) or state.isEmpty(here):
            return False
        rows.append(state.src[state.bMarks[here] + state.tShift[here] : state.eMarks[here]])
    row, _, rest = rows[-1].partition(closing)
    if rest.strip(" \t.,;，。；"):
        return False  # text goes on: it is part of a paragraph
    if not silent:
        state.line = here + 1
        token = state.push("formula", "math", 0)
        token.content = "\n".join([*rows[:-1], row])
        token.meta = {"block": True, "rest": rest.strip()}
        token.block = True
    return True


def _render_formula(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    token = tokens[index]
    shown = _formula(token.content, token.meta["block"], env)
    if token.block:
        return f'<div class="formula">{shown}{html.escape(token.meta["rest"])}</div>\n'
    return shown


def _render_code(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    language = (tokens[index].info.split() or [""])[0]
    label = f"<figcaption>{html.escape(language[:30])}</figcaption>" if language else ""
    code = highlight(tokens[index].content, language)
    return f'<figure class="code">{label}<pre><code>{code}</code></pre></figure>\n'


def _render_image(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    token = tokens[index]
    name = html.escape(token.content) or "…"
    address = html.escape(str(token.attrs.get("src", "")))
    return f'<a class="picture" href="{address}" rel="noopener noreferrer nofollow">{name}</a>'


def _render_link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return self.renderToken(tokens, index, options, env)


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True, "xhtmlOut": False})
    markdown.enable(["table", "strikethrough"])
    markdown.validateLink = lambda url: bool(_LINK.match(url.strip()))  # type: ignore[method-assign]
    markdown.block.ruler.before(
        "fence",
        "formula",
        _block_formula,
        {"alt": ["paragraph", "reference", "blockquote", "list"]},  # what a formula interrupts
    )
    markdown.inline.ruler.before("escape", "formula", _inline_formula)
    markdown.add_render_rule("formula", _render_formula)
    markdown.add_render_rule("fence", _render_code)
    markdown.add_render_rule("code_block", _render_code)
    markdown.add_render_rule("image", _render_image)
    markdown.add_render_rule("link_open", _render_link)
    return markdown


_MARKDOWN = _markdown()
