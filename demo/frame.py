"""What a handler says to the page: only what changes; the wiring turns it into updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demo.bubbles import Bubble, draw, exchange
from demo.text import Say
from glm.store import Node

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The footers of both parts of the chat. `busy` while an answer is being written."""

    history: Sequence[Row]
    live: Sequence[Row]
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One step of the page. None leaves a part as it is.

    `history` is all but the last exchange and `live` the last one, a component of its own, so
    that a step costs the same at turn 200 as at turn 1. `meter` is the line under the answer,
    `notice` a sentence about something that went wrong. `context` is (used, available) tokens.
    `composer` replaces the text in the input and `files` what is attached to it;
    `conversation` is the id of the open one.
    """

    history: list[Bubble] | None = None
    live: list[Bubble] | None = None
    rows: Rows | None = None
    meter: str | None = None
    notice: str | None = None
    context: tuple[int, int] | None = None
    composer: str | None = None
    files: tuple[str, ...] = ()
    conversation: str | None = None
    listing: bool = False


def whole(nodes: Sequence[Node], say: Say, **more: Any) -> Frame:
    """A conversation as it rests."""
    at = exchange(nodes)
    before, last = draw(nodes[:at], say), draw(nodes[at:], say)
    if last.rows and last.rows[-1]["role"] == "user":
        last.rows[-1]["unanswered"] = True
    rows = Rows(before.rows, last.rows)
    return Frame(before.bubbles, last.bubbles, rows, **{"meter": "", "notice": "", **more})


def asking(nodes: Sequence[Node], question: list[Bubble], say: Say, **more: Any) -> Frame:
    """The conversation up to a question that is about to be answered."""
    before = draw(nodes, say)
    rows = Rows(before.rows, [{"role": "user", "text": "", "node": None}], busy=True)
    return Frame(before.bubbles, question, rows, meter="", notice="", **more)
