"""Tools that somebody pasted as JSON or YAML: nothing runs, a person answers their calls.

Understood: `{"name", "description", "parameters"}`, OpenAI's `{"type": "function", "function"}`,
MCP's `inputSchema`, ChatGLM3's list `params`, a list of these, and any other JSON with a name, a
plain text too ("getWeather: ..."). What was pasted is kept in `ToolSpec.raw` and shown to the
model exactly; where it holds no schema, calls are checked for their syntax only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from glm.cancel import Cancel
from glm.errors import BadRequest, ToolError
from glm.messages import ToolSpec
from tools import schema
from tools.arguments import parse
from tools.registry import Context, Tool

MAX_PASTED = 200_000  # characters
MAX_TOOLS = 64
_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array",
    "dict": "object", "tuple": "array",
}  # fmt: skip
_JSON_TYPES = frozenset(("string", "integer", "number", "boolean", "array", "object"))
_KEYS = {"name", "function", "description", "parameters", "type"}
_LEADING = re.compile(r"\s*([\w.\-/]{1,128})\s*[:(]")


def pasted(text: str) -> tuple[Tool, ...]:
    """The manual tools in a text. Raises BadRequest, one sentence, for a text that holds none."""
    found = _parsed(text)
    values = found if isinstance(found, list) else [found]
    if not values or len(values) > MAX_TOOLS:
        raise BadRequest(f"paste 1 to {MAX_TOOLS} tools at a time")
    tools = tuple(manual(spec_of(value)) for value in values)
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadRequest(f"two of the tools are named '{twice}'")
    return tools


def manual(spec: ToolSpec) -> Tool:
    """A tool whose calls a person answers. Raises BadRequest for a schema that cannot be used."""

    def run(_: dict[str, Any], __: Context, ___: Cancel) -> None:
        raise ToolError(f"'{spec.name}' is answered by a person, and nobody is there to answer")

    return Tool(spec, run, "ask", origin="schema", manual=True)


def spec_of(value: Any) -> ToolSpec:
    """The specification in a descriptor of any shape, kept as `raw`. Raises BadRequest."""
    problem = schema.size_problem(value)
    if problem:
        raise BadRequest(f"this descriptor {problem}")
    inner = value
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        inner = value["function"]
    name = _name(inner)
    if name is None:
        raise BadRequest('a tool needs a name: {"name": "get_weather", ...}')
    schema.check_name(name)
    if not isinstance(inner, Mapping):
        return ToolSpec(name, raw=value)
    description = inner.get("description", "")
    return ToolSpec(
        name, description if isinstance(description, str) else "", _schema(inner), value
    )


def _name(value: Any) -> Any:
    if isinstance(value, str):
        found = _LEADING.match(value)
        return found[1] if found else None
    return value.get("name") if isinstance(value, Mapping) else None


def _schema(descriptor: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for key in ("parameters", "inputSchema", "input_schema"):
        if isinstance(found := descriptor.get(key), Mapping):
            return found if _is_schema(found) else None
    params = descriptor.get("params", descriptor.get("parameters"))
    return _of_params(params) if isinstance(params, list) else None


def _is_schema(value: Mapping[str, Any]) -> bool:
    """Tells a JSON schema from other things that are called parameters (ToolAlpaca)."""
    return not value or any(key in value for key in ("type", "properties", "$ref", "$schema"))


def _of_params(params: list[Any]) -> Mapping[str, Any] | None:
    """ChatGLM3's registry: `[{"name", "description", "type": "str", "required": True}, ...]`."""
    properties, required = {}, []
    for param in params:
        if not isinstance(param, Mapping) or not isinstance(param.get("name"), str):
            return None
        kind = str(param.get("type", "")).partition("[")[0]
        kind = _TYPES.get(kind, kind)
        field = {"type": kind} if kind in _JSON_TYPES else {}
        properties[param["name"]] = {**field, "description": str(param.get("description", ""))}
        if param.get("required", False):
            required.append(param["name"])
    return {"type": "object", "properties": properties, "required": required}


def _parsed(text: str) -> Any:
    if len(text) > MAX_PASTED:
        raise BadRequest(f"the text is longer than {MAX_PASTED} characters")
    if text.lstrip()[:1] in ("{", "["):
        return _json(text)
    value = _yaml(text)
    if value is None:
        raise BadRequest("paste the schema of a tool, as JSON or YAML")
    return value


def _json(text: str) -> Any:
    try:
        return parse(text)
    except ToolError as error:
        raise BadRequest(str(error)) from error


def _yaml(text: str) -> Any:
    """Text that is no YAML, and YAML that is a text, are plain descriptors."""
    try:
        _look_through(text)
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if (found := _LEADING.match(text)) and found[1] not in _KEYS:
            return text.strip()
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        told = getattr(error, "problem", None) or "it cannot be read"
        at = f", line {line + 1}" if line is not None else ""
        raise BadRequest(f"this is neither JSON nor YAML{at}: {told}") from error
    if isinstance(value, Mapping) and not _KEYS & set(value):
        return text.strip()  # "getWeather: ..." happens to be YAML
    return value


def _look_through(text: str) -> None:
    """Refuse what makes a short text large, or its reading slow: aliases, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.events.AliasEvent):
            raise BadRequest("aliases (*name) are not supported; write the value out")
        opens = isinstance(event, yaml.events.CollectionStartEvent)
        depth += opens - isinstance(event, yaml.events.CollectionEndEvent)
        if depth > schema.MAX_DEPTH:
            raise BadRequest(f"this is nested deeper than {schema.MAX_DEPTH} levels")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain YAML whose dates stay texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
