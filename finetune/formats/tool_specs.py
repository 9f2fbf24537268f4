"""The tools of a row, as people write them: a list, one object, a dict by name, a string, null."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from finetune.formats.base import BadRow, short
from glm.messages import ToolSpec

_DOCUMENTED = re.compile(r"^([\w.\-/]{1,128}):.*\nParameters:", re.MULTILINE)
_LEADING = re.compile(r"\s*([\w.\-/]{1,128})\s*[:(]")
_PLAIN = {"name", "description", "parameters"}


def read(value: Any, verbatim: bool = False) -> tuple[ToolSpec, ...]:
    """The specifications in a row's `tools`.

    `verbatim`: each descriptor is rendered exactly as it stands, as ChatGLM3's official code
    does; else OpenAI's `{"type": "function", "function": ...}` is taken off.
    """
    if isinstance(value, str):
        value = _of_text(value)
    if value is None:
        return ()
    if isinstance(value, Mapping):
        value = _of_mapping(value)
    if not isinstance(value, list):
        raise BadRow(f'"tools" is a list of tools, not {short(value)}')
    return tuple(_spec(item, verbatim) for item in value)


def documented(text: str) -> tuple[str, ...]:
    """The functions that a plain text describes (ToolAlpaca's documentation holds several)."""
    return tuple(_DOCUMENTED.findall(text))


def _of_text(text: str) -> Any:
    """JSON in a string, else the string itself as one tool."""
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return value if isinstance(value, list | dict | None) else [text]


def _of_mapping(value: Mapping[str, Any]) -> list[Any]:
    """One tool, or tools by their names (the composite demo's registry)."""
    if not value or isinstance(value.get("name"), str) or "function" in value:
        return [value] if value else []
    return [
        {"name": name, **given} if isinstance(given, Mapping) and "name" not in given else given
        for name, given in value.items()
    ]


def _spec(item: Any, verbatim: bool) -> ToolSpec:
    if item is None:
        raise BadRow('"tools" holds null where a tool is expected')
    if isinstance(item, str):
        described = _json_object(item)
        if described is None:
            return ToolSpec(_name_in(item), raw=item)
        spec = _spec(described, verbatim)
        return ToolSpec(spec.name, spec.description, spec.parameters, item) if verbatim else spec
    if not isinstance(item, Mapping):
        return ToolSpec("", raw=item)
    inner = item.get("function")
    inner = inner if isinstance(inner, Mapping) else item
    name, said, schema = (inner.get(key) for key in ("name", "description", "parameters"))
    spec = ToolSpec(
        name if isinstance(name, str) else "",
        said if isinstance(said, str) else "",
        schema if isinstance(schema, Mapping) else None,
    )
    if verbatim:
        same = json.dumps(item) == json.dumps(spec.to_json())  # the order of keys counts, too
    else:
        same = set(inner) <= _PLAIN and isinstance(schema, Mapping | None)
    shown = item if verbatim else inner
    return spec if same else ToolSpec(spec.name, spec.description, spec.parameters, shown)


def _json_object(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _name_in(text: str) -> str:
    """The one function a text describes; empty when it describes several."""
    names = documented(text)
    if names:
        return names[0] if len(names) == 1 else ""
    found = _LEADING.match(text)
    return found[1] if found and "\n" not in text.strip() else ""
