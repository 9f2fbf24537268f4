"""The list of conversations, newest first, grouped by day, as safe HTML with data attributes.

`page.js` turns clicks into the events open, rename and remove.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from html import escape

from demo.text import Say
from glm.store import Summary

SHOWN = 200  # a search finds the rest


def listing(
    summaries: Iterable[Summary], current: str, say: Say, query: str = "", today: date | None = None
) -> str:
    """The inside of the sidebar's list; `current` is the conversation that is open."""
    rows = list(summaries)
    if not rows:
        key = "side.nothing_found" if query.strip() else "side.empty"
        return f'<p class="side-empty">{escape(say(key))}</p>'
    today = today or date.today()
    out: list[str] = []
    heading = ""
    for row in rows[:SHOWN]:
        day = _day(datetime.fromtimestamp(row.updated).date(), today)
        if day != heading:
            heading = day
            out.append(f'<h4 class="side-day">{escape(say(f"side.{day}"))}</h4>')
        out.append(_row(row, current, say))
    if len(rows) > SHOWN:
        out.append(f'<p class="side-empty">{escape(say("side.more", count=len(rows) - SHOWN))}</p>')
    return "".join(out)


def _row(row: Summary, current: str, say: Say) -> str:
    title = escape(row.title or say("side.untitled"))
    here = ' aria-current="page"' if row.id == current else ""
    return (
        f'<div class="side-row" data-id="{escape(row.id)}"{here}>'
        f'<button class="side-open" data-do="open" title="{title}"><span>{title}</span></button>'
        f'<button class="side-more" data-do="rename" aria-label="{escape(say("side.rename"))}" '
        f'title="{escape(say("side.rename"))}"></button>'
        f'<button class="side-more" data-do="remove" aria-label="{escape(say("side.delete"))}" '
        f'title="{escape(say("side.delete"))}"></button></div>'
    )


def _day(day: date, today: date) -> str:
    if day >= today:
        return "today"
    if day == today - timedelta(days=1):
        return "yesterday"
    return "week" if day > today - timedelta(days=7) else "older"
