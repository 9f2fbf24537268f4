"""What is learnt, before anything starts: the official sanity check, and a page of coloured tokens.

    print("\\n".join(sanity_check(example, dialect)))
    file.write_text(preview(rows, 20, layout, dialect, limits), encoding="utf-8")

The page is one file that loads nothing and runs nothing. It shows each row as it would be without
a limit, and where the limit takes something away.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.layouts.example import NOT_LEARNT, Example, Layout, Limits, Skipped
from finetune.layouts.pair import PairLayout
from glm.dialects.base import Dialect, RoleToken
from glm.messages import Conversation, Role

STYLE = Path(__file__).parents[1] / "assets" / "preview" / "page.css"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
MOST_SHOWN = 20_000  # tokens of a row; a browser takes no more
_NO_LIMIT = 1 << 40
_NEWLINE = "<0x0A>"  # as vocabularies of bytes name it


def sanity_check(example: Example, dialect: Dialect) -> Iterator[str]:
    """The lines ChatGLM3's finetune.py prints of its first row: `repr(piece): id -> label`."""
    names = {token: name for name, token in dialect.tokenizer.special.items()}
    yield "Sanity Check >>>>>>>>>>>>>"
    for token, label in zip(example.ids, example.labels, strict=True):
        piece = names.get(token) or dialect.tokenizer.decode([token])
        yield f"{piece!r:>20}: {token:6d} -> {label:6d}"
    yield "<<<<<<<<<<<<< Sanity Check"


@dataclass(frozen=True, slots=True)
class View:
    """A row as a layout writes it. `cut` is where a limit ends it, None where none does;
    `note` says what happens to it.
    """

    example: Example | None
    note: str = ""
    cut: int | None = None


def see(conversation: Conversation, layout: Layout, dialect: Dialect, limits: Limits) -> View:
    """The whole row, and what the limits do to it."""
    kept = layout.encode(conversation, dialect, limits)
    whole = layout.encode(conversation, dialect, Limits(max_length=_NO_LIMIT))
    if isinstance(whole, Skipped):
        return View(None, f"left out: {whole.reason}")
    if isinstance(kept, Skipped):
        return View(whole, f"left out: {kept.reason}", min(limits.max_length, len(whole.ids)))
    if not kept.cut:
        return View(whole)
    shared = sum(1 for _ in itertools.takewhile(_same, zip(kept.ids, whole.ids, strict=False)))
    if len(kept.ids) - shared > 1:  # cut within: a question
        return View(kept, kept.cut)
    return View(whole, kept.cut, shared)


def preview(
    rows: Iterable[Conversation], count: int, layout: Layout, dialect: Dialect, limits: Limits
) -> str:
    """The page about the first `count` rows, as HTML."""
    views = [see(row, layout, dialect, limits) for row in itertools.islice(rows, count)]
    made = [view.example for view in views if view.example is not None]
    tokens, learnt = sum(len(e.ids) for e in made), sum(e.learnt for e in made)
    facts = [
        _count(len(views), "row"),
        f"layout {layout.name}",
        f"dialect {dialect.name}",
        _count(tokens, "token"),
        f"{learnt / max(tokens, 1):.0%} learnt",
        _limit(limits, layout),
    ]
    body = "".join(_article(n, view, dialect) for n, view in enumerate(views, 1))
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>What is learnt</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n"
        "</head>\n<body>\n<main>\n<header>\n<h1>What is learnt</h1>\n"
        f"<p>{' · '.join(map(html.escape, facts))}</p>\n{_LEGEND}</header>\n{body}</main>\n"
        "</body>\n</html>\n"
    )
    return page.encode("utf-8", "replace").decode()


_LEGEND = (
    '<p class="legend"><b class="t learnt">learnt</b> <b class="t">read, not learnt</b> '
    '<b class="t special">control token</b> <b class="t gone">taken away by the limit</b></p>\n'
)


def _article(number: int, view: View, dialect: Dialect) -> str:
    example = view.example
    note = f'<span class="note">{html.escape(view.note)}</span>' if view.note else ""
    if example is None:
        return f'<article class="left-out"><h2>Row {number} {note}</h2></article>\n'
    size, learnt = len(example.ids), example.learnt
    head = f"{_count(size, 'token')}, {learnt} learnt ({learnt / size:.0%})"
    gone = ' class="left-out"' if view.note.startswith("left out") else ""
    blocks = "".join(_blocks(example, view.cut, dialect))
    more = f'<p class="more">… {size - MOST_SHOWN} more</p>' if size > MOST_SHOWN else ""
    return (
        f"<article{gone}>\n<h2>Row {number} <small>{head}</small> {note}</h2>\n"
        f"{_strip(example, view.cut)}{blocks}{more}</article>\n"
    )


def _strip(example: Example, cut: int | None) -> str:
    """The whole row as one thin line, learnt stretches coloured."""
    size, out, at = len(example.labels), [], 0
    for learnt, run in itertools.groupby(label != NOT_LEARNT for label in example.labels):
        width = sum(1 for _ in run)
        if learnt:
            place = f"left:{100 * at / size:.3f}%;width:{max(100 * width / size, 0.15):.3f}%"
            out.append(f'<i style="{place}"></i>')
        at += width
    if cut is not None:
        out.append(f'<u style="left:{100 * cut / size:.3f}%"></u>')
    return f'<div class="strip" aria-hidden="true">{"".join(out)}</div>\n'


def _blocks(example: Example, cut: int | None, dialect: Dialect) -> Iterator[str]:
    """The tokens in blocks, each under its role."""
    shown = dialect.xray(example.ids[:MOST_SHOWN])
    at = 0
    for role, run in itertools.groupby(_numbered(shown), key=lambda item: (item[0], item[1].role)):
        tokens = [token for _, token in run]
        spans = []
        for place, token in enumerate(tokens, at):
            if place == cut:
                spans.append('<hr title="the limit">')
            learnt = place > 0 and example.labels[place] != NOT_LEARNT
            spans.append(_token(token, learnt, cut is not None and place >= cut))
        at += len(tokens)
        name: Role | None = role[1]
        label = "observation" if name == "tool" else name or "text"
        inside = f"<h3>{label}</h3><div>{''.join(spans)}</div>"
        yield f'<section class="{name or "text"}">{inside}</section>\n'


def _numbered(tokens: Sequence[RoleToken]) -> Iterator[tuple[int, RoleToken]]:
    """Each token with the number of its block: a control token that opens a role begins one."""
    number, before = 0, None
    for token in tokens:
        if token.special and token.role is not None and not _ends(token, before):
            number += 1
        before = token
        yield number, token


def _ends(token: RoleToken, before: RoleToken | None) -> bool:
    """Whether a control token stands inside a block: eos, and the marks of calls and thoughts."""
    opens = token.text.strip("<|>") in ("system", "user", "assistant", "observation")
    return before is not None and token.role == before.role and not opens


def _token(token: RoleToken, learnt: bool, gone: bool) -> str:
    named = {"learnt": learnt, "special": token.special, "gone": gone}
    kinds = " ".join(["t", *(kind for kind, yes in named.items() if yes)])
    text = html.escape("\n" if token.text == _NEWLINE else token.text).replace("\n", "↵\n")
    said = f"{token.id}, learnt" if learnt else str(token.id)
    return f'<b class="{kinds}" title="{said}">{text}</b>'


def _same(pair: tuple[int, int]) -> bool:
    return pair[0] == pair[1]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _limit(limits: Limits, layout: Layout) -> str:
    if isinstance(layout, PairLayout) and limits.max_source and limits.max_target:
        return f"question up to {limits.max_source}, answer up to {limits.max_target} tokens"
    return f"limit {limits.max_length:,}, longer rows: {limits.overlong}"
