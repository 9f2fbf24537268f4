"""The prompt languages for other programs: chat templates, Modelfiles, response templates.

They are strings, so text in them that spells a control token becomes the token; only our own
dialects put control tokens in by id. What a template cannot say exactly is named where it stands
in `templates/`: values of calls in llama.cpp (`plain`) are JSON instead of Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glm.dialects import chatglm3, glm4

_FOLDER = Path(__file__).parent / "templates"
PYTHON_VALUE = "'%r' | format(value)"
JSON_VALUE = "(value | tojson)"
_HEAD = (
    "{{ '<|' + role + '|>' + metadata + '\\n' }}{{ ' ' + content if content else '' }}",
    "{{ '<|' + role + '|>' + (metadata + '\\n ' if metadata else ' \\n') + content }}",
)


def chat_template(dialect: str, plain: bool = False, piece: bool = False) -> str:
    """The Jinja template of a dialect, "" when there is none. `plain` for engines that are not
    Python's, which cannot write a value as Python does; `piece` as in `modelfile`.
    """
    text = _read(f"{dialect}.jinja")
    tools = glm4.TOOL_SYSTEM if dialect == "glm4" else chatglm3.TOOL_SYSTEM
    text = text.replace("@TOOLS@", tools.replace("\n", "\\n"))
    text = text.replace("@END@", glm4.TOOL_END)
    text = text.replace(*_HEAD) if piece else text
    return text.replace("@VALUE@", JSON_VALUE if plain else PYTHON_VALUE)


def response_template(dialect: str) -> dict[str, Any] | None:
    """How transformers reads answers and calls of a dialect back; None when it is not told."""
    text = _read(f"{dialect}.response.json")
    return dict(json.loads(text)) if text else None


def modelfile(dialect: str, piece: bool = False) -> str:
    """The part of an Ollama Modelfile that is the dialect's, "" when there is none.

    `piece`: a tokenizer has one piece for a space and a line break, which llama.cpp looks for in
    the text before it adds the first space; and adds a space after it.
    """
    text = _read(f"{dialect}.modelfile")
    return text.replace("\n {{ .Content", " \n{{ .Content") if piece else text


def example(dialect: str) -> str:
    """A control token of the dialect, for a warning."""
    return "</s>" if dialect == "chatglm2" else "<|user|>"


def _read(name: str) -> str:
    file = _FOLDER / name
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
