"""A conversation with tools as a list of steps, each a key and its HTML.

The page keeps what has the same key and the same HTML, so that a fold somebody opened stays
open and a step costs what changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from demo import step_html
from demo.bubbles import figures
from demo.decision_form import Known, form
from demo.model_choice import names, title
from demo.text import Say
from glm.loop.observations import FAILED, SKIPPED, observation
from glm.messages import ToolCall, ToolResult
from glm.store import Node

Step = dict[str, str]  # key, html


@dataclass(frozen=True, slots=True)
class Shown:
    """What drawing needs besides the messages: kept answers by message, tools, words."""

    answers: Mapping[int, ToolResult]
    tools: Sequence[Known]
    say: Say


def step(key: str, html: str, kind: str = "") -> Step:
    return {"key": key, "html": html, "kind": kind}


def draw(nodes: Sequence[Node], shown: Shown, tail: bool = True) -> list[Step]:
    """The steps of a path; with `tail`, what can be done at its end is shown."""
    out: list[Step] = []
    calls: dict[str, ToolCall] = {}
    waiting: list[tuple[Node, ToolCall]] = []
    for node in nodes:
        if node.message.role == "assistant":
            calls = {call.id: call for call in node.message.calls}
            waiting = [(node, call) for call in node.message.calls]
            out += _answer(node, shown)
        elif node.message.role == "tool":
            found = calls.get(node.message.call_id)
            waiting = [item for item in waiting if item[1].id != node.message.call_id]
            out.append(_seen(node, found, shown))
        else:
            waiting = []
            out.append(_said(node, shown.say))
    if tail and nodes:
        out += _tail(nodes[-1], waiting, shown)
    return out


def said(text: str) -> Step:
    """A question that is not kept yet."""
    return step("asked", step_html.question(text), "user")


def _said(node: Node, say: Say) -> Step:
    bar = _bar(
        _branches(node, say),
        step_html.button("edit", say("page.edit"), "t-ask", node=node.id),
    )
    return step(f"n{node.id}", step_html.question(node.message.content, bar), "user")


def _answer(node: Node, shown: Shown) -> list[Step]:
    message, say, out = node.message, shown.say, []
    if message.thinking:
        out.append(step(f"n{node.id}t", step_html.thought(message.thinking, say)))
    parts = _model_buttons(node, say)
    if message.content and message.calls:
        out.append(step(f"n{node.id}", step_html.thought(message.content, say)))
    elif message.content:
        out.append(step(f"n{node.id}", step_html.answer(message.content, _bar(*parts))))
    for place, call in enumerate(message.calls):
        fork = step_html.pill(say("tools.fork"), "t-fork", "small", node=node.id, call=call.id)
        more = parts if place == len(message.calls) - 1 else []
        html = step_html.call(call, "done", say, _bar(fork, *more))
        out.append(step(f"n{node.id}c{place}", html))
    return out


def _seen(node: Node, call: ToolCall | None, shown: Shown) -> Step:
    say, text = shown.say, node.message.content
    result = shown.answers.get(node.id)
    if result is None or observation(result) != text:
        result = SKIPPED if text == observation(SKIPPED) else ToolResult(text)
        if text.startswith(FAILED) and result is not SKIPPED:
            result = ToolResult(text.removeprefix(FAILED), error=True)
    name = node.message.name or (call.name if call else "")
    bar = _bar(
        _branches(node, say),
        step_html.pill(say("tools.rewrite"), "t-rewrite", "small", node=node.id),
    )
    return step(f"n{node.id}", step_html.observation(name, result, say, bar))


def _tail(last: Node, waiting: Sequence[tuple[Node, ToolCall]], shown: Shown) -> list[Step]:
    """What can be done where a path ends before its answer."""
    say = shown.say
    if waiting:
        node, call = waiting[0]
        html = f'<div class="card turn-now">{form(call, shown.tools, say, node.id)}</div>'
        return [step(f"n{node.id}open", html)]
    if last.message.role != "assistant":
        go = step_html.pill(say("tools.go_on"), "t-go", "go", node=last.id)
        return [step(f"n{last.id}go", f'<div class="bar">{go}</div>')]
    if last.turn and last.turn.finish in ("length", "cancelled", "error", "rounds"):
        return [step(f"n{last.id}end", step_html.ending(last.turn.finish, "", say))]
    return []


def _model_buttons(node: Node, say: Say) -> list[str]:
    parts = [
        _branches(node, say),
        step_html.button("copy", say("page.copy"), "t-copy", node=node.id),
        step_html.button("retry", say("page.retry"), "t-retry", node=node.id),
    ]
    if node.turn is not None:
        parts.append(step_html.button("eye", say("page.xray"), "t-xray", node=node.id))
        if names(node.turn.model):
            parts.append(f'<span class="by">{escape(title(node.turn.model))}</span>')
        parts.append(f'<span class="figures">{escape(figures(node.turn, say))}</span>')
    return parts


def _branches(node: Node, say: Say) -> str:
    at, count = node.branch
    if count < 2:
        return ""
    before = step_html.button("before", say("page.before"), "t-branch", node=node.id, step=-1)
    after = step_html.button("after", say("page.after"), "t-branch", node=node.id, step=1)
    both = step_html.button("sides", say("tools.sides"), "t-sides", node=node.id)
    return f'<span class="branches">{before}<span>{at + 1} / {count}</span>{after}{both}</span>'


def _bar(*parts: str) -> str:
    return f'<div class="bar">{"".join(parts)}</div>'
