"""Do a call's arguments fit the schema of its tool? For scoring, as they are: nothing is converted.

What a tool gets when it really runs is the business of `tools`, which training does not import.
A schema that is none (ToolAlpaca's texts, ChatGLM3's early `params`) checks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from glm.messages import ToolSpec

PATTERN_SECONDS = 0.2


def has_schema(spec: ToolSpec) -> bool:
    """Whether there is a usable JSON schema of an object."""
    schema = spec.parameters
    if not isinstance(schema, Mapping) or "properties" not in schema:
        return False
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]

    try:
        _checker().check_schema(schema)
    except (SchemaError, RecursionError):
        return False
    return True


def misfit(spec: ToolSpec, arguments: Mapping[str, Any]) -> str:
    """What is wrong with the arguments, in short; "" when they fit or there is no schema.

    A schema that says nothing of further fields allows none beside its `properties`.
    """
    if not has_schema(spec):
        return ""
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    schema = {"additionalProperties": False, **(spec.parameters or {})}
    try:
        # A registry of its own: the library's fetches what a schema refers to, from files, too.
        wrong = best_match(_checker()(schema, registry=Registry()).iter_errors(dict(arguments)))
    except (Unresolvable, RecursionError) as error:
        return f"the schema cannot be followed ({type(error).__name__})"
    return "" if wrong is None else str(wrong.message)[:200]


@cache
def _checker() -> Any:
    """The usual draft, with patterns that end in time."""
    from jsonschema import validators  # type: ignore[import-untyped]

    return validators.extend(validators.Draft202012Validator, {"pattern": _pattern})


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[Any]:
    import regex  # type: ignore[import-untyped]
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

    if not isinstance(value, str):
        return
    try:
        found = regex.search(pattern, value, timeout=PATTERN_SECONDS, concurrent=True)
    except (TimeoutError, regex.error):
        yield ValidationError("cannot be compared with the pattern of the schema")
        return
    if not found:
        yield ValidationError(f"does not match the pattern {pattern[:100]}")
