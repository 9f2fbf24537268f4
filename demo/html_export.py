"""A conversation as one HTML file that reads well anywhere, offline, in light and dark.

    page = export_html(Transcript(conversation, "Weather"), lang="zh")

Markdown is rendered, formulas are MathML. The file loads nothing and runs nothing: no script,
no remote picture, and a policy in its head that forbids both.
"""

from __future__ import annotations

import html
import json
from functools import cache
from pathlib import Path

from demo.highlight import highlight
from demo.rich_text import rich_text
from glm.messages import Message, ToolCall, ToolSpec
from glm.store.exchange import Transcript

FOLDER = Path(__file__).parents[1] / "assets" / "export"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def export_html(transcript: Transcript, lang: str = "en") -> str:
    """The whole file as text, to be saved as UTF-8."""
    labels = _labels()["zh" if lang == "zh" else "en"]
    conversation = transcript.conversation
    title = html.escape(" ".join(transcript.title.split()) or labels["untitled"])
    count = sum(message.role in ("user", "assistant") for message in conversation.messages)
    counted = labels["turn"] if count == 1 else labels["turns"].format(count=count)
    parts = [_tools(conversation.tools, labels["tools"])] if conversation.tools else []
    parts += [_message(message, labels) for message in conversation.messages]
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    page = (
        f'<!doctype html>\n<html lang="{"zh-CN" if lang == "zh" else "en"}">\n<head>\n'
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<header>\n<h1>{title}</h1>\n<p>{counted}</p>\n</header>\n"
        + "".join(parts)
        + f"<footer>{labels['made']}</footer>\n</main>\n</body>\n</html>\n"
    )
    return page.encode("utf-8", "replace").decode()


def _message(message: Message, labels: dict[str, str]) -> str:
    body = ""
    if message.role == "system":
        body = _folded(labels["system"], rich_text(message.content))
    elif message.role == "tool":
        name = f" · {message.name}" if message.name else ""
        body = _folded(labels["tool"] + name, _code(message.content, _is_json(message.content)))
    else:
        if message.thinking:
            body = _folded(labels["thinking"], rich_text(message.thinking))
        body += rich_text(message.content)
        body += "".join(_call(call, labels["call"]) for call in message.calls)
        body = f"<h2>{labels[message.role]}</h2>\n{body}"
    return f'<article class="{message.role}">\n{body}</article>\n'


def _call(call: ToolCall, label: str) -> str:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False, indent=2)
    name = html.escape(call.name)
    return (
        f'<div class="call"><p>{label} <strong>{name}</strong></p>\n'
        f"{_code(arguments, True) if call.arguments else ''}</div>\n"
    )


def _tools(tools: tuple[ToolSpec, ...], label: str) -> str:
    rows = "".join(
        f"<dt>{html.escape(tool.name)}</dt>\n<dd>{html.escape(tool.description)}</dd>\n"
        for tool in tools
    )
    inside = _folded(f"{label} ({len(tools)})", f"<dl>\n{rows}</dl>\n")
    return f'<article class="tools">\n{inside}</article>\n'


def _folded(title: str, inside: str) -> str:
    return f"<details>\n<summary>{html.escape(title)}</summary>\n{inside}</details>\n"


def _code(text: str, is_json: bool) -> str:
    code = highlight(text, "json" if is_json else "")
    return f'<figure class="code"><pre><code>{code}</code></pre></figure>\n'


def _is_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[")


@cache
def _labels() -> dict[str, dict[str, str]]:
    labels: dict[str, dict[str, str]] = json.loads(
        (FOLDER / "labels.json").read_text(encoding="utf-8")
    )
    return labels
