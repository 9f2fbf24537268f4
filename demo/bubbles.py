"""Messages as the chat draws them: text made safe, thinking folded, and a footer for each row.

`draw` gives two lists of one length: what gr.Chatbot shows, grouped by role as it groups, and
the rows that `page.js` hangs the buttons and figures on. No gradio here, no HTML either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.attachments import context_blocks, split_context
from demo.model_choice import names, title
from demo.text import Say
from glm.messages import Message
from glm.store import Node, TurnRecord

Bubble = dict[str, Any]
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_IMAGE = re.compile(r"!(?=\[)")
_LONGEST_LINE = 4000  # beyond, a line is not searched for inline code


@dataclass(frozen=True, slots=True)
class Drawn:
    """Bubbles for gr.Chatbot and one row of facts for each group of them."""

    bubbles: list[Bubble] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def draw(nodes: Iterable[Node], say: Say) -> Drawn:
    """A path of the tree. Neighbours of one role share a row, as they do in gr.Chatbot."""
    drawn = Drawn()
    for node in nodes:
        shown = bubbles(node.message, say)
        if not shown:
            continue
        drawn.bubbles.extend(shown)
        row = facts(node, say)
        if drawn.rows and drawn.rows[-1]["role"] == row["role"]:
            drawn.rows[-1] = row | {"text": drawn.rows[-1]["text"] + "\n\n" + row["text"]}
        else:
            drawn.rows.append(row)
    return drawn


def bubbles(message: Message, say: Say, thinking: bool = False) -> list[Bubble]:
    """One message; `thinking` while its reasoning is still being written."""
    role = "user" if message.role == "user" else "assistant"
    out: list[Bubble] = []
    context, content = split_context(message.content) if role == "user" else ("", message.content)
    for name, code in context_blocks(context):
        out.append(bubble(role, code, {"title": name, "status": "done"}))
    if message.thinking:
        title = {"title": say("chat.thinking"), "status": "pending" if thinking else "done"}
        out.append(bubble(role, safe(message.thinking), title))
    if content or not out:
        out.append(bubble(role, safe(content)))
    return out


def bubble(role: str, text: str, metadata: dict[str, str] | None = None) -> Bubble:
    """A typed part, so that gradio leaves the white space of the text as it is."""
    shown: Bubble = {"role": role, "content": [{"type": "text", "text": text}]}
    return shown | ({"metadata": metadata} if metadata else {})


def facts(node: Node, say: Say) -> dict[str, Any]:
    """What the footer of a row needs: who, which branch, how fast, liked or not."""
    index, count = node.branch
    return {
        "node": node.id,
        "role": "user" if node.message.role == "user" else "assistant",
        "text": split_context(node.message.content)[1],
        "branch": [index + 1, count],
        "mark": node.feedback.value if node.feedback else None,
        "figures": figures(node.turn, say) if node.turn else "",
        "model": title(node.turn.model) if node.turn and names(node.turn.model) else "",
        "note": say(f"finish.{node.turn.finish}") if node.turn and _cut(node.turn) else "",
        "xray": node.turn is not None,
    }


def figures(turn: TurnRecord, say: Say) -> str:
    """Tokens, speed and context of one answer."""
    rate = turn.usage.new / turn.seconds if turn.seconds > 0 else 0.0
    return say(
        "chat.figures", tokens=turn.usage.new, rate=f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
    )


def safe(text: str) -> str:
    """Markdown in which HTML is shown as text and no image is fetched; code stays as it is.

    The server's policy forbids the requests as well; this keeps the text readable.
    """
    if "<" not in text and "![" not in text:
        return text
    out: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            closed = mark and mark[1].startswith(fence) and not line[mark.end() :].strip()
            fence = "" if closed else fence
            out.append(line)
        elif mark and (mark[1][0] == "~" or "`" not in line[mark.end() :]):
            fence = mark[1]
            out.append(line.replace("<", "&lt;"))
        else:
            out.append(_safe_line(line))
    return "\n".join(out)


def _safe_line(line: str) -> str:
    if "`" not in line or len(line) > _LONGEST_LINE:
        return _plain(line)
    out, at = [], 0
    for code in _CODE.finditer(line):
        out += [_plain(line[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*out, _plain(line[at:])])


def _plain(text: str) -> str:
    return _IMAGE.sub("", text.replace("<", "&lt;"))


def _cut(turn: TurnRecord) -> bool:
    return turn.finish in ("length", "cancelled", "error")


def exchange(nodes: Sequence[Node]) -> int:
    """Where the last exchange begins: the index of the last thing the user said."""
    return max((i for i, node in enumerate(nodes) if node.message.role == "user"), default=0)
