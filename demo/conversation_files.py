"""Save a conversation as a file and open one: JSON, Markdown, HTML out; JSON, Markdown in.

What a format looks like is in `glm/store/exchange.py`, `glm/store/markdown.py` and
`html_export.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from demo.attachments import read_text
from demo.html_export import export_html
from glm.messages import Conversation, Message, ToolSpec
from glm.store import Store
from glm.store.exchange import Transcript, file_name, read_json, write_json
from glm.store.markdown import read_markdown, write_markdown

LIMIT = 20_000_000  # bytes of a file to open
KINDS: dict[str, tuple[str, Callable[[Transcript, str], str]]] = {
    "json": ("json", lambda transcript, lang: write_json(transcript)),
    "markdown": ("md", write_markdown),
    "html": ("html", export_html),
}


def transcript(
    store: Store, owner: str, conversation: str, tools: tuple[ToolSpec, ...] = ()
) -> Transcript:
    """The active branch with its title, the system prompt as its first message."""
    system = store.settings(owner, conversation).get("system") or ""
    messages = [node.message for node in store.path(owner, conversation)]
    if system:
        messages.insert(0, Message("system", system))
    title = store.summary(owner, conversation).title
    return Transcript(Conversation(tuple(messages), tools), title)


def save_text(spoken: Transcript, kind: str, lang: str = "en") -> tuple[str, str]:
    """(file name, text) of one of KINDS, to be saved as UTF-8."""
    ending, write = KINDS[kind]
    return file_name(spoken.title, ending), write(spoken, lang)


def open_file(store: Store, owner: str, path: Path | str) -> str:
    """A new conversation from a JSON or Markdown file; its id. BadRequest says what is wrong."""
    path = Path(path)
    text = read_text(path, LIMIT)
    is_json = text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[")
    spoken = read_json(text) if is_json else read_markdown(text)
    messages = list(spoken.conversation.messages)
    settings = {}
    if messages[0].role == "system" and messages[0].content:
        settings["system"] = messages.pop(0).content
    return store.restore(owner, messages, spoken.title or path.stem, settings)
