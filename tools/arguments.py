"""The arguments of a call: converted where the meaning is plain, then checked against the schema.

What is wrong becomes one sentence that names the field, for the model to read. A schema that
says nothing about further fields (`additionalProperties`) allows none beside its `properties`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from glm.errors import ToolError
from glm.messages import ToolSpec
from tools.schema import MAX_DEPTH, resolve, validator_class

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

MAX_TOLD = 3  # of the things that are wrong
MAX_WHOLE = 2**63  # whole numbers beyond are refused: no tool means them
PATTERN_SECONDS = 0.2
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
    "null": type(None),
}
_WORDS = {
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def check(spec: ToolSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the tool gets them. Raises ToolError with one sentence naming the field.

    A tool without a schema takes whatever is well formed.
    """
    for key, value in given.items():
        if problem := _unfit(value):
            raise ToolError(f"the argument '{_shown(key)}' {problem}")
    if spec.parameters is None:
        return dict(given)
    converted = _object(dict(given), spec.parameters, spec.parameters)
    problems = list(_problems(spec.parameters, converted))
    if problems:
        more = f"; and {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
        raise ToolError("; ".join(problems[:MAX_TOLD]) + more)
    return converted


def from_json(text: str) -> dict[str, Any]:
    """Arguments written as a JSON object. Raises ToolError; a key that stands twice is named."""
    value = parse(text, "the arguments are")
    if not isinstance(value, dict):
        raise ToolError("the arguments are not a JSON object")
    return value


def parse(text: str, what: str = "this is") -> Any:
    """Any JSON value; NaN and numbers beyond any float become what `check` refuses.

    Raises ToolError with a sentence that begins with `what`, or names the key that stands twice.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_int=_whole, parse_constant=lambda _: math.nan
        )
    except RecursionError as error:
        raise ToolError(f"{what} nested too deeply") from error
    except ValueError as error:
        raise ToolError(f"{what} not JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ToolError(f"'{_shown(key)}' stands twice")
        out[key] = value
    return out


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else math.inf


def _unfit(value: Any) -> str:
    """Why a value is none that JSON and every tool can hold; "" when it is."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, bool | str) or item is None:
            continue
        if isinstance(item, float) and not math.isfinite(item):
            return "is not a finite number"
        if isinstance(item, int) and abs(item) >= MAX_WHOLE:
            return "is too large a number"
        if depth > MAX_DEPTH:
            return f"is nested deeper than {MAX_DEPTH} levels"
        if isinstance(item, Mapping):
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            waiting += [(inner, depth + 1) for inner in item]
        elif not isinstance(item, int | float):
            return f"is a {type(item).__name__}, which is no JSON value"
    return ""


# ---- conversion ----------------------------------------------------------------------------


def _convert(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    schema = resolve(schema, root)
    if not isinstance(schema, Mapping):
        return value
    for other in ("anyOf", "oneOf"):
        if isinstance(schema.get(other), list):
            return _first_fit(value, [resolve(part, root) for part in schema[other]], root)
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds or []
    if kinds and not any(_is(value, kind) for kind in kinds):
        value = next((to for kind in kinds if (to := _to(value, kind)) is not None), value)
    if isinstance(value, dict):
        return _object(value, schema, root)
    if isinstance(value, list):
        return _list(value, schema, root)
    return value


def _list(value: list[Any], schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    """Each item converted: the first ones by their own schemas, where they have them."""
    first, rest = schema.get("prefixItems", ()), schema.get("items", True)
    if isinstance(rest, list):  # before draft 2020-12
        first, rest = rest, schema.get("additionalItems", True)
    schemas = [*first, *[rest] * max(0, len(value) - len(first))]
    return [_convert(item, part, root) for item, part in zip(value, schemas, strict=False)]


def _first_fit(value: Any, schemas: list[Any], root: Mapping[str, Any]) -> Any:
    """Converted by the first alternative that fits; unchanged when it fits one, or none."""
    kinds = [part["type"] for part in schemas if isinstance(part, Mapping) and "type" in part]
    if any(isinstance(kind, str) and _is(value, kind) for kind in kinds):
        return value
    converted = (_convert(value, part, root) for part in schemas)
    return next((item for item in converted if item is not value), value)


def _object(value: dict[str, Any], schema: Mapping[str, Any], root: Any) -> dict[str, Any]:
    """Each field converted; null for a field that may be left out means that it is left out."""
    properties, required = schema.get("properties", {}), schema.get("required", ())
    others = schema.get("additionalProperties")
    out = {}
    for key, item in value.items():
        part = resolve(properties.get(key, others), root)
        leave_out = item is None and key in properties and key not in required
        if not (leave_out and isinstance(part, Mapping) and part.get("type", "null") in _NO_NULL):
            out[key] = _convert(item, part, root)
    return out


_NO_NULL = tuple(kind for kind in _KINDS if kind != "null")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return False  # 3.0 is converted
    return isinstance(value, _KINDS.get(kind, ()))


def _to(value: Any, kind: str) -> Any:
    """The same value as another type; None when that would be a guess."""
    text = value.strip() if isinstance(value, str) else None
    converted: Any = None
    if kind == "integer":
        if isinstance(value, float) and value.is_integer():
            converted = int(value)
        elif text and _WHOLE.fullmatch(text):
            converted = int(text)
    elif kind == "number" and text and _NUMBER.fullmatch(text):
        number = float(text)
        converted = int(text) if _WHOLE.fullmatch(text) else number
        converted = converted if math.isfinite(number) else None
    elif kind == "boolean" and text and text.lower() in ("true", "false"):
        converted = text.lower() == "true"
    elif kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        converted = str(value)
    elif kind in ("array", "object") and text and text[0] in "[{":
        converted = _inner_json(text, kind)
    elif kind == "array" and isinstance(value, tuple):
        converted = list(value)
    return converted


def _inner_json(text: str, kind: str) -> Any:
    try:
        value = parse(text)
    except ToolError:
        return None
    return value if _is(value, kind) and not _unfit(value) else None


# ---- validation ----------------------------------------------------------------------------


def _problems(schema: Mapping[str, Any], values: dict[str, Any]) -> Iterator[str]:
    if "properties" in schema and "additionalProperties" not in schema:
        schema = {**schema, "additionalProperties": False}
    from referencing import Registry

    # A registry of its own: the library's fetches what a schema refers to, from files, too.
    validator = _checker(validator_class(schema))(schema, registry=Registry())
    errors = sorted(validator.iter_errors(values), key=lambda error: list(map(str, error.path)))
    for error in errors:
        yield from _sentences(error)


def _sentences(error: ValidationError) -> Iterator[str]:
    field = ".".join(_shown(part) for part in error.absolute_path)
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        wanted = next((key for key in missing if error.message.startswith(repr(key))), missing[0])
        yield f"the argument '{_inside(field, wanted)}' is missing"
    elif error.validator in ("additionalProperties", "unevaluatedProperties"):
        known = list(error.schema.get("properties", {}))
        for key in error.instance:
            if key not in known:
                names = ", ".join(map(_shown, known[:20])) or "none"
                yield f"'{_inside(field, key)}' is not an argument; there are: {names}"
    else:
        yield f"the argument '{field}' {_reason(error)}" if field else f"the call {_reason(error)}"


def _reason(error: ValidationError) -> str:
    wanted, found = error.validator_value, _shown(error.instance)
    reasons: dict[str, Callable[[], str]] = {
        "type": lambda: f"must be {_kinds(wanted)}, not {found}",
        "enum": lambda: f"must be one of {', '.join(map(_shown, wanted[:20]))}, not {found}",
        "const": lambda: f"must be {_shown(wanted)}, not {found}",
        "minimum": lambda: f"must be at least {wanted}, not {found}",
        "maximum": lambda: f"must be at most {wanted}, not {found}",
        "exclusiveMinimum": lambda: f"must be more than {wanted}, not {found}",
        "exclusiveMaximum": lambda: f"must be less than {wanted}, not {found}",
        "minLength": lambda: f"needs at least {wanted} characters",
        "maxLength": lambda: f"may have at most {wanted} characters",
        "minItems": lambda: f"needs at least {wanted} items",
        "maxItems": lambda: f"may have at most {wanted} items",
        "uniqueItems": lambda: f"holds an item twice: {found}",
        "pattern": lambda: error.message,
        "anyOf": lambda: f"has none of the forms allowed: {found}",
        "oneOf": lambda: f"has none, or more than one, of the forms allowed: {found}",
    }
    known = reasons.get(error.validator)
    return known() if known else f"does not satisfy '{error.validator}': {found}"


def _kinds(wanted: Any) -> str:
    return " or ".join(
        _WORDS.get(kind, kind) for kind in ([wanted] if isinstance(wanted, str) else wanted)
    )


def _inside(field: str, key: Any) -> str:
    return f"{field}.{_shown(key)}" if field else _shown(key)


def _shown(value: Any) -> str:
    """A value or a name as a sentence can hold it: one line, short, nothing invisible."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(char if char.isprintable() else " " for char in text[:200])
    return text if len(text) <= 60 else text[:57] + "..."


@cache
def _checker(draft: Any) -> Any:
    """A draft's validator with patterns that end in time, and unique items in linear time."""
    from jsonschema import validators  # type: ignore[import-untyped]

    return validators.extend(draft, {"pattern": _pattern, "uniqueItems": _unique_items})


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    import regex  # type: ignore[import-untyped]
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

    if not isinstance(value, str):
        return
    try:
        found = regex.search(pattern, value, timeout=PATTERN_SECONDS, concurrent=True)
    except TimeoutError:
        yield ValidationError("takes too long to compare with the pattern of the schema")
        return
    if not found:
        yield ValidationError(f"does not match the pattern {pattern[:100]}: {_shown(value)}")


def _unique_items(_: Any, wanted: bool, value: Any, __: Any) -> Iterator[ValidationError]:
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

    if wanted and isinstance(value, list):
        seen = {json.dumps(_one_form(item), sort_keys=True) for item in value}
        if len(seen) < len(value):
            yield ValidationError("holds an item twice")


def _one_form(value: Any) -> Any:
    """Of values that JSON Schema holds for equal, such as 1 and 1.0, the same one."""
    if isinstance(value, dict):
        return {key: _one_form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_one_form(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
